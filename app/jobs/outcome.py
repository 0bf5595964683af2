"""How a job ends without a version: refused or failed, in one transaction guarded by its fence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from app import lifecycle
from app.db import now
from app.errors import IllegalMove, LeaseLost
from app.jobs import splitting
from app.jobs.backoff import Retrying
from app.jobs.leases import Job, held_by, lock_held, requeue
from app.statuses import JobStatus, RungOutcome
from app.tables import Rung, UnlearningJob


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
    """Keep the evidence of a rung; once, though it is called again for a commit not heard of.

    Raises:
        LeaseLost: another claim has the job.

    """
    lock_held(session, job)
    session.merge(
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
    row = end(session, job, JobStatus.REFUSED, {"rungs": summary(rungs)}, error)
    # Smaller batches show less: where every verdict was inconclusive, none would be better.
    verdicts = {rung.outcome for rung in rungs if rung.outcome != RungOutcome.NOT_RUN}
    splitting.leave(session, row, error, split=verdicts != {RungOutcome.INCONCLUSIVE})


def fail(session: Session, job: Job, error: str) -> None:
    """End a job that neither another attempt nor another batch would help.

    Raises:
        LeaseLost: another claim has the job.

    """
    row = _end_failed(session, job, error)
    splitting.leave(session, row, error, split=False)


def give_back(session: Session, job: Job, error: str, retrying: Retrying) -> None:
    """Queue a job again after a passing error, or end it when its attempts are used up.

    Raises:
        LeaseLost: another claim has the job.

    """
    failures = job.failures + 1
    if failures < retrying.attempts:
        requeue(session, job.id, error, *held_by(job), values=_paused(failures, retrying))
        return
    error = f"Gave up after {failures} attempts: {error}"
    row = _end_failed(session, job, error)
    splitting.leave(session, row, error, split=True)


def give_back_smaller(session: Session, job: Job, batch_limit: int, error: str) -> None:
    """Queue a job again with fewer records in a step, after memory ran out. It is no failure.

    Raises:
        LeaseLost: another claim has the job.

    """
    values = {"batch_limit": batch_limit}
    requeue(session, job.id, error, *held_by(job), values=values, facts=values)


def release(session: Session, job: Job) -> None:
    """Queue a job again whose worker has been told to stop. It is no failure.

    Raises:
        LeaseLost: another claim has the job.

    """
    requeue(session, job.id, None, *held_by(job), facts={"released": True})


def release_all_of(session: Session, worker: str) -> list[UUID]:
    """Queue again whatever a worker still runs that is about to be stopped; return the jobs."""
    ids = session.scalars(
        select(UnlearningJob.id)
        .where(UnlearningJob.worker == worker, UnlearningJob.status == JobStatus.RUNNING)
        .with_for_update()
    ).all()
    for job_id in ids:
        requeue(session, job_id, None, facts={"released": True})
    return list(ids)


def expire(session: Session, retrying: Retrying, time_limit: timedelta) -> None:
    """Take back the jobs whose lease ran out, or that ran longer than any may.

    Their workers are dead, cut off or hung.
    """
    ran_out = UnlearningJob.lease_expires_at < func.clock_timestamp()
    too_long = UnlearningJob.started_at < func.clock_timestamp() - time_limit
    rows = session.execute(
        select(UnlearningJob.id, UnlearningJob.failures, too_long)
        .where(UnlearningJob.status == JobStatus.RUNNING, or_(ran_out, too_long))
        .with_for_update(skip_locked=True)
    ).all()
    for job_id, earlier, overran in rows:
        failures = earlier + 1
        error = (
            f"The job ran longer than {time_limit} and was stopped."
            if overran
            else "The lease ran out: the worker died or was cut off."
        )
        if failures < retrying.attempts:
            requeue(session, job_id, error, values=_paused(failures, retrying))
            continue
        error = f"Gave up after {failures} attempts: {error}"
        row = lifecycle.move_one(
            session,
            UnlearningJob,
            job_id,
            JobStatus.FAILED,
            values={
                "error": error,
                "failures": failures,
                "finished_at": now(),
                "lease_expires_at": None,
            },
            facts={"error": error},
        )
        splitting.leave(session, row, error, split=True)


def _paused(failures: int, retrying: Retrying) -> dict[str, Any]:
    return {
        "failures": failures,
        "not_before": func.clock_timestamp() + retrying.pause(failures),
    }


def _end_failed(session: Session, job: Job, error: str) -> UnlearningJob:
    row = end(session, job, JobStatus.FAILED, {"error": error}, error)
    row.failures = job.failures + 1
    session.flush()
    return row


def end(
    session: Session, job: Job, to: JobStatus, facts: Mapping[str, Any], error: str | None = None
) -> UnlearningJob:
    """Move a job to its last status.

    Raises:
        LeaseLost: another claim has the job.

    """
    try:
        return lifecycle.move_one(
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


def summary(rungs: Sequence[Attempted]) -> list[dict[str, object]]:
    """Return what came of each method, for the audit log."""
    return [{"method": rung.method, "outcome": rung.outcome} for rung in rungs]
