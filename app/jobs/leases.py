"""Claim, renew and take back jobs: who may work on what, and for how long.

A claim raises the job's fence; every later write of a claim is guarded by the fence it got.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, or_, select, update
from sqlalchemy.orm import Session

from app import lifecycle
from app.derived import ledgers, manifest, references
from app.errors import IllegalMove, LeaseLost
from app.statuses import JobStatus
from app.tables import (
    Erasure,
    ManifestEntry,
    ModelVersion,
    RegisteredModel,
    RequestedSample,
    UnlearningJob,
)
from lethe.policy import MethodName, Policy


@dataclass(frozen=True, slots=True)
class Job:
    """All that a worker needs to know of a job it has claimed; it holds no database rows."""

    id: UUID
    fence: int
    attempt: int
    failures: int
    """Earlier claims that ended in an error or in silence."""
    batch_limit: int | None
    """Most records in one step, after memory ran out with more."""
    model_id: UUID
    recipe: str
    policy: Policy
    seed: int
    parent_id: UUID
    parent_digest: str
    data_fingerprint: str
    id_key_id: str
    forget_digests: frozenset[bytes]
    """To forget now; a rebase holds its exact version against all that was forgotten since the
    last one, too."""
    forgotten_digests: frozenset[bytes]
    """Forgotten before, and not looked at any more."""
    rebase: bool
    """Pays off unlearning debt: only the exact method will do."""
    reference_set_id: UUID | None
    gradient_ledger: ledgers.Kept | None

    @property
    def ladder(self) -> tuple[MethodName, ...]:
        """The methods to try, in order."""
        return ("retrain",) if self.rebase else self.policy.ladder


def claim(session: Session, job_id: UUID, worker: str, lease: timedelta) -> Job | None:
    """Take the job for one lease; None if it is not to be had, which is no error."""
    try:
        row = lifecycle.move_one(
            session,
            UnlearningJob,
            job_id,
            JobStatus.RUNNING,
            _may_be_claimed(),
            values={
                "fence": UnlearningJob.fence + 1,
                "attempts": UnlearningJob.attempts + 1,
                "lease_expires_at": func.clock_timestamp() + lease,
                "worker": worker,
                "started_at": func.clock_timestamp(),
                "progress": None,
                "error": None,
            },
            facts=lambda job: {"attempt": job.attempts, "fence": job.fence},
        )
    except IllegalMove:
        return None
    parent = session.get_one(ModelVersion, row.parent_version_id)
    before = frozenset(session.scalars(manifest.forgotten(row.model_id)))
    again = frozenset(session.scalars(_owed(parent))) if row.rebase else frozenset()
    return freeze(
        session,
        row,
        forget=frozenset(session.scalars(_to_forget(row))) | again,
        forgotten=before - again,
        reference_set_id=references.ready_set(session, row.model_id),
        gradient_ledger=ledgers.find(session, parent.id),
    )


def freeze(
    session: Session,
    row: UnlearningJob,
    *,
    forget: frozenset[bytes],
    forgotten: frozenset[bytes],
    attempt: int | None = None,
    reference_set_id: UUID | None = None,
    gradient_ledger: ledgers.Kept | None = None,
) -> Job:
    """Return a job as its worker has it; the attempt is the row's unless given."""
    model = session.get_one(RegisteredModel, row.model_id)
    parent = session.get_one(ModelVersion, row.parent_version_id)
    if model.data_fingerprint is None or model.id_key_id is None:
        raise RuntimeError(f"model {model.id} has a job and was never checked")
    return Job(
        id=row.id,
        fence=row.fence,
        attempt=row.attempts if attempt is None else attempt,
        failures=row.failures,
        batch_limit=row.batch_limit,
        model_id=model.id,
        recipe=model.recipe,
        policy=Policy.model_validate(row.policy),
        seed=row.seed,
        parent_id=parent.id,
        parent_digest=parent.digest,
        data_fingerprint=model.data_fingerprint,
        id_key_id=model.id_key_id,
        forget_digests=forget,
        forgotten_digests=forgotten,
        rebase=row.rebase,
        reference_set_id=reference_set_id,
        gradient_ledger=gradient_ledger,
    )


