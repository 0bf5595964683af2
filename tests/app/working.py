"""What the planner and the workers do with jobs, each step in a transaction of its own."""

import hashlib
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.db import transaction
from app.deletions import planner
from app.errors import Conflict
from app.jobs import leases, outcome, publication
from app.jobs.leases import Job
from app.jobs.outcome import Attempted
from app.jobs.publication import NewVersion
from app.statuses import RungOutcome
from app.tables import UnlearningJob
from lethe.policy import Batching, Debt, Policy, References
from tests.patience import DAY, tries

LEASE = timedelta(minutes=1)
DEBT = Debt(max_share=1.0, max_drift=1e6)
# Nobody makes references in these tests, so that nothing may wait for them.
NONE = References(count=0)
NOW = Policy(batching=Batching(max_wait=timedelta(0)), debt=DEBT, references=NONE)


def rung(outcome: RungOutcome, position: int = 0) -> Attempted:
    verdict = None if outcome == RungOutcome.NOT_RUN else {"outcome": outcome.value}
    return Attempted(position, "iau", "approximate", outcome, verdict, {}, 0.5)


PASSED, FAILED, INCONCLUSIVE, NOT_RUN = (
    rung(RungOutcome(name)) for name in ("passed", "failed", "inconclusive", "not_run")
)


def plan() -> list[UUID]:
    with transaction() as session:
        return planner.plan(session)


def claim(job_id: UUID, worker: str = "test") -> Job | None:
    with transaction() as session:
        return leases.claim(session, job_id, worker, LEASE)


def hold(job_id: UUID) -> Job:
    job = claim(job_id)
    assert job is not None
    return job


def renew(job: Job) -> None:
    with transaction() as session:
        leases.renew(session, job, LEASE, {"phase": "iau", "fraction": 0.5})


def record(job: Job) -> None:
    with transaction() as session:
        outcome.record(session, job, PASSED)


def publish(job: Job, guarantee: str = "approximate") -> None:
    digest = "sha256:" + hashlib.sha256(f"{job.id}/{job.fence}".encode()).hexdigest()
    new = NewVersion(digest, 1, "iau", guarantee, "passed", drift=0.25)
    with transaction() as session:
        publication.publish(session, job, new, [PASSED])


def refuse(job: Job, *rungs: Attempted) -> None:
    with transaction() as session:
        outcome.refuse(session, job, rungs or [FAILED])


def fail(job: Job, error: str = "no chance") -> None:
    with transaction() as session:
        outcome.fail(session, job, error)


def give_back(job: Job, attempts: int = 5, error: str = "OSError in x.py:1") -> None:
    with transaction() as session:
        outcome.give_back(session, job, error, tries(attempts))


def give_back_smaller(job: Job) -> None:
    with transaction() as session:
        outcome.give_back_smaller(session, job, 16, "OutOfMemoryError in x.py:1")


def release(job: Job) -> None:
    with transaction() as session:
        outcome.release(session, job)


def try_again(retry: Callable[[Session, UUID, str], None], id_: UUID, *, possible: bool) -> bool:
    """Retry what needs attention; nothing does if it is not possible, and that must be said."""
    try:
        with transaction() as session:
            retry(session, id_, "operator")
    except Conflict:
        assert not possible, "something needs attention"
    else:
        assert possible, "nothing needs attention"
    return possible


def let_leases_run_out() -> None:
    with transaction() as session:
        session.execute(
            update(UnlearningJob)
            .where(UnlearningJob.lease_expires_at.is_not(None))
            .values(lease_expires_at=func.now() - timedelta(seconds=1))
        )


def expire(attempts: int = 5) -> None:
    with transaction() as session:
        outcome.expire(session, tries(attempts), DAY)


def unfinished() -> list[UUID]:
    """Return the jobs that are queued or running, oldest first."""
    with transaction() as session:
        return list(
            session.scalars(
                select(UnlearningJob.id)
                .where(UnlearningJob.status.in_(["queued", "running"]))
                .order_by(UnlearningJob.created_at)
            )
        )


def job_of(job_id: UUID) -> UnlearningJob:
    with transaction() as session:
        return session.get_one(UnlearningJob, job_id)
