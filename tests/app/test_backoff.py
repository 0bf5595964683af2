"""The pause between the attempts at a job."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select, update

from app.db import transaction
from app.jobs import leases, outcome
from app.jobs.backoff import Retrying, retrying
from app.tables import UnlearningJob
from tests.app.working import (
    NOW,
    claim,
    hold,
    let_leases_run_out,
    plan,
    release,
)
from tests.patience import DAY

HOUR = timedelta(hours=1)
SLOW = Retrying(5, HOUR, DAY)
MICROSECOND = timedelta(microseconds=1)

delays = st.timedeltas(min_value=MICROSECOND, max_value=timedelta(days=400))


@given(delay=delays, limit=delays, failures=st.integers(1, 10_000))
def test_a_pause_doubles_up_to_its_limit_and_jitter_takes_at_most_half(
    delay: timedelta, limit: timedelta, failures: int
) -> None:
    # In whole microseconds, which have no bound.
    whole = min(limit, MICROSECOND * min(delay // MICROSECOND * 2 ** (failures - 1), 10**18))
    pause = Retrying(1, delay, limit).pause(failures)
    assert whole / 2 - MICROSECOND <= pause <= whole + MICROSECOND


def test_jobs_that_failed_together_do_not_come_back_together() -> None:
    pauses = [SLOW.pause(3) for _ in range(200)]
    assert len(set(pauses)) > 190
    assert min(pauses) < 2.2 * HOUR
    assert max(pauses) > 3.8 * HOUR


def test_the_bounds_are_the_settings(reread: Callable[[str, str], None]) -> None:
    reread("LETHE_JOB_ATTEMPTS", "7")
    reread("LETHE_RETRY_DELAY", "PT3S")
    reread("LETHE_RETRY_DELAY_LIMIT", "90")
    assert retrying() == Retrying(7, timedelta(seconds=3), timedelta(seconds=90))


def queued() -> list[UUID]:
    with transaction() as session:
        return leases.queued(session)


def not_before(job_id: UUID) -> timedelta | None:
    """Return how long from now on nobody may claim a job."""
    with transaction() as session:
        left = select(UnlearningJob.not_before - func.now()).where(UnlearningJob.id == job_id)
        return session.scalars(left).one()


def end_pauses() -> None:
    with transaction() as session:
        session.execute(update(UnlearningJob).values(not_before=func.now() - MICROSECOND))


def give_back(job: leases.Job) -> None:
    with transaction() as session:
        outcome.give_back(session, job, "OSError", SLOW)


def fall_silent(job: leases.Job) -> None:
    let_leases_run_out()
    with transaction() as session:
        outcome.expire(session, SLOW, DAY)


@pytest.mark.parametrize("failing", [give_back, fall_silent])
def test_a_job_that_failed_pauses_longer_each_time_and_nobody_claims_it(
    ready: Callable[..., UUID], submit: Callable[..., str], failing: Callable[[leases.Job], None]
) -> None:
    ready(policy=NOW)
    submit("a")
    (job_id,) = plan()
    for failures in (1, 2):
        assert queued() == [job_id]
        failing(hold(job_id))
        left = not_before(job_id)
        assert left is not None
        most = HOUR * 2 ** (failures - 1)
        assert most / 2 - timedelta(minutes=1) <= left <= most
        assert claim(job_id) is None
        assert queued() == []
        end_pauses()
    assert hold(job_id).failures == 2


def test_a_job_whose_worker_was_told_to_stop_does_not_pause(
    ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    ready(policy=NOW)
    submit("a")
    (job_id,) = plan()
    give_back(hold(job_id))
    end_pauses()
    release(hold(job_id))
    assert not_before(job_id) is None
    again = hold(job_id)
    assert (again.failures, again.attempt) == (1, 3)


def test_the_nearest_deadline_comes_first_then_the_oldest_and_no_deadline_last(
    ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    # In the order of their making; days until each one's deadline.
    due = {"late": 5, "never": None, "soon": 1, "soon too": 1, "next": 3}
    models = {ready(name.replace(" ", "-"), "a", NOW): name for name in due}
    submit("a")
    assert len(plan()) == len(due)
    jobs = {}
    with transaction() as session:
        at = session.scalar(select(func.now()))
        assert at is not None
        for job in session.scalars(select(UnlearningJob)):
            jobs[job.id] = name = models[job.model_id]
            days = due[name]
            job.due_at = None if days is None else at + timedelta(days=days)
            job.created_at = at + list(due).index(name) * MICROSECOND
    assert [jobs[job_id] for job_id in queued()] == ["soon", "soon too", "next", "late", "never"]
    with transaction() as session:
        assert leases.queued(session, 1) == queued()[:1]
