"""Try once more what needed attention, after whoever was asked for it has seen to the cause."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from app import lifecycle
from app.deletions import decisions
from app.deletions.settlement import settle
from app.errors import Conflict, NotFound
from app.statuses import DecisionAction, ErasureStatus
from app.tables import DeletionRequest, Erasure, UnlearningJob


def retry_request(session: Session, request_id: UUID, by: str) -> None:
    """Put back to the pending ones what a request needs attention for.

    Raises:
        NotFound: there is no such request.
        Conflict: nothing of it needs attention.

    """
    if session.get(DeletionRequest, request_id) is None:
        raise NotFound("No deletion request has this id.")
    _retry(
        session, by, Erasure.request_id == request_id, "Nothing of this request needs attention."
    )


def retry_job(session: Session, job_id: UUID, by: str) -> None:
    """Put back to the pending ones the erasures that a job left in need of attention.

    Raises:
        NotFound: there is no such job.
        Conflict: none of its erasures needs attention.

    """
    if session.get(UnlearningJob, job_id) is None:
        raise NotFound("No job has this id.")
    _retry(session, by, Erasure.job_id == job_id, "No erasure of this job needs attention.")


def _retry(session: Session, by: str, condition: ColumnElement[bool], otherwise: str) -> None:
    ids: Sequence[UUID] = session.scalars(
        select(Erasure.id).where(condition, Erasure.status == ErasureStatus.NEEDS_ATTENTION)
    ).all()
    # Those that stood alone stay in their cohort: what fails once more fails alone.
    moved = lifecycle.move(
        session,
        Erasure,
        ids,
        ErasureStatus.PENDING,
        values={"job_id": None, "problem": None},
        facts={"retried": True, "by": by},
    )
    if not moved:
        raise Conflict(otherwise)
    requests = {erasure.request_id for erasure in moved}
    # Of those whose clock stands still, it waits with the rest.
    paused = set(
        session.scalars(
            select(DeletionRequest.id).where(
                DeletionRequest.id.in_(requests), DeletionRequest.paused_at.is_not(None)
            )
        )
    )
    lifecycle.move(
        session,
        Erasure,
        [erasure.id for erasure in moved if erasure.request_id in paused],
        ErasureStatus.PAUSED,
    )
    decisions.record_all(session, sorted(requests), DecisionAction.RETRY, by)
    settle(session, requests)
