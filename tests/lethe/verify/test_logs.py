"""Replaying an exported log: what was signed is what is there, and nobody saw anything else."""

import io
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from lethe.verify import NotProven, Reason, ReplayedLog, VerifyingKey, verify_log
from lethe.verify import log as replaying
from tests.lethe.verify import naive
from tests.lethe.verify.names import KEY, MODEL, OTHER_KEY, START, TRUSTED
from tests.lethe.verify.story import Story, in_two_versions, simple, version_id


def replayed(content: bytes, *pinned: str) -> ReplayedLog:
    return verify_log(io.BytesIO(content), [TRUSTED], pinned)


def reason_of(content: bytes, *pinned: str) -> Reason:
    with pytest.raises(NotProven) as refused:
        replayed(content, *pinned)
    return refused.value.reason


def lines(content: bytes) -> list[bytes]:
    return content.splitlines(keepends=True)


def test_a_log_is_recomputed_from_its_entries_alone() -> None:
    story = in_two_versions()[0]
    heads = [story.head(size, minutes=90 + size) for size in (0, 1, 3, 3, 7, 8)]
    found = replayed(story.export(heads), story.head(2), story.head(5))
    assert (found.origin, found.size, found.heads) == (story.origin, 8, 6)
    assert found.last.root_hash == naive.root(story.leaves)
    assert found.status == {
        version_id(MODEL, 1): "version.withdrawn",
        version_id(MODEL, 2): "version.withdrawn",
        version_id(MODEL, 3): "version.current",
    }


def test_an_empty_log_is_one() -> None:
    assert replayed(Story().export()).size == 0


def test_a_log_is_read_from_a_file_and_from_a_pipe(tmp_path: Path) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: Any) -> int:
            raise io.UnsupportedOperation

    content = simple()[0].export()
    path = tmp_path / "log.jsonl"
    path.write_bytes(content)
    assert verify_log(path, [TRUSTED]) == verify_log(Pipe(content), [TRUSTED]) == replayed(content)


def test_each_byte_of_an_entry_is_covered() -> None:
    content = simple()[0].export()
    for position in range(len(lines(content)[0]), len(content), 3):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        with pytest.raises(NotProven):
            replayed(bytes(changed))


def test_a_truncated_log_is_refused() -> None:
    story = simple()[0]
    content = story.export()
    parts = lines(content)
    head = parts[-1]
    assert reason_of(content[:-1]) == Reason.LOG_TRUNCATED
    assert reason_of(content[:-40]) == Reason.LOG_TRUNCATED
    assert reason_of(b"".join(parts[:-1])) == Reason.LOG_TRUNCATED  # no head any more
    assert reason_of(b"".join([*parts[:-2], head])) == Reason.LOG_TRUNCATED
    # As if the last entries had never been: only who saw them can tell.
    earlier = b"".join([*parts[:4], rfc8785.dumps({"checkpoint": story.head(3)}), b"\n"])
    assert replayed(earlier).size == 3
    assert reason_of(earlier, story.head()) == Reason.LOG_TRUNCATED


def test_entries_after_the_last_head_are_refused() -> None:
    story = simple()[0]
    assert reason_of(story.export([story.head(5)])) == Reason.LOG_UNCOVERED


def test_a_rewritten_log_does_not_fit_its_heads() -> None:
    story = simple()[0]
    head = story.head()
    story.entries[2]["facts"] = {"rewritten": True}
    assert reason_of(story.export([head])) == Reason.LOG_ROOT_DIFFERS
    assert reason_of(story.export([head, story.head()])) == Reason.LOG_ROOT_DIFFERS


def test_a_forked_log_contradicts_what_a_witness_keeps() -> None:
    story = simple()[0]
    kept = story.head(4), story.head()
    for changed in (3, 5):
        fork = deepcopy(story)
        fork.entries[changed]["at"] = "2026-11-21T23:00:00+00:00"
        assert replayed(fork.export()).size == 6
        assert reason_of(fork.export(), *kept) == Reason.LOG_FORKED
    assert replayed(story.export(), *kept).size == 6


