"""Publish what a job made: a new version and all that follows from it, in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app import lifecycle
from app.db import now
from app.deletions.settlement import settle
from app.derived import ledgers, references
from app.errors import IllegalMove, LeaseLost
from app.jobs.leases import Job, requested
from app.jobs.outcome import Attempted, end, summary
from app.statuses import ErasureStatus, JobStatus, VersionStatus
from app.tables import Erasure, ManifestEntry, ModelVersion, RegisteredModel, UnlearningJob


@dataclass(frozen=True, slots=True)
class NewVersion:
    """The weights that a job made, durable in the artifact store already."""

    digest: str
    size_bytes: int
    method: str
    guarantee: str
    verdict: str
    drift: float
    """Relative L2 distance of the weights from the parent's."""


def published_by(session: Session, job: Job) -> ModelVersion | None:
    """Return the version that this very claim published, where its commit was not heard of."""
    row = session.get_one(UnlearningJob, job.id)
    if row.fence != job.fence or row.status != JobStatus.PUBLISHED:
        return None
    return session.scalars(select(ModelVersion).where(ModelVersion.job_id == job.id)).one()


def publish(
    session: Session, job: Job, new: NewVersion, rungs: Sequence[Attempted]
) -> ModelVersion:
    """Make the weights the model's current version and complete the job's erasures.

    All of it in the caller's transaction, or nothing.

    Raises:
        LeaseLost: another claim has the job, or the model's current version is not the parent.

    """
    end(session, job, JobStatus.PUBLISHED, {"digest": new.digest, "rungs": summary(rungs)})
    parent = _withdraw_parent(session, job)
    exact = new.guarantee == "exact"
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
            verdict=new.verdict,
            debt_samples=0 if exact else parent.debt_samples + len(job.forget_digests),
            debt_drift=0.0 if exact else parent.debt_drift + new.drift,
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
            "verdict": new.verdict,
            "rebase": job.rebase,
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
    _renew_derived(session, job, parent, version)
    moved = lifecycle.move(
        session,
        Erasure,
        session.scalars(select(Erasure.id).where(Erasure.job_id == job.id)).all(),
        ErasureStatus.COMPLETED,
        values={"version_id": version.id, "finished_at": now()},
        facts={
            "job": str(job.id),
            "version": version.number,
            "digest": version.digest,
            "guarantee": version.guarantee,
            "verdict": version.verdict,
        },
    )
    settle(session, [erasure.request_id for erasure in moved])
    return version


def _renew_derived(session: Session, job: Job, parent: ModelVersion, version: ModelVersion) -> None:
    # What was computed from the parent holds what was forgotten, as the parent itself does.
    ledgers.void(session, parent.id, "superseded")
    if "iau" in job.policy.ladder:
        ledgers.begin(session, job.model_id, version.id)
    references.forget(session, job.model_id, requested(job.id))
    if version.guarantee == "exact":
        references.discard(session, job.model_id, "an exact version was published")
        references.begin(session, job.model_id, version.id, job.policy.references.count)


def _withdraw_parent(session: Session, job: Job) -> ModelVersion:
    try:
        return lifecycle.move_one(
            session,
            ModelVersion,
            job.parent_id,
            VersionStatus.WITHDRAWN,
            values={"withdrawn_at": now()},
            facts={"job": str(job.id)},
        )
    except IllegalMove as error:
        raise LeaseLost(f"job {job.id}: its parent version is not current any more") from error


def _rung_facts(rung: Attempted) -> dict[str, object]:
    return {
        "method": rung.method,
        "guarantee": rung.guarantee,
        "outcome": rung.outcome,
        "verdict": rung.verdict,
        "evidence": rung.evidence,
        "seconds": rung.seconds,
    }
