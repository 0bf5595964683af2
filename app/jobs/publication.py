"""Publish what a job made: a new version and all that follows from it, in one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app import commitments, lifecycle
from app.commitments import Change
from app.db import now
from app.deletions.settlement import settle
from app.derived import ledgers, references
from app.errors import IllegalMove, LeaseLost
from app.jobs import records
from app.jobs.leases import Job, requested
from app.jobs.outcome import Attempted, end, summary
from app.recall import notices
from app.statuses import ErasureStatus, JobStatus, VersionStatus
from app.tables import (
    Erasure,
    ManifestEntry,
    ModelVersion,
    RegisteredModel,
    Transition,
    UnlearningJob,
)


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
    record: records.Record | None = None
    """What it takes to repeat the job."""
    change: Change | None = None
    """What becomes of the commitment to the retained samples; None to have it computed."""
    software: Mapping[str, str] = field(default_factory=dict)
    """What computed the weights, each with its version."""


def change_by(job: Job) -> Change:
    """Return what becomes of the model's commitment; takes seconds for a million samples."""
    return commitments.change(commitments.read_manifest(job.model_id), job.forget_digests)


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
    change = new.change or change_by(job)
    if parent.commitment_root not in (None, change.parent.root):
        raise RuntimeError(f"model {job.model_id}: its manifest is not what its version commits to")
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
            commitment_root=change.version.root,
            retained_count=change.version.retained,
        ),
        {
            "model": str(job.model_id),
            "model_name": session.get_one(RegisteredModel, job.model_id).name,
            "number": parent.number + 1,
            "digest": new.digest,
            "parent_digest": parent.digest,
            "job": str(job.id),
            "seed": job.seed,
            "data_fingerprint": job.data_fingerprint,
            "id_key_id": job.id_key_id,
            "method": new.method,
            "parameters": _parameters(job, new.method),
            "guarantee": new.guarantee,
            "verdict": new.verdict,
            "rebase": job.rebase,
            "software": dict(new.software),
            "commitment": {
                "root": change.version.root.hex(),
                "retained": change.version.retained,
                "parent_root": change.parent.root.hex(),
                "removed": change.removed,
            },
            "rungs": [_rung_facts(rung) for rung in rungs],
        },
    )
    session.add(Transition(version_id=version.id, proof=change.proof))
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
    notices.create(session, parent, version)
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
    if new.record is not None:
        records.keep(session, job, new.digest, new.record)
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


def _parameters(job: Job, method: str) -> dict[str, object]:
    # What the policy leaves open and the method chose stands in the evidence of its rung.
    chosen = job.policy.options.model_dump(mode="json").get(method, {})
    return {**chosen, "batch_limit": job.batch_limit}


def _rung_facts(rung: Attempted) -> dict[str, object]:
    return {
        "method": rung.method,
        "guarantee": rung.guarantee,
        "outcome": rung.outcome,
        "verdict": rung.verdict,
        "evidence": rung.evidence,
        "seconds": rung.seconds,
    }
