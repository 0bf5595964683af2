"""Messages to the outside, durable with what they report, and sent until taken or given up.

The row is the promise. Whoever sends it claims it for a while by moving ``not_before``: a sender
that dies only makes it late, and no two send it at once. Messages of one lane are sent one after
the other, each when the earlier ones are over.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4, uuid5

import rfc8785
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    LargeBinary,
    Text,
    Uuid,
    bindparam,
    column,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.orm import Session, aliased
from sqlalchemy.types import TypeEngine

from app.tables import Delivery, Signer
from app.webhooks import addresses, endpoints
from app.webhooks.endpoints import is_open

# Longer than an attempt takes, a slow name service included.
CLAIM = timedelta(minutes=2)

_GIVEN: Mapping[str, TypeEngine[Any]] = {
    "id": Uuid(),
    "notice_id": Uuid(),
    "callback_id": Uuid(),
    "request_id": Uuid(),
    "client": Text(),
    "lane": Uuid(),
    "signer": Text(),
    "url": Text(),
    "host": Text(),
    "secret": LargeBinary(),
    "event": Text(),
    "payload": Text(),
}


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message that is to be sent once the caller's transaction commits."""

    url: str = field(repr=False)
    """Where to; what ``addresses.parse`` took when it was given."""
    event: str
    payload: str = field(repr=False)
    """The body, exactly as it is sent and signed; never with a sample ID."""
    signer: Signer = Signer.STANDARD_WEBHOOKS
    """Which of the ways in ``app.webhooks.signers`` makes the headers, at each attempt anew."""
    secret: bytes | None = field(default=None, repr=False)
    """For the signer, if it needs one and the message is not a callback's, which has its own."""
    notice_id: UUID | None = None
    callback_id: UUID | None = None
    request_id: UUID | None = None
    client: str | None = None
    """Who sees it in the log of deliveries; the operator alone without one."""
    lane: UUID | None = None
    """Sent after the earlier ones of its lane; see ``lane_of``."""


@dataclass(frozen=True, slots=True)
class Message:
    """One attempt at a delivery, claimed; it holds no database rows."""

    id: UUID
    attempt: int
    """From 1. A later claim has a higher one, and this one's outcome counts no more."""
    earlier_attempts: int
    """Those before the last replay, with which the pauses began anew."""
    url: str = field(repr=False)
    host: str
    signer: Signer
    secrets: Sequence[bytes] = field(repr=False)
    event: str
    body: bytes = field(repr=False)
    callback_id: UUID | None
    lane: UUID | None
    position: int


def lane_of(endpoint: UUID | str, request_id: UUID) -> UUID:
    """Return the lane of what one endpoint, by its id or address, is told of one request."""
    return uuid5(request_id, str(endpoint))


def envelope(event: str, at: datetime, data: Mapping[str, Any]) -> str:
    """Return the body of a message as Standard Webhooks has it.

    Args:
        event: what happened, such as `version.withdrawn`.
        at: when it happened.
        data: ids, digests and numbers, never a sample ID.

    """
    return rfc8785.dumps({"type": event, "timestamp": iso(at), "data": dict(data)}).decode()


