"""The witness file has each signed head in a line of its own, whatever crashes or writes beside."""

import fcntl
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.audit import heads, witness_file
from lethe.verify import verify_consistency
from lethe.verify.note import peek
from tests.app.signed_logs import notes, write
from tests.app.witness_server import follow

PATIENCE_SECONDS = 20

Reread = Callable[[str, str], None]


@pytest.fixture
def path(client: TestClient, reread: Reread, tmp_path: Path) -> Path:
    """The witness file that the service writes."""
    found = tmp_path / "heads.jsonl"
    reread("LETHE_WITNESS_FILE", str(found))
    return found


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_file_has_a_line_for_each_head_that_anybody_can_follow(path: Path) -> None:
    pinned = None
    for count in (1, 2, 30):
        write(count)
        heads.current()
        heads.current()
    for line in lines(path):
        pinned = follow(pinned, line)
    assert [line["checkpoint"] for line in lines(path)] == notes()
    assert [line["previous_size"] for line in lines(path)] == [0, 2, 4]
    assert path.read_bytes().endswith(b"\n")
    # Each proof is from the size that it says, and from no other.
    first, second, third = (peek(line["checkpoint"]) for line in lines(path))
    proof = [bytes.fromhex(node) for node in lines(path)[2]["consistency"]]
    assert verify_consistency(second.size, third.size, proof, second.root_hash, third.root_hash)
    assert not verify_consistency(first.size, third.size, proof, first.root_hash, third.root_hash)


def test_a_crash_between_commit_and_file_leaves_a_gap_that_the_next_head_fills(
    path: Path, reread: Reread
) -> None:
    heads.current()
    reread("LETHE_WITNESS_FILE", "")  # nobody gets to write
    write(3)
    heads.current()
    write(3)
    heads.current()
    reread("LETHE_WITNESS_FILE", str(path))
    write()
    heads.current()
    assert [line["previous_size"] for line in lines(path)] == [0, 1]
    assert follow(follow(None, lines(path)[0]), lines(path)[1]).size == 8


def test_a_head_that_the_file_lacks_is_written_at_the_next_look(path: Path, reread: Reread) -> None:
    reread("LETHE_WITNESS_FILE", "")
    heads.current()
    reread("LETHE_WITNESS_FILE", str(path))
    heads.refresh()
    assert [line["checkpoint"] for line in lines(path)] == notes()


def test_what_a_crash_left_of_a_line_gives_way_to_the_next_one(path: Path) -> None:
    heads.current()
    for left in (1, 40, -1):
        whole = path.read_bytes()
        write()
        heads.current()
        path.write_bytes(whole + path.read_bytes()[len(whole) :][:left])
        write()
        heads.current()
    assert [peek(line["checkpoint"]).size for line in lines(path)] == [1, 3, 5, 7]
    pinned = None
    for line in lines(path):
        pinned = follow(pinned, line)


def test_processes_that_write_at_once_leave_whole_lines_in_order(path: Path) -> None:
    def act() -> None:
        for _ in range(4):
            write()
            heads.current()

    threads = [threading.Thread(target=act) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pinned = None
    for line in lines(path):
        assert line["previous_size"] == (0 if pinned is None else pinned.size)
        pinned = follow(pinned, line)
    assert pinned is not None
    assert pinned.size == 25


def test_a_file_that_cannot_be_written_keeps_nobody_from_signing(
    client: TestClient,
    reread: Reread,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    reread("LETHE_WITNESS_FILE", str(tmp_path / "missing" / "heads.jsonl"))
    assert heads.current()[0].size == 1
    assert "witness_file.failed" in capfd.readouterr().err


def test_a_reader_waits_for_a_line_that_is_being_written(path: Path) -> None:
    heads.current()
    with path.open() as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        reader = threading.Thread(target=witness_file.last_note, args=(path,))
        reader.start()
        reader.join(0.2)
        assert reader.is_alive()
    reader.join(PATIENCE_SECONDS)
    assert not reader.is_alive()


def test_a_writer_waits_for_whoever_reads_the_file_or_writes_it(path: Path) -> None:
    heads.current()
    kept = path.read_bytes()
    write()
    with path.open() as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        writer = threading.Thread(target=heads.current)
        writer.start()
        writer.join(0.2)
        assert writer.is_alive()
        assert path.read_bytes() == kept
    writer.join(PATIENCE_SECONDS)
    assert len(lines(path)) == 2
