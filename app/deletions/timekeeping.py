"""Decide about a request's clock: confirm receipt, extend the term, let it stand still, go on."""

from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.db import now
from app.deletions import cases, clocks, decisions
from app.deletions.cases import Case
from app.deletions.clocks import Clock, PauseGround, Regulation
from app.deletions.laws import law_of
from app.deletions.settlement import ended_pause, settle
from app.errors import Conflict, NoCustomClock
from app.settings import settings
from app.statuses import DecisionAction, ErasureStatus
from app.tables import DeletionRequest, Erasure

OPEN = (
    ErasureStatus.PENDING,
    ErasureStatus.PAUSED,
    ErasureStatus.SCHEDULED,
    ErasureStatus.NEEDS_ATTENTION,
)
PAUSABLE = (ErasureStatus.PENDING, ErasureStatus.SCHEDULED)


def confirm(session: Session, request_id: UUID, by: str) -> None:
    """Note that receipt was confirmed to whoever asked; once.

    Raises:
        NotFound: there is no such request.
        Conflict: no law asks for it, or the request is finished.

    """
    case = cases.take(session, request_id)
    request = case.request
    if request.confirmed_at is not None:
        return
    _, clock = _law(case)
    if clock is None or clock.confirm_days is None:
        raise Conflict("No confirmation of receipt is due under this regulation.")
    _refuse_if_finished(request)
    at = now()
    decisions.record(session, request_id, DecisionAction.CONFIRM, by)
    request.confirmed_at = at
    session.flush()


def extend(
    session: Session, request_id: UUID, by: str, reasons: str, until: datetime | None
) -> None:
    """Move the deadline by what the law grants, or to an earlier moment than that; once.

    That whoever asked is told of it, and why, is for the caller to see to: within the first term.

    Raises:
        NotFound: there is no such request.
        Conflict: the law grants none, the first term is over, it was extended before, or the
            moment is not between the deadline and the longest term.

    """
    case = cases.take(session, request_id)
    request = case.request
    law, clock = _law(case)
    longest = clocks.extended_due_at(law, request.received_at, settings().time_zone)
    if clock is None or longest is None or request.due_at is None:
        words = "No law sets a deadline" if clock is None else f"Not extendable by {clock.source}"
        raise Conflict(f"{words}; there is nothing to extend.")
    longest = clocks.shifted(longest, request.paused_for)
    chosen = longest if until is None else until.astimezone(UTC)
    named = None if until is None else _told(chosen)
    if request.extended_at is not None:
        earlier = decisions.last(session, request_id, DecisionAction.EXTEND)
        if earlier is not None and (earlier.note, earlier.facts["until"]) == (reasons, named):
            return  # sent again, since the answer may have been lost on its way
        raise Conflict(f"The term was extended before, and may be once ({clock.source}).")
    _refuse_if_finished(request)
    at = now()
    # While the clock stands still, the first term does not run out.
    if (request.paused_at or at) > request.due_at:
        raise Conflict(f"The first term is over; notice was due within it ({clock.source}).")
    if not request.due_at < chosen <= longest:
        raise Conflict(
            "`until` lies after the deadline, and no later than the longest term: "
            f"{_told(longest)} ({clock.source})."
        )
    decisions.record(
        session,
        request_id,
        DecisionAction.EXTEND,
        by,
        note=reasons,
        facts={
            "due_at_before": _told(request.due_at),
            "due_at": _told(chosen),
            "until": named,
        },
    )
    request.extended_at, request.due_at = at, chosen
    session.flush()
    _reschedule(session, case)


def pause(
    session: Session, request_id: UUID, by: str, ground: PauseGround, note: str | None
) -> None:
    """Let the clock stand still. What is not forgotten yet waits, and leaves its jobs if it can.

    Raises:
        NotFound: there is no such request.
        Conflict: the law does not let it stand still on this ground, it does on another one, or
            the request is finished.

    """
    case = cases.take(session, request_id)
    request = case.request
    if request.pause_ground == ground:
        return
    law, clock = _law(case)
    if clock is None:
        raise Conflict("No law sets a deadline; there is no clock to stop.")
    if not clocks.may_pause(law, ground):
        raise Conflict(f"The clock runs on, whatever it takes to find out ({clock.source}).")
    if request.pause_ground is not None:
        raise Conflict(f"The clock stands still already, for {request.pause_ground}.")
    _refuse_if_finished(request)
    decisions.record(session, request_id, DecisionAction.PAUSE, by, reason=ground, note=note)
    request.paused_at, request.pause_ground = now(), ground
    session.flush()
    waiting = [e for e in case.erasures if e.status in PAUSABLE and case.may_leave(e)]
    cases.take_out(session, case, waiting, ErasureStatus.PAUSED, {"by": by})
    settle(session, [request_id])


def resume(session: Session, request_id: UUID, by: str) -> None:
    """Let the clock go on; the deadline moves by just the time that it stood still.

    Raises:
        NotFound: there is no such request.
        Conflict: its clock never stood still.

    """
    case = cases.take(session, request_id)
    request = case.request
    if request.paused_at is None:
        if decisions.last(session, request_id, DecisionAction.PAUSE) is not None:
            return
        raise Conflict("The clock does not stand still.")
    before = request.due_at
    at = max(now(), request.paused_at)
    session.execute(
        update(DeletionRequest)
        .where(DeletionRequest.id == request_id)
        .values(ended_pause(at))
        .execution_options(synchronize_session=False)
    )
    session.refresh(request)
    decisions.record(
        session,
        request_id,
        DecisionAction.RESUME,
        by,
        facts={
            "due_at_before": None if before is None else _told(before),
            "due_at": None if request.due_at is None else _told(request.due_at),
        },
    )
    cases.take_out(
        session,
        case,
        [erasure for erasure in case.erasures if erasure.status == ErasureStatus.PAUSED],
        ErasureStatus.PENDING,
        {"by": by},
    )
    _reschedule(session, case)
    settle(session, [request_id])


def _law(case: Case) -> tuple[Regulation | Clock, Clock | None]:
    try:
        law = law_of(Regulation(case.request.regulation))
    except NoCustomClock as error:
        raise Conflict(error.detail) from None
    return law, clocks.clock_of(law)


def _refuse_if_finished(request: DeletionRequest) -> None:
    if request.finished_at is not None:
        raise Conflict(f"The request is {request.status}; its clock has ended.")


def _reschedule(session: Session, case: Case) -> None:
    """Give what is still to be done of a request, and the jobs it is in, the request's deadline."""
    session.execute(
        update(Erasure)
        .where(Erasure.request_id == case.request.id, Erasure.status.in_(OPEN))
        .values(due_at=case.request.due_at)
        .execution_options(synchronize_session=False)
    )
    for job in case.jobs.values():
        job.due_at = session.scalar(
            select(Erasure.due_at)
            .where(Erasure.job_id == job.id, Erasure.due_at.is_not(None))
            .order_by(Erasure.due_at)
            .limit(1)
        )
    session.flush()


def _told(at: datetime) -> str:
    return at.isoformat()
