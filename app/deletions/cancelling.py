"""Withdraw a deletion request, as far as it is not too late.

The answer is exact, since whoever commits first decides: a cancellation and a publication both
change the job's row, the one takes the batch back from its worker, the other ends it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import lifecycle
from app.db import lock, now
from app.deletions.batches import count_samples
from app.deletions.settlement import is_awaited, settle
from app.errors import NotFound, TooLate
from app.statuses import ErasureStatus, JobStatus, RequestStatus
from app.tables import DeletionRequest, Erasure, UnlearningJob

# A batch that is taken back begins anew. People who change their minds must not keep those from
# being forgotten who did not.
MOST_INTERRUPTIONS = 3
WITHDRAWABLE = (ErasureStatus.PENDING, ErasureStatus.SCHEDULED, ErasureStatus.NEEDS_ATTENTION)


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What became of a request's erasures, by the ids of their models."""

    cancelled: Sequence[UUID]
    too_late: Sequence[UUID]


def cancel(session: Session, request_id: UUID, by: str) -> Cancellation:
    """Withdraw what is not forgotten yet; a request that was withdrawn before stays so.

    Raises:
        NotFound: there is no such request.
        TooLate: nothing of it can be withdrawn any more.

    """
    if session.get(DeletionRequest, request_id) is None:
        raise NotFound("No deletion request has this id.")
    # A model that becomes ready meanwhile would add to the request: after it, or not at all.
    lock(session, "registry", shared=True)
    jobs, erasures = _lock(session, request_id)
    request = session.get_one(
        DeletionRequest, request_id, with_for_update={"key_share": True}, populate_existing=True
    )
    withdrawn = [
        erasure
        for erasure in erasures
        if erasure.status in WITHDRAWABLE and _may_leave(jobs.get(erasure.job_id))
    ]
    before = [erasure for erasure in erasures if erasure.status == ErasureStatus.CANCELLED]
    late = [erasure for erasure in erasures if erasure not in withdrawn and erasure not in before]
    if request.cancelled_at is None:
        if not is_awaited(session, request):
            _refuse_if_late(request, withdrawn, late)
        request.cancelled_at = now()
        session.flush()
    affected = [
        jobs[erasure.job_id] for erasure in withdrawn if erasure.status == ErasureStatus.SCHEDULED
    ]
    lifecycle.move(
        session,
        Erasure,
        [erasure.id for erasure in withdrawn],
        ErasureStatus.CANCELLED,
        values={"job_id": None, "problem": None, "finished_at": now()},
        facts={"withdrawn": True, "by": by},
    )
    for job in affected:
        _shrink(session, job)
    settle(session, [request_id])
    # With those of an earlier call, whose answer may have been lost on its way.
    return Cancellation(
        [erasure.model_id for erasure in [*before, *withdrawn]],
        [erasure.model_id for erasure in late],
    )


def _refuse_if_late(
    request: DeletionRequest, withdrawn: Sequence[Erasure], late: Sequence[Erasure]
) -> None:
    if withdrawn:
        return
    if late:
        raise TooLate("All of it is forgotten already, or about to be.")
    if request.status != RequestStatus.PENDING:
        raise TooLate(f"The request is {request.status}; there is nothing left to withdraw.")


def _lock(
    session: Session, request_id: UUID
) -> tuple[dict[UUID | None, UnlearningJob], Sequence[Erasure]]:
    """Lock the erasures of a request and the unfinished jobs that they are in.

    Jobs first, as workers do, so that neither waits for the other for ever. An erasure may come
    into a job meanwhile; then its lock is given back and all is read again.
    """
    of_request = select(Erasure).where(Erasure.request_id == request_id).order_by(Erasure.id)
    while True:
        savepoint = session.begin_nested()
        in_jobs = select(Erasure.job_id).where(Erasure.request_id == request_id)
        jobs = session.scalars(
            select(UnlearningJob)
            .where(
                UnlearningJob.id.in_(in_jobs),
                UnlearningJob.status.in_([JobStatus.QUEUED, JobStatus.RUNNING]),
            )
            .order_by(UnlearningJob.id)
            .with_for_update(key_share=True)
            .execution_options(populate_existing=True)
        ).all()
        erasures = session.scalars(
            of_request.with_for_update(key_share=True).execution_options(populate_existing=True)
        ).all()
        locked: dict[UUID | None, UnlearningJob] = {job.id: job for job in jobs}
        scheduled = {e.job_id for e in erasures if e.status == ErasureStatus.SCHEDULED}
        if scheduled <= locked.keys():
            savepoint.commit()
            return locked, erasures
        savepoint.rollback()


def _may_leave(job: UnlearningJob | None) -> bool:
    return job is None or job.status != JobStatus.RUNNING or job.interruptions < MOST_INTERRUPTIONS


def _shrink(session: Session, job: UnlearningJob) -> None:
    """Queue a job anew without what was withdrawn, or end it if nothing is left to do."""
    left = session.scalars(select(Erasure).where(Erasure.job_id == job.id)).all()
    requests = [erasure.request_id for erasure in left]
    values = {
        "erasure_count": len(left),
        "sample_count": count_samples(session, job.model_id, requests),
        "due_at": min((erasure.due_at for erasure in left if erasure.due_at), default=None),
    }
    if not left and not job.rebase:
        lifecycle.move_one(
            session,
            UnlearningJob,
            job.id,
            JobStatus.CANCELLED,
            values={**values, "lease_expires_at": None, "finished_at": now()},
        )
    elif job.status == JobStatus.RUNNING:
        # What its worker still writes is refused from here on: the job does not run any more, and
        # the next claim has another fence.
        lifecycle.move_one(
            session,
            UnlearningJob,
            job.id,
            JobStatus.QUEUED,
            values={
                **values,
                "interruptions": UnlearningJob.interruptions + 1,
                "lease_expires_at": None,
                "worker": None,
                "progress": None,
            },
            facts={"interrupted": True, "erasures": len(left)},
        )
    else:
        for name, value in values.items():
            setattr(job, name, value)
        session.flush()
