"""Withdraw a deletion request, or reject it, as far as it is not too late."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session

from app.db import now
from app.deletions import cases, decisions
from app.deletions.cases import Case
from app.deletions.settlement import is_awaited, settle
from app.errors import Conflict, TooLate
from app.statuses import DecisionAction, DenialReason, ErasureStatus, RequestStatus
from app.tables import Erasure

WITHDRAWABLE = (
    ErasureStatus.PENDING,
    ErasureStatus.PAUSED,
    ErasureStatus.SCHEDULED,
    ErasureStatus.NEEDS_ATTENTION,
)


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What became of a request's erasures, by the ids of their models."""

    cancelled: Sequence[UUID]
    """Withdrawn, or rejected."""
    too_late: Sequence[UUID]


def cancel(session: Session, request_id: UUID, by: str) -> Cancellation:
    """Withdraw what is not forgotten yet; a request that was withdrawn before stays so.

    Raises:
        NotFound: there is no such request.
        TooLate: nothing of it can be withdrawn any more.

    """
    case = cases.take(session, request_id)
    if case.request.rejected_at is not None:
        raise TooLate("The request is rejected; there is nothing left to withdraw.")
    leaving = _leaving(case)
    if case.request.cancelled_at is None:
        _refuse_if_late(session, case, leaving)
    if leaving or case.request.cancelled_at is None:
        decisions.record(session, request_id, DecisionAction.CANCEL, by)
    case.request.cancelled_at = case.request.cancelled_at or now()
    return _end(session, case, leaving, ErasureStatus.CANCELLED, by)


def reject(
    session: Session, request_id: UUID, by: str, reason: DenialReason, note: str | None
) -> Cancellation:
    """Reject what is not forgotten yet; a request that was rejected before stays so.

    Raises:
        NotFound: there is no such request.
        TooLate: nothing of it can be rejected any more.
        Conflict: it was withdrawn, or rejected for another reason.

    """
    case = cases.take(session, request_id)
    request = case.request
    if request.cancelled_at is not None:
        raise Conflict("The request was withdrawn by its client; nothing is left to reject.")
    if request.rejection not in (None, reason):
        raise Conflict("The request was rejected for another reason; reopen it first.")
    leaving = _leaving(case)
    if request.rejected_at is None:
        _refuse_if_late(session, case, leaving)
    if leaving or request.rejected_at is None:
        decisions.record(session, request_id, DecisionAction.REJECT, by, reason=reason, note=note)
    request.rejected_at = request.rejected_at or now()
    request.rejection = reason
    return _end(session, case, leaving, ErasureStatus.REJECTED, by)


def _leaving(case: Case) -> list[Erasure]:
    return [
        erasure
        for erasure in case.erasures
        if erasure.status in WITHDRAWABLE and case.may_leave(erasure)
    ]


def _refuse_if_late(session: Session, case: Case, leaving: Sequence[Erasure]) -> None:
    # With an awaited model, or a review, there is more to come than its erasures.
    if leaving or is_awaited(session, case.request):
        return
    if case.request.status == RequestStatus.HELD:
        return
    if any(erasure.status != ErasureStatus.CANCELLED for erasure in case.erasures):
        raise TooLate("All of it is forgotten already, or about to be.")
    if case.request.status != RequestStatus.PENDING:
        raise TooLate(f"The request is {case.request.status}; there is nothing left to end.")


def _end(
    session: Session, case: Case, leaving: Sequence[Erasure], to: ErasureStatus, by: str
) -> Cancellation:
    session.flush()
    before = [erasure for erasure in case.erasures if erasure.status == to]
    late = [e for e in case.erasures if e not in leaving and e not in before]
    # With those of an earlier call, whose answer may have been lost on its way.
    outcome = Cancellation(
        [erasure.model_id for erasure in [*before, *leaving]],
        [erasure.model_id for erasure in late],
    )
    word = "withdrawn" if to is ErasureStatus.CANCELLED else "rejected"
    cases.take_out(session, case, leaving, to, {word: True, "by": by})
    settle(session, [case.request.id])
    return outcome
