"""Take hold of a request for a decision: it, its erasures, and the unfinished jobs they are in.

Whoever commits first decides, since a decision and a publication both change the job's row: the
one takes the batch back from its worker, the other ends it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import lifecycle
from app.db import lock, now
from app.deletions.batches import count_samples
from app.errors import NotFound
from app.statuses import ErasureStatus, JobStatus
from app.tables import DeletionRequest, Erasure, UnlearningJob

# A batch that is taken back begins anew. People who change their minds must not keep those from
# being forgotten who did not.
MOST_INTERRUPTIONS = 3


@dataclass(frozen=True, slots=True)
class Case:
    """A request that nobody else changes until the transaction ends."""

    request: DeletionRequest
    erasures: Sequence[Erasure]
    jobs: Mapping[UUID | None, UnlearningJob]
    """The unfinished ones of the erasures, by id."""

    def may_leave(self, erasure: Erasure) -> bool:
        """Tell whether an erasure is in no job, or in one that it can be taken out of."""
        job = self.jobs.get(erasure.job_id)
        return (
            job is None or job.status != JobStatus.RUNNING or job.interruptions < MOST_INTERRUPTIONS
        )


def take(session: Session, request_id: UUID) -> Case:
    """Lock a request and what belongs to it.

    Raises:
        NotFound: there is no such request.

    """
    if session.get(DeletionRequest, request_id) is None:
        raise NotFound("No deletion request has this id.")
    # A model that becomes ready meanwhile would add to the request: after it, or not at all.
    lock(session, "registry", shared=True)
    jobs, erasures = _lock(session, request_id)
    request = session.get_one(
        DeletionRequest, request_id, with_for_update={"key_share": True}, populate_existing=True
    )
    return Case(request, erasures, jobs)


def take_out(
    session: Session,
    case: Case,
    erasures: Sequence[Erasure],
    to: ErasureStatus,
    facts: Mapping[str, Any],
) -> None:
    """Move erasures to a status outside of any job; what is left of their jobs goes on."""
    affected = [
        case.jobs[erasure.job_id]
        for erasure in erasures
        if erasure.status == ErasureStatus.SCHEDULED
    ]
    ends = to in (ErasureStatus.CANCELLED, ErasureStatus.REJECTED)
    lifecycle.move(
        session,
        Erasure,
        [erasure.id for erasure in erasures],
        to,
        values={"job_id": None, "problem": None, "finished_at": now() if ends else None},
        facts=facts,
    )
    for job in affected:
        _shrink(session, job)


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


def _shrink(session: Session, job: UnlearningJob) -> None:
    """Queue a job anew without what was taken out, or end it if nothing is left to do."""
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
