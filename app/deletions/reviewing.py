"""Approve a request that is held, or take up again one that was rejected or withdrawn."""

from uuid import UUID

from sqlalchemy.orm import Session

from app import lifecycle
from app.db import now
from app.deletions import cases, decisions
from app.deletions.review import is_held
from app.deletions.settlement import match, settle
from app.errors import Conflict
from app.statuses import DecisionAction, ErasureStatus, RequestStatus
from app.tables import DeletionRequest, Erasure

ENDED = (ErasureStatus.CANCELLED, ErasureStatus.REJECTED)


def approve(session: Session, request_id: UUID, by: str, note: str | None) -> None:
    """Let a held request go on; one that was approved before stays so.

    Raises:
        NotFound: there is no such request.
        Conflict: it is not held.

    """
    request = cases.take(session, request_id).request
    if request.approved_at is not None:
        return
    if not is_held(request):
        raise Conflict(f"The request is {request.status} and not held; nothing waits for you.")
    decisions.record(session, request_id, DecisionAction.APPROVE, by, note=note)
    request.approved_at = now()
    session.flush()
    match(session, [request], anew=True)
    settle(session, [request_id])


def reopen(session: Session, request_id: UUID, by: str, note: str | None) -> None:
    """Take up again what was rejected or withdrawn, and whatever models hold of it by now.

    Its deadline stays where it was: the law counts from receipt. A request that was never approved
    is held again.

    Raises:
        NotFound: there is no such request.
        Conflict: it was neither rejected nor withdrawn.

    """
    case = cases.take(session, request_id)
    request = case.request
    if request.rejected_at is None and request.cancelled_at is None:
        if decisions.last(session, request_id, DecisionAction.REOPEN) is not None:
            return
        raise Conflict(f"The request is {request.status}; it was neither rejected nor withdrawn.")
    decisions.record(
        session, request_id, DecisionAction.REOPEN, by, note=note, facts={"was": request.status}
    )
    request.rejected_at = request.rejection = request.cancelled_at = None
    session.flush()
    if request.finished_at is not None:
        partly = request.status == RequestStatus.COMPLETED
        lifecycle.move_one(
            session,
            DeletionRequest,
            request_id,
            RequestStatus.IN_PROGRESS if partly else RequestStatus.PENDING,
            values={"finished_at": None},
            facts={"reopened": True, "by": by},
        )
    paused = request.paused_at is not None
    again = [erasure.id for erasure in case.erasures if erasure.status in ENDED]
    values = {"finished_at": None, "due_at": request.due_at}
    facts = {"reopened": True, "by": by}
    lifecycle.move(session, Erasure, again, ErasureStatus.PENDING, values=values, facts=facts)
    if paused:
        lifecycle.move(session, Erasure, again, ErasureStatus.PAUSED)
    match(session, [request], anew=True)
    settle(session, [request_id])
