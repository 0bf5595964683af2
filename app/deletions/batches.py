"""Make a job of a batch of pending erasures: choose them, and say what they ask for."""

import secrets
from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    CollectionAggregate,
    ColumnElement,
    Uuid,
    any_,
    bindparam,
    distinct,
    exists,
    func,
    literal,
    select,
    true,
)
from sqlalchemy.orm import Session

from app import lifecycle
from app.deletions import settlement
from app.statuses import ErasureStatus
from app.tables import (
    Erasure,
    ManifestEntry,
    RegisteredModel,
    RequestedSample,
    UnlearningJob,
)

# The audit log's canonical JSON holds whole numbers up to this exactly (RFC 8785, 3.2.2.3).
LARGEST_SEED = 2**53

# Its value written out: a prepared statement that has it as a parameter may be planned for whatever
# status, and then looks through all erasures instead of the indexes of those that are pending.
IS_PENDING = Erasure.status == literal(ErasureStatus.PENDING.value, literal_execute=True)


def make_job(
    session: Session, model: RegisteredModel, max_samples: int, *, rebase: bool, parts_only: bool
) -> UUID | None:
    """Make a job of the most urgent erasures that are pending for a model; return its id.

    ``parts_only`` leaves out what is not part of a batch that failed. None if nothing of the batch
    is left to forget, unless the model has to be retrained anyway.
    """
    among = Erasure.cohort_id.is_not(None) if parts_only else true()
    batch = _without_forgotten(session, _most_urgent(session, model.id, max_samples, among))
    if not batch and not rebase:
        return None
    parent_id = model.current_version_id
    if parent_id is None:
        raise RuntimeError(f"model {model.id} is ready and has no current version")
    requests = [erasure.request_id for erasure in batch]
    samples = count_samples(session, model.id, requests)
    job = lifecycle.begin(
        session,
        UnlearningJob(
            model_id=model.id,
            parent_version_id=parent_id,
            policy=model.policy,
            seed=secrets.randbelow(LARGEST_SEED),
            erasure_count=len(batch),
            sample_count=samples,
            due_at=min((erasure.due_at for erasure in batch if erasure.due_at), default=None),
            cohort_id=batch[0].cohort_id if batch else None,
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
    return job.id


def count_samples(session: Session, model_id: UUID, request_ids: Collection[UUID]) -> int:
    """Count the samples that requests ask for and the model has not forgotten, each once."""
    return session.scalars(
        select(func.count(distinct(ManifestEntry.sample_digest)))
        .join(RequestedSample, RequestedSample.sample_digest == ManifestEntry.sample_digest)
        .where(
            ManifestEntry.model_id == model_id,
            ManifestEntry.forgotten_by_job_id.is_(None),
            RequestedSample.request_id == _any_of(request_ids),
        )
    ).one()


def _most_urgent(
    session: Session, model_id: UUID, max_samples: int, among: ColumnElement[bool]
) -> Sequence[Erasure]:
    pending = (
        select(Erasure)
        .where(Erasure.model_id == model_id, IS_PENDING, among)
        .order_by(Erasure.due_at.asc().nulls_last(), Erasure.created_at, Erasure.id)
    )
    first = session.execute(pending.with_only_columns(Erasure.cohort_id).limit(1)).first()
    if first is None:
        return []
    # Part of a batch that failed: it stays apart, or nobody would learn for whom that failed.
    alone = Erasure.cohort_id.is_not_distinct_from(first.cohort_id)
    # Each erasure has at least one sample, so that no more rows than this can fit.
    rows = session.scalars(
        pending.where(alone).limit(max_samples).with_for_update(key_share=True)
    ).all()
    batch: list[Erasure] = []
    samples = 0
    for erasure in rows:
        samples += erasure.sample_count
        if batch and samples > max_samples:
            break
        batch.append(erasure)
    return batch


def _without_forgotten(session: Session, batch: Sequence[Erasure]) -> list[Erasure]:
    known = (
        exists()
        .where(RequestedSample.request_id == Erasure.request_id)
        .where(
            ManifestEntry.model_id == Erasure.model_id,
            ManifestEntry.sample_digest == RequestedSample.sample_digest,
            ManifestEntry.forgotten_by_job_id.is_(None),
        )
    )
    ids = _any_of([erasure.id for erasure in batch])
    remaining = set(session.scalars(select(Erasure.id).where(Erasure.id == ids, known)))
    forgotten = [erasure for erasure in batch if erasure.id not in remaining]
    settlement.complete_forgotten(session, forgotten)
    settlement.settle(session, [erasure.request_id for erasure in forgotten])
    return [erasure for erasure in batch if erasure.id in remaining]


def _any_of(ids: Collection[UUID]) -> CollectionAggregate[bool]:
    # One parameter, however many ids there are: an IN of a thousand takes long to put together.
    return any_(bindparam(None, list(ids), ARRAY(Uuid)))