def iso(at: datetime) -> str:
    """Return a time as it stands in a body."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def enqueue(
    session: Session,
    url: str,
    secret: bytes,
    event: str,
    at: datetime,
    data: Mapping[str, Any],
    notice_id: UUID | None = None,
) -> UUID:
    """Have a Standard Webhook sent once the caller's transaction commits; return its id.

    Args:
        session: of the caller.
        url: where to; what ``addresses.parse`` took when it was given.
        secret: signs it; see ``app.webhooks.signing``.
        event: what happened, such as `version.withdrawn`.
        at: when it happened.
        data: ids, digests and numbers, never a sample ID.
        notice_id: what the message tells of, if that is to be acknowledged.

    """
    payload = envelope(event, at, data)
    message = Outgoing(url, event, payload, secret=secret, notice_id=notice_id)
    return enqueue_all(session, [message])[0]


def enqueue_all(session: Session, messages: Sequence[Outgoing]) -> list[UUID]:
    """Have messages sent once the caller's transaction commits, in one statement; return their ids.

    A facade with a signature of its own gives its `signer`, the finished `payload`, the request's
    `client`, and `lane_of(url, request_id)`, and adds its way of signing to
    ``app.webhooks.signers``. All else (pauses, order, addresses, the log) is as for callbacks.
    """
    if not messages:
        return []
    rows = [
        {
            **{name: getattr(message, name) for name in _GIVEN.keys() - {"id", "host"}},
            "id": uuid4(),
            "host": addresses.host_of(message.url),
        }
        for message in messages
    ]
    given = _unnested(rows)
    into = insert(Delivery).from_select(
        [*_GIVEN, "attempts", "earlier_attempts", "not_before", "created_at"],
        select(
            *(given.c[name] for name in _GIVEN),
            literal(0),
            literal(0),
            # Behind one that failed, it has to wait anyway, and out of everybody's way.
            func.coalesce(_pause_in_lane(given.c.lane), func.clock_timestamp()),
            func.clock_timestamp(),
        ).order_by(given.c.place),
        include_defaults=False,
    )
    session.execute(into)
    return [row["id"] for row in rows]


def give_up(session: Session, notice_ids: Collection[UUID], problem: str) -> None:
    """End the deliveries of these notices that are not over."""
    endpoints.give_up(session, problem, Delivery.notice_id.in_(notice_ids))


def count_due(session: Session, most: int) -> int:
    """Return how many messages can be sent now, counted up to this many."""
    some = select(Delivery.id).where(*_due()).limit(most).subquery()
    return session.scalar(select(func.count()).select_from(some)) or 0


def claim(session: Session, busy: Collection[str]) -> Message | None:
    """Take the message that has waited longest, for none of these hosts; None without one."""
    while True:
        oldest = (
            select(Delivery.id)
            .where(*_due(), Delivery.host.not_in(busy))
            .order_by(Delivery.not_before)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        row = session.scalars(
            update(Delivery)
            .where(Delivery.id == oldest)
            .values(attempts=Delivery.attempts + 1, not_before=func.clock_timestamp() + CLAIM)
            .returning(Delivery)
            .execution_options(populate_existing=True, synchronize_session=False)
        ).one_or_none()
        if row is None:
            return None
        secrets = endpoints.secrets_of(session, row)
        if secrets is not None:
            return _message(row, secrets)


def _message(row: Delivery, secrets: Sequence[bytes]) -> Message:
    return Message(
        id=row.id,
        attempt=row.attempts,
        earlier_attempts=row.earlier_attempts,
        url=row.url,
        host=row.host,
        signer=Signer(row.signer),
        secrets=secrets,
        event=row.event,
        body=row.payload.encode(),
        callback_id=row.callback_id,
        lane=row.lane,
        position=row.position,
    )


def _unnested(rows: Sequence[Mapping[str, Any]]) -> Any:
    # An array for each column is one parameter, however many rows there are.
    arrays = [
        bindparam(f"all_{name}", [row[name] for row in rows], ARRAY(type_))
        for name, type_ in _GIVEN.items()
    ]
    columns = [column(name, type_) for name, type_ in _GIVEN.items()]
    return func.unnest(*arrays).table_valued(*columns, with_ordinality="place").render_derived()


def _pause_in_lane(lane: ColumnElement[UUID]) -> Any:
    earlier = aliased(Delivery)
    return (
        select(func.max(earlier.not_before))
        .where(earlier.lane == lane, *is_open(earlier), earlier.problem.is_not(None))
        .scalar_subquery()
    )


def _due() -> tuple[ColumnElement[bool], ...]:
    earlier = aliased(Delivery)
    waits = select(earlier.id).where(
        earlier.lane == Delivery.lane, earlier.position < Delivery.position, *is_open(earlier)
    )
    return (*is_open(), Delivery.not_before <= func.clock_timestamp(), ~waits.exists())
