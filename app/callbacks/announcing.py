"""Tell clients how their requests fare, in the transaction in which they move.

A client without callbacks costs one look at an index in each transaction that moves requests. It
is not remembered for longer: another process may have registered a callback a moment ago.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy.orm import Session

from app.callbacks.events import event_of
from app.statements import Row, Statement, ask
from app.tables import DeletionRequest
from app.webhooks import outbox
from app.webhooks.outbox import Outgoing

Announcer = Callable[[Session, Sequence[DeletionRequest]], None]

# The database's clock, since those who move a request have clocks of their own.
_LOOK = """
    SELECT client, id, url, events, clock_timestamp() FROM callbacks
    WHERE client = ANY(%(clients)s::text[]) AND removed_at IS NULL AND disabled_at IS NULL
"""

REQUESTS = "/v1/deletion-requests"

# Under which a session keeps the clients that have none, which is for its one transaction.
_WITHOUT = "clients without callbacks"

_others: list[Announcer] = []


class Endpoint(NamedTuple):
    """Where a client is told, and of which events; None for all of them."""

    client: str
    id: UUID
    url: str
    events: list[str] | None
    at: datetime


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
    outbox.enqueue_all(
        session, messages(requests, _endpoints(session, {request.client for request in requests}))
    )
    for other in _others:
        other(session, requests)


def look(clients: Collection[str]) -> Statement:
    """Return the statement that finds the endpoints of clients."""
    return Statement(_LOOK, {"clients": sorted(clients)})


def read(rows: Iterable[Row]) -> list[Endpoint]:
    """Return what was found."""
    return [Endpoint(*row) for row in rows]


def messages(requests: Iterable[DeletionRequest], endpoints: Sequence[Endpoint]) -> list[Outgoing]:
    """Return what endpoints are told of where requests stand.

    By itself it is for requests that are yet to be inserted: no facade can know of them.
    """
    if not endpoints:
        return []
    return [message for request in requests for message in _messages(request, endpoints)]


def _endpoints(session: Session, clients: set[str]) -> list[Endpoint]:
    without: set[str] = session.info.setdefault(_WITHOUT, set())
    asked = clients - without
    if not asked:
        return []
    found = read(ask(session, look(asked))[0])
    without |= asked - {each.client for each in found}
    return found


def _messages(request: DeletionRequest, endpoints: Sequence[Endpoint]) -> list[Outgoing]:
    event, at = event_of(request.status), endpoints[0].at
    payload = outbox.envelope(event, at, _told(request))
    return [
        Outgoing(
            each.url,
            event,
            payload,
            callback_id=each.id,
            request_id=request.id,
            client=each.client,
            lane=outbox.lane_of(each.id, request.id),
        )
        for each in endpoints
        if each.client == request.client and (each.events is None or event in each.events)
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
