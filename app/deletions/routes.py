"""Deletion requests over HTTP."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Response, status
from pydantic import StringConstraints
from sqlalchemy.orm import Session

from app import queue
from app.crash_points import CrashPoint, reach
from app.db import transaction
from app.deletions import cancelling, intake, retrying, schemas, service
from app.errors import (
    Conflict,
    IdempotencyKeyReused,
    InvalidCursor,
    NotFound,
    TooLate,
    UnknownModel,
)
from app.privacy import digest_for
from app.problems import responses
from app.security import Reader, Restarter, Submitter, Withdrawer
from app.settings import settings
from app.statuses import RequestStatus
from app.tables import DeletionRequest
from app.wire import COMMON, WITH_BODY, Cursor, Limit, accepted, retry_after

router = APIRouter(prefix="/v1/deletion-requests", tags=["deletion requests"])

IdempotencyKey = Annotated[
    str | None,
    Header(
        description="A key of your own making. The same key and body give the first answer again.",
        examples=["8e03978e-40d5-43dd-bc93-6894a57f9324"],
    ),
    StringConstraints(min_length=1, max_length=255),
]


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    responses={
        **accepted("/v1/deletion-requests/6f1f0f3e-3f0c-4e0e-9f5b-1d3c8f6c2a11"),
        **responses(*WITH_BODY, UnknownModel, IdempotencyKeyReused, Conflict),
    },
)
def submit(
    body: schemas.NewDeletionRequest,
    caller: Submitter,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> schemas.DeletionRequestAnswer:
    """Ask for samples to be forgotten. When this answers 202, the request is stored for good."""
    id_key = settings().required_id_key()
    taken_in = intake.take_in(
        intake.Submission(
            body.sample_ids, body.model, body.regulation, body.reference, body.reason
        ),
        id_key,
    )
    key_digest = idempotency_key and digest_for(id_key, "idempotency-key", idempotency_key.encode())
    with transaction() as session:
        asked = intake.Asked(caller.name, taken_in, key_digest or None)
        taken = intake.submit(session, asked)
        answer = _describe(session, [taken.request])[0]
        reach(CrashPoint.SUBMIT_BEFORE_COMMIT)
    # Committed: only now may anybody act on it or hear of it.
    reach(CrashPoint.SUBMIT_BEFORE_NUDGE)
    if taken.is_new:
        queue.nudge(queue.PLAN)
    reach(CrashPoint.SUBMIT_BEFORE_ANSWER)
    response.headers["Location"] = f"{router.prefix}/{taken.request.id}"
    response.headers.update(retry_after())
    return answer


@router.get("", responses=responses(*COMMON, InvalidCursor))
def browse(
    caller: Reader,
    status: RequestStatus | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> schemas.DeletionRequestPage:
    """List the deletion requests that the caller may see, newest first."""
    with transaction() as session:
        page = service.browse(session, status, cursor, limit, caller.only_of)
        return schemas.DeletionRequestPage(
            items=_describe(session, list(page.rows)), next_cursor=page.next_cursor
        )


@router.get("/{request_id}", responses=responses(*COMMON, NotFound))
def get(request_id: UUID, caller: Reader, response: Response) -> schemas.DeletionRequestAnswer:
    """Say where a request stands."""
    with transaction() as session:
        answer = _describe(session, [service.get(session, request_id, caller.only_of)])[0]
    if answer.finished_at is None:
        response.headers.update(retry_after())
    return answer


@router.post("/{request_id}/cancel", responses=responses(*COMMON, NotFound, TooLate))
def cancel(request_id: UUID, caller: Withdrawer) -> schemas.CancellationAnswer:
    """Withdraw a request, and say for which models it was too late.

    Those that have forgotten its samples do not get them back. Once more changes nothing.
    """
    with transaction() as session:
        service.get(session, request_id, caller.only_of)
        outcome = cancelling.cancel(session, request_id, caller.name)
        names = service.model_names(session, [*outcome.cancelled, *outcome.too_late])
        answer = schemas.CancellationAnswer(
            request=_describe(session, [service.get(session, request_id)])[0],
            cancelled=sorted(names[model] for model in outcome.cancelled),
            too_late=sorted(names[model] for model in outcome.too_late),
        )
        reach(CrashPoint.CANCEL_BEFORE_COMMIT)
    reach(CrashPoint.CANCEL_AFTER_COMMIT)
    # What is left of its batches can go on at once.
    queue.nudge(queue.SWEEP)
    return answer


@router.post(
    "/{request_id}/retry",
    status_code=status.HTTP_202_ACCEPTED,
    responses={
        **accepted("/v1/deletion-requests/6f1f0f3e-3f0c-4e0e-9f5b-1d3c8f6c2a11"),
        **responses(*COMMON, NotFound, Conflict),
    },
)
def retry(request_id: UUID, caller: Restarter, response: Response) -> schemas.DeletionRequestAnswer:
    """Try again what needs attention, after its cause was seen to."""
    with transaction() as session:
        retrying.retry_request(session, request_id, caller.name)
        answer = _describe(session, [service.get(session, request_id)])[0]
    reach(CrashPoint.RETRY_AFTER_COMMIT)
    queue.nudge(queue.PLAN)
    response.headers["Location"] = f"{router.prefix}/{request_id}"
    response.headers.update(retry_after())
    return answer


def _describe(
    session: Session, requests: list[DeletionRequest]
) -> list[schemas.DeletionRequestAnswer]:
    erasures = service.erasures_of(session, [request.id for request in requests])
    names = service.model_names(
        session, [request.model_id for request in requests if request.model_id is not None]
    )
    return [
        schemas.describe(
            request,
            erasures[request.id],
            None if request.model_id is None else names[request.model_id],
        )
        for request in requests
    ]