def renew(session: Session, job: Job, lease: timedelta, progress: Mapping[str, Any] | None) -> None:
    """Hold the job for another lease and note how far it is.

    Raises:
        LeaseLost: another claim has it, or it was taken back.

    """
    renewed = session.execute(
        update(UnlearningJob)
        .where(UnlearningJob.id == job.id, *held_by(job))
        .values(lease_expires_at=func.clock_timestamp() + lease, progress=progress)
        .returning(UnlearningJob.id)
    ).first()
    if renewed is None:
        raise LeaseLost(f"job {job.id}: the lease of fence {job.fence} is lost")


def held_by(job: Job) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions under which a claim still has its job."""
    return (UnlearningJob.fence == job.fence, UnlearningJob.status == JobStatus.RUNNING)


def lock_held(session: Session, job: Job) -> None:
    """Keep a claim's job from being taken back until the transaction ends.

    Raises:
        LeaseLost: another claim has the job.

    """
    held = session.scalar(
        select(UnlearningJob.id).where(UnlearningJob.id == job.id, *held_by(job)).with_for_update()
    )
    if held is None:
        raise LeaseLost(f"job {job.id}: the lease of fence {job.fence} is lost")


def requeue(
    session: Session,
    job_id: UUID,
    error: str | None,
    *conditions: ColumnElement[bool],
    values: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Queue a job for another attempt.

    Raises:
        LeaseLost: it was claimed or ended meanwhile.

    """
    try:
        lifecycle.move_one(
            session,
            UnlearningJob,
            job_id,
            JobStatus.QUEUED,
            *conditions,
            values={
                "lease_expires_at": None,
                "worker": None,
                "progress": None,
                "error": error,
                "not_before": None,
                **(values or {}),
            },
            facts=lambda job: {"attempt": job.attempts, "error": error, **(facts or {})},
        )
    except IllegalMove as error_:
        raise LeaseLost(f"job {job_id} was claimed or ended meanwhile") from error_


def requested(job_id: UUID) -> Select[bytes]:
    """Select the digests that the requests behind a job ask for."""
    return (
        select(RequestedSample.sample_digest)
        .join(Erasure, Erasure.request_id == RequestedSample.request_id)
        .where(Erasure.job_id == job_id)
    )


def _to_forget(job: UnlearningJob) -> Select[bytes]:
    return select(ManifestEntry.sample_digest).where(
        ManifestEntry.model_id == job.model_id,
        ManifestEntry.forgotten_by_job_id.is_(None),
        ManifestEntry.sample_digest.in_(requested(job.id)),
    )


def _owed(parent: ModelVersion) -> Select[bytes]:
    # What was forgotten approximately, by the versions since the last exact one.
    last_exact = (
        select(func.coalesce(func.max(ModelVersion.number), 1))
        .where(ModelVersion.model_id == parent.model_id, ModelVersion.guarantee == "exact")
        .scalar_subquery()
    )
    since = select(ModelVersion.job_id).where(
        ModelVersion.model_id == parent.model_id, ModelVersion.number > last_exact
    )
    return manifest.forgotten(parent.model_id).where(ManifestEntry.forgotten_by_job_id.in_(since))


def is_known(session: Session, job_id: UUID) -> bool:
    """Tell whether there is such a job, whatever its status."""
    return session.get(UnlearningJob, job_id) is not None


def queued(session: Session, limit: int | None = None) -> list[UUID]:
    """Return the jobs that may be claimed now, those with the nearest deadline first."""
    return list(
        session.scalars(
            select(UnlearningJob.id)
            .where(UnlearningJob.status == JobStatus.QUEUED, _may_be_claimed())
            .order_by(UnlearningJob.due_at.asc().nulls_last(), UnlearningJob.created_at)
            .limit(limit)
        )
    )


def _may_be_claimed() -> ColumnElement[bool]:
    not_before = UnlearningJob.not_before
    return or_(not_before.is_(None), not_before <= func.clock_timestamp())
