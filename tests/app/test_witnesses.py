"""Witnesses are told of each signed head over HTTP, and notice what contradicts it."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from app.audit import heads, witnesses
from app.audit.command import main
from app.db import transaction
from app.tables import WitnessFeed
from lethe.verify.note import open_note, peek
from lethe.verify.reasons import NotProven, Reason
from tests.app.signed_logs import FORGERY, cut, notes, public_keys, rewrite, write
from tests.app.witness_server import ENDLESS, TAKEN, Answer, Witness, follow, listening

PATIENCE_SECONDS = 20

Reread = Callable[[str, str], None]


@pytest.fixture
def witness(client: TestClient, reread: Reread) -> Iterator[Witness]:
    """A witness that the service tells."""
    with listening(Witness()) as started:
        reread("LETHE_WITNESS_URLS", started.url)
        yield started


def tell() -> None:
    """Tell every witness, and wait for it."""
    for thread in witnesses.tell():
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


def feeds() -> Sequence[WitnessFeed]:
    with transaction() as session:
        return session.scalars(select(WitnessFeed)).all()


def pause_over() -> None:
    with transaction() as session:
        session.execute(update(WitnessFeed).values(not_before=None))


def test_a_witness_follows_the_log_with_the_public_keys_alone(witness: Witness) -> None:
    for count in (1, 2, 5, 40):
        write(count)
        heads.current()
        tell()
        assert witness.pinned == peek(notes()[-1])
    assert [message["previous_size"] for message in witness.heard] == [0, 2, 4, 9]
    path, headers = witness.requests[0]
    assert (path, headers["Content-Type"]) == ("/", "application/json")
    # Nothing more than what it needs: no ids, no entries.
    assert {frozenset(message) for message in witness.heard} == {
        frozenset({"checkpoint", "previous_size", "consistency"})
    }


def test_a_witness_is_told_of_each_head_once(witness: Witness) -> None:
    heads.current()
    for _ in range(3):
        tell()
    assert len(witness.heard) == 1


def test_a_witness_notices_a_changed_entry(witness: Witness) -> None:
    write(5)
    heads.current()
    tell()
    pinned = witness.pinned
    assert pinned is not None
    rewrite("DELETE FROM signed_heads", *FORGERY)
    write(2)
    _, forked = heads.current()  # the service that was made to forget signs it
    tell()
    assert [refusal.reason for refusal in witness.refused] == [Reason.LOG_FORKED]
    assert witness.pinned == pinned
    # Both are signed by the log's key: that is the proof against it.
    assert open_note(forked, public_keys()).origin == pinned.origin


def test_a_witness_notices_a_log_that_was_cut_and_grew_differently(witness: Witness) -> None:
    write(5)
    heads.current()
    write(4)
    heads.current()
    tell()
    cut(6)
    write(9)
    heads.current()
    tell()
    assert [refusal.reason for refusal in witness.refused] == [Reason.LOG_FORKED]


def test_a_witness_notices_a_log_that_was_cut_and_is_shorter(
    witness: Witness, capfd: pytest.CaptureFixture[str]
) -> None:
    write(5)
    heads.current()
    write(4)
    heads.current()
    tell()
    cut(6)
    rewrite("UPDATE witness_feeds SET size = 6, told_at = NULL")  # as a backup has it
    write(1)
    heads.current()
    tell()
    # It says how much it has, and that is more than there is.
    assert "witness.ahead" in capfd.readouterr().err
    with pytest.raises(NotProven) as refused:
        follow(witness.pinned, witness.heard[-1])
    assert refused.value.reason == Reason.LOG_ROLLED_BACK


def test_the_same_log_is_noticed_as_the_same(witness: Witness) -> None:
    write(5)
    heads.current()
    tell()
    rewrite("DELETE FROM signed_heads")
    write(2)
    heads.current()
    tell()
    assert witness.refused == []
    assert witness.pinned == peek(notes()[-1])


def refusing(status: int, headers: dict[str, str] | None = None) -> Callable[[], Answer]:
    return lambda: (status, headers or {}, b"")


def test_whatever_is_not_2xx_is_not_taken_and_comes_again(witness: Witness) -> None:
    heads.current()
    with listening(Witness()) as elsewhere:
        for failures, status in enumerate([301, 307, 308, 400, 404, 409, 500, 503], 1):
            witness.answers.append(refusing(status, {"Location": elsewhere.url}))
            tell()
            assert [(feed.size, feed.failures) for feed in feeds()] == [(0, failures)]
            pause_over()
        assert elsewhere.requests == []
    tell()
    assert witness.pinned == peek(notes()[-1])
    assert [(feed.size, feed.failures) for feed in feeds()] == [(1, 0)]


def test_the_pause_after_a_failure_doubles_up_to_an_hour(witness: Witness) -> None:
    heads.current()
    pauses = []
    for _ in range(13):
        witness.answers.append(refusing(503))
        before = datetime.now(UTC)
        tell()
        (feed,) = feeds()
        assert feed.not_before is not None
        pauses.append(feed.not_before - before)
        tell()  # within the pause: nobody is asked
        pause_over()
    assert len(witness.requests) == 13
    expected = [min(10 * 2**n, 3600) for n in range(13)]
    slack = timedelta(seconds=PATIENCE_SECONDS)
    for pause, seconds in zip(pauses, expected, strict=True):
        assert timedelta(seconds=seconds) <= pause < timedelta(seconds=seconds) + slack


def test_witnesses_begin_anew_with_a_log_that_goes_on_under_another_name(
    witness: Witness,
) -> None:
    write(3)
    heads.current()
    tell()
    assert main(["restart", "--although-consistent"]) == 0
    witness.pinned = None  # it keeps a head for each name
    heads.current()
    tell()
    assert witness.heard[-1]["previous_size"] == 0
    assert witness.pinned == peek(notes()[-1])


def test_one_witness_that_fails_or_hangs_holds_up_no_other(
    witness: Witness, reread: Reread
) -> None:
    let_go = threading.Event()

    def hang() -> Answer:
        let_go.wait(PATIENCE_SECONDS)
        return TAKEN

    with listening(Witness()) as good:
        reread("LETHE_WITNESS_URLS", f"http://127.0.0.1:1/closed,{witness.url} {good.url}")
        witness.answers.append(hang)
        heads.current()
        try:
            threads = witnesses.tell()  # returns while one of them hangs
            assert len(threads) == 3
            until(lambda: good.pinned is not None)
            # The one that hangs is not asked again meanwhile, however long it takes.
            threads[0].join(PATIENCE_SECONDS)
            pause_over()
            (again,) = witnesses.tell()
            again.join(PATIENCE_SECONDS)
            assert [feed.failures for feed in feeds() if feed.failures] == [2]
        finally:
            let_go.set()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
    assert sorted(feed.failures > 0 for feed in feeds()) == [False, False, True]


def until(condition: Callable[[], bool]) -> None:
    deadline = datetime.now(UTC) + timedelta(seconds=PATIENCE_SECONDS)
    while not condition():
        assert datetime.now(UTC) < deadline


def test_two_schedulers_tell_a_witness_once(witness: Witness) -> None:
    let_go = threading.Event()

    def hang() -> Answer:
        let_go.wait(PATIENCE_SECONDS)
        return TAKEN

    witness.answers.append(hang)
    heads.current()
    try:
        (thread,) = witnesses.tell()
        until(lambda: len(witness.requests) == 1)
        witnesses._telling.clear()  # noqa: SLF001  # another process knows nothing of this thread
        assert witnesses.tell() == []
    finally:
        let_go.set()
    thread.join(PATIENCE_SECONDS)
    assert len(witness.requests) == 1


def test_a_lost_answer_is_made_up_for_by_what_the_witness_says_it_has(witness: Witness) -> None:
    write(2)
    heads.current()
    tell()
    rewrite("UPDATE witness_feeds SET size = 0, told_at = NULL")  # its answer never came
    write(2)
    heads.current()
    tell()
    tell()
    assert [message["previous_size"] for message in witness.heard] == [0, 0, 3]
    assert witness.pinned == peek(notes()[-1])
    assert witness.refused == []


def test_a_size_that_makes_no_sense_is_a_failure_like_any_other(witness: Witness) -> None:
    size = {"Content-Type": "text/x.tlog.size"}
    answers = [(size, text) for text in (ENDLESS, b"9" * 40, b"-1", b"", b"0", b"2", b"1e0")]
    heads.current()
    for failures, (headers, text) in enumerate([*answers, ({}, b"1")], 1):
        witness.answers.append(partial(lambda *answer: answer, 409, headers, text))
        tell()
        pause_over()
        assert [(feed.size, feed.failures) for feed in feeds()] == [(0, failures)]


def test_of_an_address_the_host_alone_is_logged(
    client: TestClient,
    reread: Reread,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Whatever somebody makes of the standard library's logs.
    caplog.set_level(logging.DEBUG)
    heads.current()
    with listening(Witness(), "/hook/PATH-TOKEN?key=QUERY-TOKEN") as witness:
        url = witness.url.replace("http://", "http://USER-TOKEN:PASSWORD-TOKEN@")
        closed = "http://USER-TOKEN@127.0.0.1:1/PATH-TOKEN?QUERY-TOKEN"
        reread("LETHE_WITNESS_URLS", f"{url} {closed}")
        reread("LETHE_LOG_LEVEL", "debug")
        witness.answers.append(refusing(500))
        tell()
        pause_over()
        tell()
    (path, headers), _ = witness.requests
    assert path == "/hook/PATH-TOKEN?key=QUERY-TOKEN"
    assert headers["Authorization"].startswith("Basic ")
    said = "".join(capfd.readouterr()) + caplog.text
    assert "witness.failed" in said
    assert "witness.told" in said
    assert '"127.0.0.1"' in said
    assert "TOKEN" not in said
    with transaction() as session:
        rows = session.scalars(select(WitnessFeed.url_digest)).all()
    assert len(rows) == 2
    assert not any("TOKEN" in row or "127" in row for row in rows)
