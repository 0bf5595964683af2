"""Decisions about deletion requests over HTTP."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from fastapi import APIRouter
from sqlalchemy.orm import Session

from app import queue
from app.db import transaction
from app.deletions import answers, cancelling, decisions, reviewing, service, timekeeping
from app.deletions import decision_schemas as schemas
from app.deletions.schemas import DeletionRequestAnswer, RejectionAnswer
from app.errors import Conflict, InvalidCursor, NotFound, TooLate
from app.problems import responses
from app.security import Decider, Reader
from app.wire import COMMON, WITH_BODY, Cursor, Limit

router = APIRouter(prefix="/v1/deletion-requests", tags=["deletion requests"])

_BARE: dict[int | str, dict[str, Any]] = responses(*COMMON, NotFound, Conflict)
_WITH_BODY: dict[int | str, dict[str, Any]] = responses(*WITH_BODY, NotFound, Conflict)


@router.get("/{request_id}/decisions", responses=responses(*COMMON, NotFound, InvalidCursor))
def browse(
    request_id: UUID, caller: Reader, cursor: Cursor = None, limit: Limit = 50
) -> schemas.DecisionPage:
    """List who decided what about a request, newest first."""
    with transaction() as session:
        service.get(session, request_id, caller.only_of)
        page = decisions.browse(session, request_id, cursor, limit)
        return schemas.DecisionPage(
            items=[schemas.describe(row) for row in page.rows], next_cursor=page.next_cursor
        )


@router.post("/{request_id}/approve", responses=_WITH_BODY)
def approve(
    request_id: UUID, caller: Decider, body: schemas.Remark | None = None
) -> DeletionRequestAnswer:
    """Let a request go on that is held for a review. Once more changes nothing."""
    note = None if body is None else body.note
    return _decide(
        request_id, lambda session: reviewing.approve(session, request_id, caller.name, note)
    )


@router.post("/{request_id}/reject", responses=responses(*WITH_BODY, NotFound, Conflict, TooLate))
def reject(request_id: UUID, caller: Decider, body: schemas.Rejection) -> RejectionAnswer:
    """Reject a request with a reason, and say for which models it was too late.

    Once more, for the same reason, rejects what could not be taken out of a job before.
    """
    with transaction() as session:
        outcome = cancelling.reject(session, request_id, caller.name, body.reason, body.note)
        names = service.model_names(session, [*outcome.cancelled, *outcome.too_late])
        answer = RejectionAnswer(
            request=_answer(session, request_id),
            rejected=sorted(names[model] for model in outcome.cancelled),
            too_late=sorted(names[model] for model in outcome.too_late),
        )
    queue.nudge(queue.SWEEP)
    return answer


@router.post("/{request_id}/reopen", responses=_WITH_BODY)
def reopen(
    request_id: UUID, caller: Decider, body: schemas.Remark | None = None
) -> DeletionRequestAnswer:
    """Take up again a request that was rejected or withdrawn; its deadline stays where it was."""
    note = None if body is None else body.note
    return _decide(
        request_id, lambda session: reviewing.reopen(session, request_id, caller.name, note)
    )


@router.post("/{request_id}/extend", responses=_WITH_BODY)
def extend(request_id: UUID, caller: Decider, body: schemas.Extension) -> DeletionRequestAnswer:
    """Extend the term as far as the law allows, once and within the first term.

    Lethe tells nobody: that the person is told in time, and why, is up to you.
    """
    return _decide(
        request_id,
        lambda session: timekeeping.extend(
            session, request_id, caller.name, body.reasons, body.until
        ),
    )


@router.post("/{request_id}/pause", responses=_WITH_BODY)
def pause(request_id: UUID, caller: Decider, body: schemas.Pause) -> DeletionRequestAnswer:
    """Let the clock stand still, where the law does; until it goes on nothing is forgotten."""
    return _decide(
        request_id,
        lambda session: timekeeping.pause(session, request_id, caller.name, body.ground, body.note),
    )


@router.post("/{request_id}/resume", responses=_BARE)
def resume(request_id: UUID, caller: Decider) -> DeletionRequestAnswer:
    """Let the clock go on; the deadline moves by just the time that it stood still."""
    return _decide(request_id, lambda session: timekeeping.resume(session, request_id, caller.name))


@router.post("/{request_id}/confirm", responses=_BARE)
def confirm(request_id: UUID, caller: Decider) -> DeletionRequestAnswer:
    """Note that whoever asked was told that the request came, as the CCPA wants it."""
    return _decide(
        request_id, lambda session: timekeeping.confirm(session, request_id, caller.name)
    )


def _decide(request_id: UUID, act: Callable[[Session], None]) -> DeletionRequestAnswer:
    with transaction() as session:
        act(session)
        answer = _answer(session, request_id)
    # What waited for the decision may be due by now, and what is left of a job can go on.
    queue.nudge(queue.PLAN)
    queue.nudge(queue.SWEEP)
    return answer


def _answer(session: Session, request_id: UUID) -> DeletionRequestAnswer:
    return answers.tell(session, [service.get(session, request_id)])[0].answer
