"""Batch pending erasures into unlearning jobs, by each model's policy."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import distinct, exists, func, or_, select
from sqlalchemy.orm import Session

from app import lifecycle
from app.db import clock, try_lock
from app.deletions import settlement
from app.derived import references
from app.statuses import ErasureStatus, JobStatus, ModelStatus
from app.tables import (
    Erasure,
    ManifestEntry,
    ModelVersion,
    RegisteredModel,
    RequestedSample,
    UnlearningJob,
)
from lethe.policy import Batching, Policy

# The audit log's canonical JSON holds whole numbers up to this exactly (RFC 8785, 3.2.2.3).
LARGEST_SEED = 2**53


@dataclass(frozen=True, slots=True)
class Backlog:
    """What one model has pending."""

    samples: int
    oldest_at: datetime
    nearest_due_at: datetime | None


def plan(session: Session) -> list[UUID]:
    """Make a job for each model whose backlog is due or whose debt is; return the new jobs.

    One planner at a time: another that finds the lock taken has nothing to do.
    """
    if not try_lock(session, "planner"):
        return []
    at = clock(session)
    jobs = []
    for model, version in _candidates(session):
        policy = Policy.model_validate(model.policy)
        rebase = _is_indebted(session, model, version, policy)
        backlog = _backlog(session, model.id)
        if rebase or (backlog is not None and _may_start(session, model, policy, backlog, at)):
            job = _make_job(session, model, policy, rebase=rebase)
            if job is not None:
                jobs.append(job.id)
    return jobs


def is_due(backlog: Backlog, batching: Batching, at: datetime) -> bool:
    """Tell whether a backlog has reached any of the policy's bounds."""
    return (
        backlog.samples >= batching.max_samples
        or at - backlog.oldest_at >= batching.max_wait
        or (
            backlog.nearest_due_at is not None
            and backlog.nearest_due_at - at <= batching.deadline_headroom
        )
    )


def _candidates(session: Session) -> list[tuple[RegisteredModel, ModelVersion]]:
    """Return the models without an unfinished job that have erasures pending, or debt."""
    unfinished = exists().where(
        UnlearningJob.model_id == RegisteredModel.id,
        UnlearningJob.status.in_([JobStatus.QUEUED, JobStatus.RUNNING]),
    )
    pending = exists().where(
        Erasure.model_id == RegisteredModel.id, Erasure.status == ErasureStatus.PENDING
    )
    rows = session.execute(
        select(RegisteredModel, ModelVersion)
        .join(ModelVersion, ModelVersion.id == RegisteredModel.current_version_id)
        .where(
            RegisteredModel.status == ModelStatus.READY,
            ~unfinished,
            or_(pending, ModelVersion.debt_samples > 0),
        )
    )
    return [(model, version) for model, version in rows]


def _is_indebted(
    session: Session, model: RegisteredModel, version: ModelVersion, policy: Policy
) -> bool:
    """Tell whether a model has to be retrained before it may forget more approximately."""
    share = version.debt_samples / model.sample_count if model.sample_count else 0.0
    if share <= policy.debt.max_share and version.debt_drift <= policy.debt.max_drift:
        return False
    # A retrain that did not come through would not do so every few seconds from now on either.
    tried = exists().where(
        UnlearningJob.parent_version_id == version.id, UnlearningJob.rebase.is_(True)
    )
    return "retrain" in policy.ladder and not session.scalar(select(tried))


def _may_start(
    session: Session, model: RegisteredModel, policy: Policy, backlog: Backlog, at: datetime
) -> bool:
    """Tell whether a backlog is due, and need not wait for the model's references either."""
    if not is_due(backlog, policy.batching, at):
        return False
    if at - backlog.oldest_at >= policy.references.max_delay:
        return True
    if backlog.nearest_due_at is not None:
        left = backlog.nearest_due_at - at
        if left <= policy.batching.deadline_headroom:
            return True
    return not references.is_building(session, model.id)


def _backlog(session: Session, model_id: UUID) -> Backlog | None:
    samples, oldest_at, nearest_due_at = session.execute(
        select(
            func.sum(Erasure.sample_count), func.min(Erasure.created_at), func.min(Erasure.due_at)
        ).where(Erasure.model_id == model_id, Erasure.status == ErasureStatus.PENDING)
    ).one()
    return None if oldest_at is None else Backlog(int(samples), oldest_at, nearest_due_at)


def _make_job(
    session: Session, model: RegisteredModel, policy: Policy, *, rebase: bool
) -> UnlearningJob | None:
    batch = _without_forgotten(session, _most_urgent(session, model.id, policy.batching))
    if not batch and not rebase:
        return None
    parent_id = model.current_version_id
    if parent_id is None:
        raise RuntimeError(f"model {model.id} is ready and has no current version")
    requests = [erasure.request_id for erasure in batch]
    samples = session.scalars(
        select(func.count(distinct(ManifestEntry.sample_digest)))
        .join(RequestedSample, RequestedSample.sample_digest == ManifestEntry.sample_digest)
        .where(
            ManifestEntry.model_id == model.id,
            ManifestEntry.forgotten_by_job_id.is_(None),
            RequestedSample.request_id.in_(requests),
        )
    ).one()
    job = lifecycle.begin(
        session,
        UnlearningJob(
            model_id=model.id,
            parent_version_id=parent_id,
            policy=model.policy,
            seed=secrets.randbelow(LARGEST_SEED),
            sample_count=samples,
            rebase=rebase,
        ),
        {
            "model": str(model.id),
            "parent": str(parent_id),
            "erasures": len(batch),
            "samples": samples,
            "rebase": rebase,
        },
    )
    lifecycle.move(
        session,
        Erasure,
        [erasure.id for erasure in batch],
        ErasureStatus.SCHEDULED,
        values={"job_id": job.id},
        facts={"job": str(job.id)},
    )
    settlement.settle(session, requests)
    return job


def _most_urgent(session: Session, model_id: UUID, batching: Batching) -> Sequence[Erasure]:
    # Each erasure has at least one sample, so that no more rows than this can fit.
    rows = session.scalars(
        select(Erasure)
        .where(Erasure.model_id == model_id, Erasure.status == ErasureStatus.PENDING)
        .order_by(Erasure.due_at.asc().nulls_last(), Erasure.created_at, Erasure.id)
        .limit(batching.max_samples)
        .with_for_update()
    ).all()
    batch: list[Erasure] = []
    samples = 0
    for erasure in rows:
        samples += erasure.sample_count
        if batch and samples > batching.max_samples:
            break
        batch.append(erasure)
    return batch


def _without_forgotten(session: Session, batch: Sequence[Erasure]) -> list[Erasure]:
    remaining = set(
        session.scalars(
            select(Erasure.id)
            .join(RequestedSample, RequestedSample.request_id == Erasure.request_id)
            .join(
                ManifestEntry,
                (ManifestEntry.model_id == Erasure.model_id)
                & (ManifestEntry.sample_digest == RequestedSample.sample_digest),
            )
            .where(
                Erasure.id.in_([erasure.id for erasure in batch]),
                ManifestEntry.forgotten_by_job_id.is_(None),
            )
            .distinct()
        )
    )
    forgotten = [erasure for erasure in batch if erasure.id not in remaining]
    settlement.complete_forgotten(session, forgotten)
    settlement.settle(session, [erasure.request_id for erasure in forgotten])
    return [erasure for erasure in batch if erasure.id in remaining]
