"""How a job ends without a version: refused or failed, in one transaction guarded by its fence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import lifecycle
from app.db import now
from app.deletions.settlement import settle
from app.errors import IllegalMove, LeaseLost
from app.jobs.leases import Job, held_by, lock_held, requeue
from app.statuses import ErasureStatus, JobStatus, RungOutcome
from app.tables import Erasure, Rung, UnlearningJob


@dataclass(frozen=True, slots=True)
class Attempted:
    """One rung of the ladder as it was climbed; JSON values only."""

    position: int
    method: str
    guarantee: str | None
    outcome: RungOutcome
    verdict: Mapping[str, Any] | None
    evidence: Mapping[str, Any]
    seconds: float


def record(session: Session, job: Job, attempted: Attempted) -> None:
    """Keep the evidence of a rung.

    Raises:
        LeaseLost: another claim has the job.

    """
    lock_held(session, job)
    session.add(
        Rung(
            job_id=job.id,
            attempt=job.attempt,
            position=attempted.position,
            method=attempted.method,
            guarantee=attempted.guarantee,
            outcome=attempted.outcome,
            verdict=None if attempted.verdict is None else dict(attempted.verdict),
            evidence=dict(attempted.evidence),
            seconds=attempted.seconds,
        )
    )


def refuse(session: Session, job: Job, rungs: Sequence[Attempted]) -> None:
    """End a job of which no rung passed verification: nothing is published.

    Raises:
        LeaseLost: another claim has the job.

    """
    error = (
        "No method of the ladder gave a version that may be published; "
        "the parent version stays current."
    )
    end(session, job, JobStatus.REFUSED, {"rungs": summary(rungs)}, error)
    end_erasures(session, job.id, ErasureStatus.NEEDS_ATTENTION, {}, {"reason": "refused"})


def fail(session: Session, job: Job, error: str) -> None:
    """End a job that another attempt would not help.

    Raises:
        LeaseLost: another claim has the job.

    """
    end(session, job, JobStatus.FAILED, {"error": error}, error)
    end_erasures(session, job.id, ErasureStatus.NEEDS_ATTENTION, {}, {"reason": "failed"})


def give_back(session: Session, job: Job, error: str, attempts: int) -> None:
    """Queue a job again after a passing error, or end it when its attempts are used up.

    Raises:
        LeaseLost: another claim has the job.

    """
    if job.attempt >= attempts:
        fail(session, job, f"Gave up after {job.attempt} attempts: {error}")
        return
    requeue(session, [job.id], error, *held_by(job))


def expire(session: Session, attempts: int) -> None:
    """Take back the jobs whose lease ran out: their workers are dead or cut off."""
    expired = (UnlearningJob.lease_expires_at < func.clock_timestamp(),)
    rows = session.execute(
        select(UnlearningJob.id, UnlearningJob.attempts)
        .where(UnlearningJob.status == JobStatus.RUNNING, *expired)
        .with_for_update(skip_locked=True)
    ).all()
    error = "The lease ran out: the worker died or was cut off."
    requeue(session, [row.id for row in rows if row.attempts < attempts], error, *expired)
    used_up = [row.id for row in rows if row.attempts >= attempts]
    lifecycle.move(
        session,
        UnlearningJob,
        used_up,
        JobStatus.FAILED,
        *expired,
        values={"error": error, "finished_at": now(), "lease_expires_at": None},
        facts={"error": error},
    )
    for job_id in used_up:
        end_erasures(session, job_id, ErasureStatus.NEEDS_ATTENTION, {}, {"reason": "failed"})


def end(
    session: Session, job: Job, to: JobStatus, facts: Mapping[str, Any], error: str | None = None
) -> None:
    """Move a job to its last status.

    Raises:
        LeaseLost: another claim has the job.

    """
    try:
        lifecycle.move_one(
            session,
            UnlearningJob,
            job.id,
            to,
            *held_by(job),
            values={"finished_at": now(), "lease_expires_at": None, "error": error},
            facts={"attempt": job.attempt, "fence": job.fence, **facts},
        )
    except IllegalMove as error_:
        raise LeaseLost(f"job {job.id}: the lease of fence {job.fence} is lost") from error_


def end_erasures(
    session: Session,
    job_id: UUID,
    to: ErasureStatus,
    values: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> None:
    """Move a job's erasures to where its end leaves them, and settle their requests."""
    ids = session.scalars(select(Erasure.id).where(Erasure.job_id == job_id)).all()
    moved = lifecycle.move(
        session, Erasure, ids, to, values=values, facts={"job": str(job_id), **facts}
    )
    settle(session, [erasure.request_id for erasure in moved])


def summary(rungs: Sequence[Attempted]) -> list[dict[str, object]]:
    """Return what came of each method, for the audit log."""
    return [{"method": rung.method, "outcome": rung.outcome} for rung in rungs]
