"""Deletion requests over HTTP."""

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Request, Response, status
from fastapi.concurrency import run_in_threadpool
from pydantic import StringConstraints
from sqlalchemy.orm import Session

from app import conditional, queue
from app.conditional import IfNoneMatch
from app.crash_points import CrashPoint, reach
from app.db import transaction
from app.deletions import (
    answers,
    cancelling,
    filters,
    intake,
    retrying,
    schemas,
    service,
    submissions,
)
from app.deletions.gathering import Gathering
from app.errors import (
    Conflict,
    IdempotencyKeyReused,
    InvalidCursor,
    NotFound,
    TooLate,
    UnknownModel,
)
from app.problems import responses
from app.security import Reader, Restarter, Submitter, Withdrawer
from app.settings import settings
from app.tables import DeletionRequest
from app.wire import COMMON, WITH_BODY, Cursor, Limit, accepted, retry_after

router = APIRouter(prefix="/v1/deletion-requests", tags=["deletion requests"])

# Samples, in a millisecond or two; more would keep the event loop from other connections.
DIGESTED_AT_ONCE = 1_000

_known_names: dict[UUID, str] = {}

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
    response_model=schemas.DeletionRequestAnswer,
    responses={
        **accepted("/v1/deletion-requests/6f1f0f3e-3f0c-4e0e-9f5b-1d3c8f6c2a11"),
        **responses(*WITH_BODY, UnknownModel, IdempotencyKeyReused, Conflict),
    },
)
async def submit(
    request: Request,
    body: schemas.NewDeletionRequest,
    caller: Submitter,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Ask for samples to be forgotten. When this answers 202, the request is stored for good."""
    id_key = settings().required_id_key()
    key_digest = submissions.key_digest(idempotency_key, id_key) if idempotency_key else None
    submission = body.submission()
    if len(submission.sample_ids) > DIGESTED_AT_ONCE:
        taken_in = await run_in_threadpool(submissions.take_in, submission, id_key)
    else:
        taken_in = submissions.take_in(submission, id_key)
    gathering: Gathering[schemas.DeletionRequestAnswer] = request.app.state.gathering
    answer = await gathering.take(submissions.Asked(caller.name, taken_in, key_digest))
    return Response(
        answer.model_dump_json(by_alias=True),
        status.HTTP_202_ACCEPTED,
        {"Location": f"{router.prefix}/{answer.id}", **retry_after()},
        "application/json",
    )


@router.get("", responses=responses(*COMMON, InvalidCursor))
def browse(
    caller: Reader, wanted: filters.Asked, cursor: Cursor = None, limit: Limit = 50
) -> schemas.DeletionRequestPage:
    """List the deletion requests that the caller may see, newest first or by their deadlines."""
    with transaction() as session:
        page = service.browse(session, wanted, cursor, limit, caller.only_of)
        return schemas.DeletionRequestPage(
            items=_describe(session, list(page.rows)), next_cursor=page.next_cursor
        )


@router.get(
    "/{request_id}",
    response_model=schemas.DeletionRequestAnswer,
    responses={**conditional.described(), **responses(*COMMON, NotFound)},
)
def get(request_id: UUID, caller: Reader, known: IfNoneMatch) -> Response:
    """Say where a request stands."""
    with transaction() as session:
        told = answers.tell(session, [service.get(session, request_id, caller.only_of)])[0]
    waits = None if told.poll_after is None else retry_after(told.poll_after)
    return known.answer(told.answer, waits)


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


def describe_stored(
    session: Session, taken: Sequence[intake.Taken]
) -> list[schemas.DeletionRequestAnswer]:
    """Return what is answered to requests that are stored in this transaction.

    What it made is at hand; there is a look for what it did not: names, repetitions, versions.
    """
    unknown = [one.request for one in taken if not _is_at_hand(one)]
    looked_up = (
        {one.id: one for one in _describe(session, unknown, foresee=False)} if unknown else {}
    )
    names = _names(session, {erasure.model_id for one in taken for erasure in one.erasures})
    return [
        looked_up[one.request.id]
        if one.request.id in looked_up
        else schemas.describe(
            one.request,
            sorted(
                (service.ErasureView(each, names[each.model_id], None) for each in one.erasures),
                key=lambda view: view.model,
            ),
            None,
        )
        for one in taken
    ]


def _names(session: Session, models: Collection[UUID]) -> Mapping[UUID, str]:
    # A model keeps its name, so that it is asked for once by each process.
    new = [model for model in models if model not in _known_names]
    if new:
        _known_names.update(service.model_names(session, new))
    return _known_names


def _is_at_hand(one: intake.Taken) -> bool:
    return (
        one.is_new
        and one.request.model_id is None
        and all(erasure.version_id is None for erasure in one.erasures)
    )


def _describe(
    session: Session, requests: Sequence[DeletionRequest], *, foresee: bool = True
) -> list[schemas.DeletionRequestAnswer]:
    return [told.answer for told in answers.tell(session, requests, foresee=foresee)]