def test_entries_that_change_places_are_a_fork() -> None:
    story = simple()[0]
    kept = story.head()
    story.entries[1], story.entries[2] = story.entries[2], story.entries[1]
    assert reason_of(story.export(), kept) == Reason.LOG_FORKED


def test_heads_of_another_log_or_key_are_refused() -> None:
    story = simple()[0]
    elsewhere = story.head(origin="lethe/another")
    assert reason_of(story.export([elsewhere])) == Reason.OTHER_LOG
    assert reason_of(story.export(), elsewhere) == Reason.OTHER_LOG
    swapped = story.head(key=OTHER_KEY)
    assert reason_of(story.export([swapped])) == Reason.UNKNOWN_KEY
    assert reason_of(story.export(), swapped) == Reason.UNKNOWN_KEY
    expired = [VerifyingKey(KEY.public_key(), "log", None, START)]
    with pytest.raises(NotProven) as refused:
        verify_log(io.BytesIO(story.export()), expired)
    assert refused.value.reason == Reason.KEY_EXPIRED


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda parts: parts[1:], Reason.UNKNOWN_FORMAT),
        (lambda parts: [], Reason.UNKNOWN_FORMAT),
        (lambda parts: [b'["lethe-log-v1"]\n', *parts[1:]], Reason.UNKNOWN_FORMAT),
        (lambda parts: [parts[0].replace(b"v1", b"v2"), *parts[1:]], Reason.UNKNOWN_FORMAT),
        (
            lambda parts: [b'{"format":"lethe-log-v1","more":1,"origin":"l"}\n', *parts[1:]],
            Reason.LOG_MALFORMED,
        ),
        (lambda parts: [parts[0], b"\n", *parts[1:]], Reason.LOG_MALFORMED),
        (lambda parts: [parts[0], b"1\n", *parts[1:]], Reason.LOG_MALFORMED),
        (lambda parts: [parts[0], b'{"entry": "{}"}\n', *parts[1:]], Reason.LOG_MALFORMED),
        (lambda parts: [parts[0], b'{"entry":"{}"}\n', *parts[1:]], Reason.LOG_MALFORMED),
        (lambda parts: [parts[0], b'{"entry":1}\n', *parts[1:]], Reason.LOG_MALFORMED),
        (lambda parts: [*parts, parts[1]], Reason.LOG_MALFORMED),
        (lambda parts: [*parts, b'{"checkpoint":"no note"}\n'], Reason.HEAD_MALFORMED),
        (lambda parts: [*parts, b'{"checkpoint":1}\n'], Reason.LOG_MALFORMED),
        (lambda parts: [part.replace(b"\n", b"\r\n") for part in parts], Reason.LOG_MALFORMED),
    ],
    ids=range(14),
)
def test_a_file_of_another_shape_is_refused(
    change: Callable[[list[bytes]], list[bytes]], reason: Reason
) -> None:
    assert reason_of(b"".join(change(lines(simple()[0].export())))) == reason


def test_heads_stand_in_the_order_of_their_sizes() -> None:
    story = simple()[0]
    heads = [story.head(5), story.head(4), story.head()]
    assert reason_of(story.export(heads)) == Reason.LOG_MALFORMED


def test_a_line_without_end_is_not_read_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "LONGEST_LINE", 5_000)
    content = simple()[0].export()
    assert replayed(content).size == 6

    class Endless(io.BytesIO):
        most = 0

        def readline(self, size: int | None = -1, /) -> bytes:
            Endless.most = max(Endless.most, size or -1)
            return b"x" * size if size and size > 0 else pytest.fail("read without a bound")

    with pytest.raises(NotProven) as refused:
        verify_log(Endless(content), [TRUSTED])
    assert refused.value.reason == Reason.LOG_MALFORMED
    assert Endless.most == 5_001
