"""How a job ends: published, refused or failed, each in one transaction guarded by its fence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app import lifecycle
from app.db import now
from app.deletions.settlement import settle
from app.errors import IllegalMove, LeaseLost
from app.jobs.leases import Job, held_by, lock_held, requested, requeue
from app.statuses import ErasureStatus, JobStatus, VersionStatus
from app.tables import Erasure, ManifestEntry, ModelVersion, RegisteredModel, Rung, UnlearningJob


@dataclass(frozen=True, slots=True)
class NewVersion:
    """The weights that a job made, durable in the artifact store already."""

    digest: str
    size_bytes: int
    method: str
    guarantee: str


@dataclass(frozen=True, slots=True)
class Attempted:
    """One rung of the ladder as it was climbed; JSON values only."""

    position: int
    method: str
    guarantee: str | None
    passed: bool
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
            passed=attempted.passed,
            verdict=None if attempted.verdict is None else dict(attempted.verdict),
            evidence=dict(attempted.evidence),
            seconds=attempted.seconds,
        )
    )


def publish(
    session: Session, job: Job, new: NewVersion, rungs: Sequence[Attempted]
) -> ModelVersion:
    """Make the weights the model's current version and complete the job's erasures.

    All of it in the caller's transaction, or nothing.

    Raises:
        LeaseLost: another claim has the job, or the model's current version is not the parent.

    """
    _end(session, job, JobStatus.PUBLISHED, {"digest": new.digest, "rungs": _summary(rungs)})
    parent = _withdraw_parent(session, job)
    version = lifecycle.begin(
        session,
        ModelVersion(
            model_id=job.model_id,
            number=parent.number + 1,
            digest=new.digest,
            size_bytes=new.size_bytes,
            parent_id=parent.id,
            job_id=job.id,
            method=new.method,
            guarantee=new.guarantee,
        ),
        {
            "model": str(job.model_id),
            "number": parent.number + 1,
            "digest": new.digest,
            "parent_digest": parent.digest,
            "job": str(job.id),
            "seed": job.seed,
            "data_fingerprint": job.data_fingerprint,
            "id_key_id": job.id_key_id,
            "method": new.method,
            "guarantee": new.guarantee,
            "rungs": [_rung_facts(rung) for rung in rungs],
        },
    )
    swapped = session.execute(
        update(RegisteredModel)
        .where(RegisteredModel.id == job.model_id, RegisteredModel.current_version_id == parent.id)
        .values(current_version_id=version.id)
        .returning(RegisteredModel.id)
    ).first()
    if swapped is None:
        raise LeaseLost(f"job {job.id}: version {parent.id} is not current any more")
    session.execute(
        update(ManifestEntry)
        .where(
            ManifestEntry.model_id == job.model_id,
            ManifestEntry.forgotten_by_job_id.is_(None),
            ManifestEntry.sample_digest.in_(requested(job.id)),
        )
        .values(forgotten_by_job_id=job.id)
        .execution_options(synchronize_session=False)
    )
    _end_erasures(
        session,
        job.id,
        ErasureStatus.COMPLETED,
        {"version_id": version.id, "finished_at": now()},
        {"version": version.number, "digest": version.digest, "guarantee": version.guarantee},
    )
    return version


def refuse(session: Session, job: Job, rungs: Sequence[Attempted]) -> None:
    """End a job of which no rung passed verification: nothing is published.

    Raises:
        LeaseLost: another claim has the job.

    """
    error = "No method of the ladder passed verification; the parent version stays current."
    _end(session, job, JobStatus.REFUSED, {"rungs": _summary(rungs)}, error)
    _end_erasures(session, job.id, ErasureStatus.NEEDS_ATTENTION, {}, {"reason": "refused"})


def fail(session: Session, job: Job, error: str) -> None:
    """End a job that another attempt would not help.

    Raises:
        LeaseLost: another claim has the job.

    """
    _end(session, job, JobStatus.FAILED, {"error": error}, error)
    _end_erasures(session, job.id, ErasureStatus.NEEDS_ATTENTION, {}, {"reason": "failed"})


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
        _end_erasures(session, job_id, ErasureStatus.NEEDS_ATTENTION, {}, {"reason": "failed"})


def _end(
    session: Session, job: Job, to: JobStatus, facts: Mapping[str, Any], error: str | None = None
) -> None:
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


def _end_erasures(
    session: Session,
    job_id: UUID,
    to: ErasureStatus,
    values: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> None:
    ids = session.scalars(select(Erasure.id).where(Erasure.job_id == job_id)).all()
    moved = lifecycle.move(
        session, Erasure, ids, to, values=values, facts={"job": str(job_id), **facts}
    )
    settle(session, [erasure.request_id for erasure in moved])


def _withdraw_parent(session: Session, job: Job) -> ModelVersion:
    try:
        return lifecycle.move_one(
            session,
            ModelVersion,
            job.parent_id,
            VersionStatus.WITHDRAWN,
            facts={"job": str(job.id)},
        )
    except IllegalMove as error:
        raise LeaseLost(f"job {job.id}: its parent version is not current any more") from error


def _summary(rungs: Sequence[Attempted]) -> list[dict[str, object]]:
    return [{"method": rung.method, "passed": rung.passed} for rung in rungs]


def _rung_facts(rung: Attempted) -> dict[str, object]:
    return {
        "method": rung.method,
        "guarantee": rung.guarantee,
        "passed": rung.passed,
        "verdict": rung.verdict,
        "evidence": rung.evidence,
        "seconds": rung.seconds,
    }
