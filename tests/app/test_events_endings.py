"""Streams cost no connection while they wait, are bounded, and end when they have to."""

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import psycopg
import pytest
from fastapi.testclient import TestClient

from app.audit import ledger
from app.audit.ledger import Entry
from app.db import engine, transaction
from app.events import streaming
from app.events.broadcast import Limits
from embedded.commands import API
from embedded.server import free_port
from tests.app.streams import QUICK, Service, eventually, logged, place, served
from tests.app.working import NOW, hold, plan, publish

ROOT = Path(__file__).parents[2]


@pytest.fixture
def location(ready: Callable[..., UUID], submit: Callable[..., str]) -> str:
    """Where an open request is, of which the log has told."""
    ready(policy=NOW)
    where = submit("a")
    place()
    return where


def test_waiting_streams_hold_no_connection_to_the_database(location: str) -> None:
    with served() as service, ExitStack() as stack:
        ears = [stack.enter_context(service.follow(location + "/events")) for _ in range(15)]
        for ear in ears:
            ear.until("erasure.pending")
        assert service.broadcast.open == len(ears)
        # Now and then one of them looks at the log, for all.
        busy = []
        for _ in range(100):
            busy.append(engine().pool.checkedout())  # type: ignore[attr-defined]
            time.sleep(0.002)
        assert max(busy) <= 1
        publish(hold(plan()[0]))
        place()
        for ear in ears:
            assert ear.until("end")
        eventually(lambda: service.broadcast.open == 0)


def test_a_client_that_goes_away_gives_its_place_back(location: str) -> None:
    with served(replace(QUICK, per_client=2, in_all=3)) as service:
        path = location + "/events"
        with service.follow(path) as first, service.follow("/v1/events"):
            first.until("erasure.pending")
            refused = service.ask(path, {})
            assert refused.answer.status == 429
            assert int(refused.answer.headers["Retry-After"]) > 0
            refused.close()
            assert service.broadcast.open == 2
        eventually(lambda: service.broadcast.open == 0)
        with service.follow(path) as again:
            assert again.until("erasure.pending")


def test_a_process_keeps_so_many_streams_open_and_no_more(location: str) -> None:
    with served(replace(QUICK, per_client=9, in_all=2)) as service, ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(service.follow("/v1/events"))
        refused = service.ask("/v1/events", {})
        assert refused.answer.status == 503
        assert b"urn:lethe:problem:too-many-streams" in refused.answer.read()
        assert refused.answer.headers["Retry-After"]
        refused.close()


def test_nobody_looks_at_the_log_when_nobody_follows_it(location: str) -> None:
    with served() as service:
        with service.follow("/v1/events"):
            assert service.broadcast._looking is not None  # noqa: SLF001
        eventually(lambda: service.broadcast._looking is None)  # noqa: SLF001
        with service.follow(location + "/events") as ear:
            ear.until("erasure.pending")
            publish(hold(plan()[0]))
            place()
            assert ear.until("end")


def test_whoever_is_behind_what_is_in_memory_is_told_out_of_the_log(
    location: str, submit: Callable[..., str]
) -> None:
    with (
        served(replace(QUICK, kept=1)) as service,
        service.follow(location + "/events") as of_one,
        service.follow("/v1/events") as of_all,
    ):
        of_one.until("erasure.pending")
        submit("b")
        job_id = plan()[0]
        publish(hold(job_id))
        place()
        assert [each.event for each in of_one] == [
            *("erasure.scheduled", "deletion_request.in_progress", "job.running"),
            *("job.published", "version.current", "erasure.completed"),
            *("deletion_request.completed", "end"),
        ]
        # Of both requests.
        heard = of_all.until("deletion_request.completed")
        heard += of_all.until("deletion_request.completed")
        ids = [int(each.id) for each in heard]
        assert ids == sorted(set(ids))
        assert [each.event for each in heard].count("erasure.completed") == 2


