"""Callbacks of clients and the log of deliveries, over HTTP."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response, status

from app import queue
from app.callbacks import deliveries, schemas, service
from app.callbacks.deliveries import DeliveryState
from app.db import transaction
from app.errors import AddressRefused, Conflict, InvalidCursor, NotFound
from app.problems import responses
from app.security import Subscriber
from app.wire import COMMON, WITH_BODY, Cursor, Limit

CALLBACKS = "/v1/callbacks"
DELIVERIES = "/v1/deliveries"
_EXAMPLE = "6f1f0f3e-3f0c-4e0e-9f5b-1d3c8f6c2a11"

router = APIRouter(tags=["callbacks"])

OfCallback = Annotated[UUID | None, Query(description="To this callback alone.")]
OfRequest = Annotated[UUID | None, Query(description="About this deletion request alone.")]
InState = Annotated[DeliveryState | None, Query(description="This far alone.")]

_CREATED = {
    "headers": {"Location": {"schema": {"type": "string"}, "example": f"{CALLBACKS}/{_EXAMPLE}"}}
}
_SENT = {
    "description": "Stored; it is sent in a moment.",
    "headers": {"Location": {"schema": {"type": "string"}, "example": f"{DELIVERIES}/{_EXAMPLE}"}},
}


@router.post(
    CALLBACKS,
    status_code=status.HTTP_201_CREATED,
    responses={
        201: {"description": "Told of every change from now on.", **_CREATED},
        **responses(*WITH_BODY, Conflict, AddressRefused),
    },
)
def register(
    body: schemas.NewCallback, caller: Subscriber, response: Response
) -> schemas.CallbackWithSecret:
    """Have an endpoint told how the caller's requests fare. The answer has its secret, this once.

    A change that is under way in the same moment may be missed: read the requests once after this.
    """
    with transaction() as session:
        chosen = None if body.events is None else sorted(set(body.events))
        row = service.register(session, caller.name, body.url, chosen)
    response.headers["Location"] = f"{CALLBACKS}/{row.id}"
    response.headers["Cache-Control"] = "no-store"
    return schemas.describe_with_secret(row)


@router.get(CALLBACKS, responses=responses(*COMMON, InvalidCursor))
def browse(caller: Subscriber, cursor: Cursor = None, limit: Limit = 50) -> schemas.CallbackPage:
    """List the callbacks that the caller may see, newest first."""
    with transaction() as session:
        page = service.browse(session, caller.only_of, cursor, limit)
    return schemas.CallbackPage(
        items=[schemas.describe(row) for row in page.rows], next_cursor=page.next_cursor
    )


@router.get(CALLBACKS + "/{callback_id}", responses=responses(*COMMON, NotFound))
def get(callback_id: UUID, caller: Subscriber) -> schemas.CallbackAnswer:
    """Return one callback, and whether it is disabled."""
    with transaction() as session:
        return schemas.describe(service.find(session, callback_id, caller.only_of))


@router.delete(
    CALLBACKS + "/{callback_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=responses(*COMMON, NotFound),
)
def remove(callback_id: UUID, caller: Subscriber) -> None:
    """Tell an endpoint nothing more. What was on its way is given up; its log stays for a while."""
    with transaction() as session:
        service.remove(session, callback_id, caller.only_of, caller.name)


@router.post(
    CALLBACKS + "/{callback_id}/rotate",
    status_code=status.HTTP_201_CREATED,
    responses={
        201: {"description": "Signed by the new secret, for a day by the former one, too."},
        **responses(*COMMON, NotFound),
    },
)
def rotate(callback_id: UUID, caller: Subscriber, response: Response) -> schemas.CallbackWithSecret:
    """Make a new secret, shown this once. For 24 hours each message is signed by both."""
    with transaction() as session:
        row = service.rotate(session, callback_id, caller.only_of, caller.name)
    response.headers["Cache-Control"] = "no-store"
    return schemas.describe_with_secret(row)


@router.post(
    CALLBACKS + "/{callback_id}/ping",
    status_code=status.HTTP_202_ACCEPTED,
    responses={202: _SENT, **responses(*COMMON, NotFound)},
)
def ping(callback_id: UUID, caller: Subscriber, response: Response) -> schemas.LoggedDelivery:
    """Send an event `ping`. An endpoint that was disabled is told of later changes again."""
    with transaction() as session:
        row = service.ping(session, callback_id, caller.only_of)
    queue.nudge(queue.DELIVER)
    response.headers["Location"] = f"{DELIVERIES}/{row.id}"
    return schemas.describe_delivery(row)


@router.post(
    CALLBACKS + "/{callback_id}/replay",
    status_code=status.HTTP_202_ACCEPTED,
    responses={
        202: {"description": "Stored; they are sent one after the other."},
        **responses(*WITH_BODY, NotFound, Conflict),
    },
)
def replay_given_up(
    callback_id: UUID, body: schemas.Replay, caller: Subscriber
) -> schemas.Replayed:
    """Send an endpoint again what was given up since a moment."""
    with transaction() as session:
        number = service.replay_given_up(session, callback_id, caller.only_of, body.since)
    queue.nudge(queue.DELIVER)
    return schemas.Replayed(deliveries=number)


@router.get(DELIVERIES, responses=responses(*COMMON, InvalidCursor))
def browse_deliveries(
    caller: Subscriber,
    callback: OfCallback = None,
    request: OfRequest = None,
    state: InState = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> schemas.DeliveryPage:
    """List the messages that the caller may see, newest first; notices are the operator's."""
    with transaction() as session:
        page = deliveries.browse(
            session,
            caller.only_of,
            cursor,
            limit,
            callback_id=callback,
            request_id=request,
            state=state,
        )
    return schemas.DeliveryPage(
        items=[schemas.describe_delivery(row) for row in page.rows], next_cursor=page.next_cursor
    )


@router.get(DELIVERIES + "/{delivery_id}", responses=responses(*COMMON, NotFound))
def get_delivery(delivery_id: UUID, caller: Subscriber) -> schemas.DeliveryWithAttempts:
    """Return one message and what came of each attempt at it."""
    with transaction() as session:
        row = deliveries.find(session, delivery_id, caller.only_of)
        return schemas.describe_in_full(row, deliveries.attempts_of(session, row.id))


@router.post(
    DELIVERIES + "/{delivery_id}/replay",
    status_code=status.HTTP_202_ACCEPTED,
    responses={202: _SENT, **responses(*COMMON, NotFound, Conflict)},
)
def replay(delivery_id: UUID, caller: Subscriber, response: Response) -> schemas.LoggedDelivery:
    """Send a message again, under its id and with a new timestamp, whatever came of it before."""
    with transaction() as session:
        row = deliveries.replay(session, delivery_id, caller.only_of)
    queue.nudge(queue.DELIVER)
    response.headers["Location"] = f"{DELIVERIES}/{row.id}"
    return schemas.describe_delivery(row)
