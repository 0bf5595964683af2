"""Tell clients how their requests fare, in the transaction in which they move.

A client without callbacks costs one look at an index in each transaction that moves requests. It
is not remembered for longer: another process may have registered a callback a moment ago.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from app.callbacks.events import event_of
from app.tables import Callback, DeletionRequest
from app.webhooks import outbox
from app.webhooks.outbox import Outgoing

Announcer = Callable[[Session, Sequence[DeletionRequest]], None]

Endpoint = Row[str, UUID, str, list[str] | None, datetime]

REQUESTS = "/v1/deletion-requests"

# Under which a session keeps the clients that have none, which is for its one transaction.
_WITHOUT = "clients without callbacks"

_others: list[Announcer] = []


def add(announcer: Announcer) -> None:
    """Have somebody else told, too, who then enqueues messages in the caller's transaction.

    For facades above the lifecycle. Each process that moves requests has to import who does so:
    the API by its routes, and the workers' tasks.
    """
    if announcer not in _others:
        _others.append(announcer)


def announce(session: Session, requests: Sequence[DeletionRequest]) -> None:
    """Have the status of requests, which the caller's transaction changed, told to their clients.

    Each endpoint is told of one request's changes in their order; see ``outbox.lane_of``.
    """
    endpoints = _endpoints(session, {request.client for request in requests})
    if endpoints:
        outbox.enqueue_all(
            session, [message for request in requests for message in _messages(request, endpoints)]
        )
    for other in _others:
        other(session, requests)


def _endpoints(session: Session, clients: set[str]) -> Sequence[Endpoint]:
    without: set[str] = session.info.setdefault(_WITHOUT, set())
    asked = clients - without
    if not asked:
        return []
    found = session.execute(
        # The database's clock, since those who move a request have clocks of their own.
        select(
            Callback.client, Callback.id, Callback.url, Callback.events, func.clock_timestamp()
        ).where(
            Callback.client.in_(asked),
            Callback.removed_at.is_(None),
            Callback.disabled_at.is_(None),
        )
    ).all()
    without |= asked - {client for client, *_ in found}
    return found


def _messages(request: DeletionRequest, endpoints: Sequence[Endpoint]) -> list[Outgoing]:
    event, at = event_of(request.status), endpoints[0][4]
    payload = outbox.envelope(event, at, _told(request))
    return [
        Outgoing(
            url,
            event,
            payload,
            callback_id=callback_id,
            request_id=request.id,
            client=client,
            lane=outbox.lane_of(callback_id, request.id),
        )
        for client, callback_id, url, events, _ in endpoints
        if client == request.client and (events is None or event in events)
    ]


def _told(request: DeletionRequest) -> dict[str, object]:
    return {
        "id": str(request.id),
        "status": request.status,
        "reference": request.reference,
        "sample_count": request.sample_count,
        "due_at": request.due_at and outbox.iso(request.due_at),
        "finished_at": request.finished_at and outbox.iso(request.finished_at),
        # What became of it in each model is there.
        "request": f"{REQUESTS}/{request.id}",
    }