def test_a_client_that_takes_nothing_is_cut_off_in_the_end(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # More than the buffers of both sides hold.
    entries = [Entry("job.queued", uuid4(), {"large": "x" * 100_000}) for _ in range(150)]
    with transaction() as session:
        ledger.append(session, entries)
    place()
    monkeypatch.setattr(streaming, "STUCK", 0.5)
    with served(replace(QUICK, lifetime=0.5)) as service:
        with service.follow("/v1/events?after=-1") as reading:
            assert len(list(reading)) == len(entries)
        with service.follow("/v1/events?after=-1") as idle:
            assert service.broadcast.open == 1
            eventually(lambda: service.broadcast.open == 0)
            # What was on its way is there; the rest is not.
            with pytest.raises(http.client.IncompleteRead):
                idle.answer.read()


def test_a_stream_that_is_opened_while_the_process_stops_ends_at_once(location: str) -> None:
    with served() as service:
        service.broadcast.stopped = True
        with service.follow("/v1/events") as ear:
            assert list(ear) == []


@pytest.fixture
def unreachable(environment: dict[str, str], servers: Any) -> Iterator[Callable[[bool], None]]:
    """Take the database away, and give it back."""
    name = environment["LETHE_DATABASE_URL"].rpartition("/")[2].partition("?")[0]
    admin = servers.database_url.replace("+psycopg", "")

    def be(away: bool) -> None:
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {not away}')
            if away:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                    [name],
                )

    yield be
    be(away=False)


def test_without_the_database_streams_end_and_go_on_when_it_is_back(
    location: str, unreachable: Callable[..., None]
) -> None:
    with served() as service:
        path = location + "/events"
        with service.follow(path) as ear:
            heard = ear.until("erasure.pending")
            unreachable(away=True)
            assert list(ear) == []
        refused = service.ask(path, {})
        assert refused.answer.status == 503
        refused.close()
        unreachable(away=False)
        publish(hold(plan()[0]))
        place()
        with service.follow(path, heard[-1].id) as ear:
            assert next(iter(ear)).event == "erasure.scheduled"


def test_a_server_that_is_told_to_stop_ends_its_streams_at_once(
    environment: dict[str, str], location: str, tmp_path: Path
) -> None:
    port = free_port()
    command = [part.format(host="127.0.0.1", port=port) for part in API.command]
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", *command], cwd=ROOT, env=environment, stdout=log, stderr=log
        ) as process,
    ):
        try:
            service = Service(f"http://127.0.0.1:{port}", None)  # type: ignore[arg-type]
            eventually(lambda: answers(service.url))
            with (
                service.follow(location + "/events") as of_one,
                service.follow("/v1/events") as of_all,
            ):
                of_one.until("erasure.pending")
                asked = time.monotonic()
                os.kill(process.pid, signal.SIGTERM)
                # Both are ended in order: a cut one would raise.
                assert list(of_one) == list(of_all) == []
            assert process.wait(20) == -signal.SIGTERM
            # Its server would wait thirty seconds, and then cut open answers off.
            assert time.monotonic() - asked < 15
        finally:
            process.kill()


def answers(url: str) -> bool:
    try:
        return httpx2.get(url + "/healthz").status_code == 200
    except httpx2.TransportError:
        return False


def test_limits_are_such_that_streams_are_kept_alive_and_do_not_live_for_ever() -> None:
    limits = Limits()
    # Proxies cut a silent answer after thirty seconds or a minute.
    assert limits.heartbeat < 30
    assert limits.interval < limits.heartbeat < limits.lifetime <= 3_600
    assert limits.per_client < limits.in_all


def test_silence_is_broken_by_heartbeats_and_a_stream_ends_with_its_lifetime(
    ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    ready(samples=["a"])
    location = submit("a")
    place()
    with (
        served(Limits(interval=0.02, heartbeat=0.1, lifetime=0.7)) as service,
        service.follow(location + "/events") as of_one,
        service.follow("/v1/events") as of_all,
    ):
        for ear in (of_one, of_all):
            assert "end" not in [each.event for each in ear]
            # Six in theory; on a slow machine some come late.
            assert 2 <= ear.comments <= 7
    with served(QUICK) as service, service.follow(location + "/events") as ear:
        ear.until("erasure.pending")
        assert ear.comments == 0


def test_a_heartbeat_of_all_requests_moves_the_resume_point(
    client: TestClient, ready: Callable[..., UUID], register: Callable[..., UUID]
) -> None:
    ready(samples=["a"])
    place()
    with (
        served(Limits(interval=0.02, heartbeat=0.05, lifetime=0.6)) as service,
        service.follow("/v1/events") as ear,
    ):
        register("letters")  # not about any request
        place()
        assert list(ear) == []
    assert ear.ids_given[-1] == str(logged(client)[-1]["position"])
    assert int(ear.ids_given[0]) < int(ear.ids_given[-1])
