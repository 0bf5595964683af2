"""Leases are kept while work goes on, and work stops when its lease is lost."""

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, text, update
from sqlalchemy.exc import OperationalError

from app.db import transaction
from app.errors import LeaseLost
from app.jobs import leases, outcome
from app.settings import settings
from app.tables import UnlearningJob
from tests.patience import DAY, tries
from workers import ladder, run
from workers.heartbeat import BEATS_PER_LEASE, Heartbeat
from workers.unlearning.contract import Context
from workers.unlearning.errors import Cancelled

PATIENCE_SECONDS = 30


class Waiting:
    """A method that works until it is told to stop, or a condition holds."""

    name = "waiting"

    def __init__(self, until: Callable[[], bool]) -> None:
        self.until = until
        self.stopped = False

    def unlearn(self, model: Any, forget: Any, retain: Any, holdout: Any, context: Context) -> Any:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.until():
            try:
                context.check()
            except Cancelled:
                self.stopped = True
                raise
            context.progress("waiting", 0.5)
            assert time.monotonic() < deadline
            time.sleep(0.02)  # a batch; the condition is above
        raise AssertionError("the work went on to its end")


def lease_end() -> Any:
    with transaction() as session:
        return session.scalar(select(UnlearningJob.lease_expires_at))


def test_a_lease_outlives_work_that_takes_longer_than_it(
    client: TestClient,
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    reread: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reread("LETHE_LEASE", "2")
    serve()
    job_id = job_for("person-1")
    started = time.monotonic()
    seen: list[Any] = []

    def enough() -> bool:
        with transaction() as session:
            outcome.expire(session, tries(5), DAY)  # the sweep finds nothing to take back
        seen.append(lease_end())
        return time.monotonic() - started > 5

    monkeypatch.setattr(ladder, "method_for", lambda *_: Waiting(enough))
    run.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert job["attempts"] == 1
    assert len(set(seen)) > 4
    assert "AssertionError" in job["error"]  # the end of the waiting, and no lost lease


def test_work_stops_between_batches_when_its_lease_is_stolen(
    client: TestClient,
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    reread: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reread("LETHE_LEASE", "2")
    serve()
    job_id = job_for("person-1")
    stolen = threading.Event()

    def steal() -> bool:
        if not stolen.is_set():
            stolen.set()
            with transaction() as session:
                session.execute(
                    update(UnlearningJob).values(lease_expires_at=text("now() - interval '1 s'"))
                )
            with transaction() as session:
                outcome.expire(session, tries(5), DAY)
            with transaction() as session:
                assert leases.claim(session, job_id, "thief", timedelta(minutes=1)) is not None
        return False

    method = Waiting(steal)
    monkeypatch.setattr(ladder, "method_for", lambda *_: method)
    run.run(job_id)
    assert method.stopped
    with transaction() as session:
        job = session.get_one(UnlearningJob, job_id)
        assert (job.status, job.worker, job.error) == ("running", "thief", None)


def test_progress_of_a_running_job_can_be_read(
    client: TestClient,
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    reread: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reread("LETHE_LEASE", "2")
    serve()
    job_id = job_for("person-1")
    shown: list[Any] = []

    def look() -> bool:
        shown.append(client.get(f"/v1/jobs/{job_id}").json()["progress"])
        return {"phase": "waiting", "fraction": 0.5} in shown

    monkeypatch.setattr(ladder, "method_for", lambda *_: Waiting(look))
    run.run(job_id)
    assert {"phase": "waiting", "fraction": 0.5} in shown
    assert settings().lease == timedelta(seconds=2)


@pytest.mark.parametrize(
    ("answers", "lost"),
    [
        ([None] * 12, False),
        ([OperationalError("", {}, Exception())] * (BEATS_PER_LEASE - 1) + [None] * 8, False),
        ([OperationalError("", {}, Exception())] * BEATS_PER_LEASE, True),
        ([LeaseLost("x")], True),
    ],
)
def test_a_lease_counts_as_lost_when_it_was_taken_or_unanswered_for_its_whole_length(
    answers: list[Exception | None], lost: bool
) -> None:
    remaining = list(answers)
    done = threading.Event()

    def renew(_: object) -> None:
        if len(remaining) <= 1:
            done.set()
        answer = remaining.pop(0) if remaining else None
        if answer is not None:
            raise answer

    with Heartbeat(renew, timedelta(milliseconds=80), "a job") as heartbeat:
        assert done.wait(PATIENCE_SECONDS)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while lost and not heartbeat.is_lost():
            assert time.monotonic() < deadline
    assert heartbeat.is_lost() is lost
