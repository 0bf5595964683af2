"""Register the endpoints of clients, change their secrets, and try them."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from app import pages
from app.audit import ledger
from app.callbacks import deliveries
from app.callbacks.events import PING, Event
from app.db import clock, lock, now
from app.errors import Conflict, NotFound
from app.settings import settings
from app.tables import Callback, Delivery
from app.webhooks import addresses, endpoints, outbox, replaying, signing
from app.webhooks.outbox import Outgoing

# Each is asked for at each change of a request, and told of it.
MOST = 20
# How long a receiver has for learning its new secret.
OVERLAP = timedelta(hours=24)


def register(session: Session, client: str, url: str, events: Sequence[Event] | None) -> Callback:
    """Tell an endpoint of every change of the client's requests from now on, or of some kinds.

    Raises:
        AddressRefused: no message is sent to such an address.
        Conflict: the client has as many callbacks as one may have.

    """
    addresses.parse(
        url,
        plain_http=settings().mode == "embedded",
        allowed=settings().webhook_private_networks or (),
    )
    lock(session, f"callbacks/{client}")
    held = select(func.count()).where(Callback.client == client, Callback.removed_at.is_(None))
    if (session.scalar(held) or 0) >= MOST:
        raise Conflict(f"A client has {MOST} callbacks at most: remove one first.")
    row = Callback(
        client=client, url=url, events=events and list(events), secret=signing.new_secret()
    )
    session.add(row)
    session.flush()
    _report(session, "callback.registered", row, client)
    return row


def find(session: Session, callback_id: UUID, only_of: str | None) -> Callback:
    """Return one callback; of this client alone, if one is named.

    Raises:
        NotFound: there is none of this id, it was removed, or it is another client's.

    """
    row = session.get(Callback, callback_id)
    if row is None or row.removed_at is not None or only_of not in (None, row.client):
        raise NotFound("No callback has this id.")
    return row


def browse(
    session: Session, only_of: str | None, cursor: str | None, limit: int
) -> pages.Page[Callback]:
    """Return a page of callbacks, newest first; of this client alone, if one is named.

    Raises:
        InvalidCursor: the cursor is not one that an earlier page gave.

    """
    statement: Select[tuple[Callback]] = select(Callback)
    statement = statement.where(Callback.removed_at.is_(None))
    if only_of is not None:
        statement = statement.where(Callback.client == only_of)
    at = Callback.created_at
    return pages.newest_first(
        session, statement, at.expression, Callback.id.expression, cursor, limit
    )


def remove(session: Session, callback_id: UUID, only_of: str | None, by: str) -> None:
    """Tell an endpoint nothing more; what was on its way is given up.

    Raises:
        NotFound: as for ``find``.

    """
    row = _hold(session, callback_id, only_of)
    session.execute(
        update(Callback)
        .where(Callback.id == row.id)
        .values(removed_at=now(), secret=None, former_secret=None, former_until=None)
    )
    endpoints.give_up(session, endpoints.REMOVED, Delivery.callback_id == row.id)
    _report(session, "callback.removed", row, by)


def rotate(session: Session, callback_id: UUID, only_of: str | None, by: str) -> Callback:
    """Sign with a new secret from now on, and beside it with the former one for a while.

    Raises:
        NotFound: as for ``find``.

    """
    row = _hold(session, callback_id, only_of)
    row.former_secret, row.former_until = row.secret, clock(session) + OVERLAP
    row.secret = signing.new_secret()
    session.flush()
    _report(session, "callback.rotated", row, by)
    return row


def ping(session: Session, callback_id: UUID, only_of: str | None) -> Delivery:
    """Send an endpoint a message about nothing; one that was disabled is told everything again.

    Raises:
        NotFound: as for ``find``.

    """
    row = _hold(session, callback_id, only_of)
    row.disabled_at = row.disabled_because = None
    session.flush()
    payload = outbox.envelope(PING, clock(session), {"callback": str(row.id)})
    message = Outgoing(row.url, PING, payload, callback_id=row.id, client=row.client)
    (id_,) = outbox.enqueue_all(session, [message])
    return session.get_one(Delivery, id_)


def replay_given_up(
    session: Session, callback_id: UUID, only_of: str | None, since: datetime
) -> int:
    """Send an endpoint again what was promised since then and given up; return how many.

    Raises:
        NotFound: as for ``find``.
        Conflict: the endpoint is disabled.

    """
    row = find(session, callback_id, only_of)
    deliveries.require_use(endpoints.hold(session, row.id))
    return replaying.replay(
        session,
        Delivery.callback_id == row.id,
        Delivery.created_at >= since,
        Delivery.given_up_at.is_not(None),
    )


def _hold(session: Session, callback_id: UUID, only_of: str | None) -> Callback:
    find(session, callback_id, only_of)
    row = endpoints.hold(session, callback_id)
    # Somebody may have removed it meanwhile.
    return find(session, row.id, only_of)


def _report(session: Session, event: str, row: Callback, by: str) -> None:
    # Not its address, which may hold a token; and the log forgets nothing.
    ledger.append(session, [ledger.Entry(event, row.id, {"client": row.client, "by": by})])
