"""A bulk intake as a stream: answered while it arrives, and whole after any break."""

import re
import subprocess
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import func, select

from app.db import transaction
from app.deletions import bulk, bulk_stream
from app.tables import DeletionRequest, RequestedSample
from embedded.commands import API
from embedded.server import free_port
from embedded.supervisor import ROOT, command_line
from tests.app.bulk_clients import Wire, asking, ndjson, parsed, wait_until
from tests.serving import serving

AWAY = "postgresql://x:y@127.0.0.1:1/none"


@pytest.fixture
def address(environment: dict[str, str]) -> Iterator[str]:
    """The API on a port."""
    from app.main import create_app

    with serving(create_app()) as address:
        yield address


@pytest.fixture
def impatient(reread: Callable[[str, str], None]) -> None:
    reread("LETHE_BULK_PATIENCE", "0.5")


def stored() -> int:
    with transaction() as session:
        return session.scalar(select(func.count()).select_from(DeletionRequest)) or 0


def test_a_line_is_answered_before_the_next_one_is_sent(address: str) -> None:
    wire = Wire(address)
    answers: Iterator[dict[str, Any]] = iter(())
    for number, line in enumerate(asking(3), 1):
        wire.send(ndjson([line]))
        if number == 1:
            assert wire.status() == 200
            answers = wire.lines()
        assert next(answers)["line"] == number
        assert stored() == number
    wire.end()
    assert list(answers) == [{"lines": 3, "accepted": 3, "repeated": 0, "refused": 0}]
    wire.close()


def test_a_client_that_sends_everything_before_it_reads_gets_every_answer(address: str) -> None:
    wire = Wire(address)
    count, broken = 40_000, b'{"sample_ids": "' + b"x" * 300 + b'"}\n'
    for _ in range(count // 1_000):
        wire.send(broken * 1_000)
    wire.send(ndjson(asking(2)))
    wire.end()
    assert wire.status() == 200
    content = b"".join(wire.chunks())
    # Neither direction fits into what lies between the two.
    assert min(len(content), count * len(broken)) > 8 * 1024**2
    answers = parsed(content)
    assert [answer["line"] for answer in answers[:-1]] == list(range(1, count + 3))
    assert answers[-1] == {"lines": count + 2, "accepted": 2, "repeated": 0, "refused": count}
    wire.close()


def test_after_a_connection_that_broke_the_same_stream_stores_each_line_once(address: str) -> None:
    lines = asking(6)
    broken = Wire(address)
    broken.send(ndjson(lines[:3]) + ndjson(lines[3:4])[:20])
    assert broken.status() == 200
    answered = list(islice(broken.lines(), 3))
    broken.close()
    whole = Wire(address)
    whole.send(ndjson(lines))
    whole.end()
    assert whole.status() == 200
    *answers, last = whole.lines()
    whole.close()
    assert [answer["id"] for answer in answers[:3]] == [answer["id"] for answer in answered]
    assert [answer["repeated"] for answer in answers] == [True] * 3 + [False] * 3
    assert last["accepted"] == 3
    assert stored() == 6


def test_a_line_that_was_cut_is_not_taken_for_a_shorter_one(address: str) -> None:
    # What arrived of it would be JSON, and a request.
    wire = Wire(address)
    wire.send(ndjson(asking(1)) + b'{"sample_ids": ["x"]}')
    assert wire.status() == 200
    assert next(wire.lines())["line"] == 1
    wire.close()
    again = Wire(address)
    again.send(ndjson([*asking(1), {"sample_ids": ["x"], "reason": "whole"}]))
    again.end()
    assert again.status() == 200
    *_, second, last = again.lines()
    again.close()
    assert second["repeated"] is False
    assert last["refused"] == 0
    assert stored() == 2


def test_who_leaves_before_the_end_of_the_answer_has_lost_and_doubled_nothing(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "MOST_LINES", 10)
    first = Wire(address)
    first.send(ndjson(asking(50)))
    first.end()
    assert first.status() == 200
    answered = next(first.lines())
    first.close()
    again = Wire(address)
    again.send(ndjson(asking(50)))
    again.end()
    assert again.status() == 200
    *answers, last = again.lines()
    again.close()
    assert answers[0] == {**answered, "repeated": True}
    assert len({answer["id"] for answer in answers}) == last["lines"] == stored() == 50


def test_a_database_that_goes_away_ends_the_answer_with_a_problem_and_no_line_is_lost(
    address: str, reread: Callable[[str, str], None], environment: dict[str, str]
) -> None:
    wire = Wire(address)
    wire.send(ndjson(asking(2)))
    assert wire.status() == 200
    answers = wire.lines()
    assert [answer["repeated"] for answer in islice(answers, 2)] == [False, False]
    reread("LETHE_DATABASE_URL", AWAY)
    wire.send(ndjson(asking(4)[2:]))
    (last,) = answers
    assert last["problem"]["type"] == "urn:lethe:problem:unavailable"
    assert "line" not in last
    wire.close()
    reread("LETHE_DATABASE_URL", environment["LETHE_DATABASE_URL"])
    assert stored() == 2
    again = Wire(address)
    again.send(ndjson(asking(4)))
    again.end()
    assert again.status() == 200
    assert [answer.get("repeated") for answer in again.lines()] == [True, True, False, False, 2]
    again.close()


@pytest.mark.usefixtures("impatient")
def test_a_stream_in_which_nothing_comes_is_ended_in_words(address: str) -> None:
    wire = Wire(address)
    assert wire.status() == 400
    wire.close()
    begun = Wire(address)
    begun.send(ndjson(asking(1)))
    assert begun.status() == 200
    first, last = begun.lines()
    assert first["line"] == 1
    assert last["problem"]["type"] == "urn:lethe:problem:malformed"
    begun.close()


def opens(address: str) -> bool:
    """Whether another stream is taken in."""
    wire = Wire(address, key="another")
    wire.end()
    status = wire.status()
    wire.close()
    assert status in (200, 503)
    return status == 200


@pytest.fixture
def single(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The API on a port, where one stream is taken in at a time."""
    from app import main

    monkeypatch.setattr(main, "MOST_STREAMS", 1)
    with serving(main.create_app()) as address:
        yield address


def test_a_process_takes_in_a_bounded_number_of_streams(single: str) -> None:
    wire = Wire(single)
    wire.send(ndjson(asking(1)))
    assert wire.status() == 200
    assert not opens(single)
    wire.end()
    assert len(list(wire.lines())) == 2
    wire.close()
    assert wait_until(lambda: opens(single))


@pytest.mark.usefixtures("impatient")
def test_a_client_that_never_reads_is_left_in_the_end(
    single: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_stream, "MOST_UNREAD_BYTES", 64 * 1024)
    wire = Wire(single, patience=0.2)
    # Until the server takes no more: its answers are not read.
    with pytest.raises(TimeoutError):
        send_without_end(wire, b"x" * 200 + b"\n")
    assert wait_until(lambda: opens(single))
    wire.close()


def send_without_end(wire: Wire, content: bytes) -> None:
    for _ in range(1_000):
        wire.send(content * 1_000)


def test_many_samples_take_no_more_memory_than_a_few(environment: dict[str, str]) -> None:
    port = free_port()
    process = subprocess.Popen(command_line(API, port), cwd=ROOT, env=environment)
    try:
        address = f"http://127.0.0.1:{port}"
        assert wait_until(lambda: _is_up(address))
        wire = Wire(address)
        peaks = []
        # Most name a model that is not there: they are read and digested, and cost no disk.
        for count in (5, 25):
            for number in range(count):
                taken = {} if number % 10 == 0 else {"model": "none"}
                ids = [f"{number}/{place}/{count}/" + "x" * 80 for place in range(10_000)]
                wire.send(ndjson([{"sample_ids": ids, **taken}]))
            if not peaks:
                assert wire.status() == 200
                answers = wire.lines()
            assert len(list(islice(answers, count))) == count
            peaks.append(_peak(process.pid))
        wire.end()
        assert next(answers)["lines"] == 30
        wire.close()
        # The lines are 24 MiB, and their digests would be 16.
        assert peaks[1] - peaks[0] < 12 * 1024**2
        with transaction() as session:
            assert session.scalar(select(func.count()).select_from(RequestedSample)) == 40_000
    finally:
        process.terminate()
        process.wait()


def _is_up(address: str) -> bool:
    try:
        return httpx2.get(address + "/healthz", timeout=5, trust_env=False).is_success
    except httpx2.TransportError:
        return False


def _peak(pid: int) -> int:
    (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(line) * 1024
