"""Messages to the outside, durable with what they report, and sent until taken or given up.

The row is the promise. Whoever sends it claims it for a while by moving ``not_before``: a sender
that dies only makes it late, and no two send it at once.
"""

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import rfc8785
from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from app.tables import Delivery
from app.webhooks import addresses

# Longer than an attempt takes, a slow name service included.
CLAIM = timedelta(minutes=2)

# The pauses after failed attempts; jitter makes them up to a fifth longer, about three days in all.
PAUSES = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    *4 * (timedelta(hours=12),),
)
JITTER = 0.2


@dataclass(frozen=True, slots=True)
class Message:
    """One attempt at a delivery, claimed; it holds no database rows."""

    id: UUID
    attempt: int
    """From 1. A later claim has a higher one, and this one's outcome counts no more."""
    url: str
    host: str
    secret: bytes = field(repr=False)
    event: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a message was not taken."""

    problem: str
    """A status, or the kind of the error; never what was answered."""
    is_final: bool = False
    """Whether the receiver said that it wants no more."""
    retry_after: timedelta | None = None
    """How long the receiver wants to be left alone."""


def enqueue(
    session: Session,
    url: str,
    secret: bytes,
    event: str,
    at: datetime,
    data: Mapping[str, Any],
    notice_id: UUID | None = None,
) -> Delivery:
    """Have a message sent once the caller's transaction commits.

    Args:
        session: of the caller.
        url: where to; what ``addresses.parse`` took when it was given.
        secret: signs it; see ``app.webhooks.signing``.
        event: what happened, such as `version.withdrawn`.
        at: when it happened.
        data: ids, digests and numbers, never a sample ID.
        notice_id: what the message tells of, if that is to be acknowledged.

    """
    timestamp = at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    payload = rfc8785.dumps({"type": event, "timestamp": timestamp, "data": dict(data)})
    row = Delivery(
        notice_id=notice_id,
        url=url,
        host=addresses.host_of(url),
        secret=secret,
        event=event,
        payload=payload.decode(),
    )
    session.add(row)
    session.flush()
    return row


def count_due(session: Session, most: int) -> int:
    """Return how many messages wait to be sent, counted up to this many."""
    some = select(Delivery.id).where(*_due()).limit(most).subquery()
    return session.scalar(select(func.count()).select_from(some)) or 0


def claim(session: Session, busy: Collection[str]) -> Message | None:
    """Take the message that has waited longest, for none of these hosts; None without one."""
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
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None or row.secret is None:
        return None
    return Message(
        row.id, row.attempts, row.url, row.host, row.secret, row.event, row.payload.encode()
    )


def record(session: Session, message: Message, failure: Failure | None) -> bool:
    """Note what came of an attempt; return whether that was the end of the delivery.

    Nothing is noted for a claim that another one followed, nor for a delivery that has ended.
    """
    ended = failure is None or failure.is_final or message.attempt > len(PAUSES)
    values: dict[str, Any] = {"problem": None if failure is None else failure.problem}
    if failure is None:
        values["delivered_at"] = func.clock_timestamp()
    elif ended:
        values["given_up_at"] = func.clock_timestamp()
    else:
        values["not_before"] = func.clock_timestamp() + pause(message.attempt, failure.retry_after)
    if ended:
        values["secret"] = None
    session.execute(
        update(Delivery)
        .where(Delivery.id == message.id, Delivery.attempts == message.attempt, *_open())
        .values(**values)
        .execution_options(synchronize_session=False)
    )
    return ended


def give_up(session: Session, notice_ids: Collection[UUID], problem: str) -> None:
    """End the deliveries of these notices that are not over."""
    session.execute(
        update(Delivery)
        .where(Delivery.notice_id.in_(notice_ids), *_open())
        .values(given_up_at=func.clock_timestamp(), secret=None, problem=problem)
        .execution_options(synchronize_session=False)
    )


def pause(attempt: int, retry_after: timedelta | None = None) -> timedelta:
    """Return how long to wait after a failed attempt, counted from 1, that is not the last."""
    # Jitter, so that those who failed together do not come back together.
    chosen = PAUSES[attempt - 1] * (1 + JITTER * secrets.SystemRandom().random())
    return max(chosen, retry_after or timedelta(0))


def _open() -> tuple[ColumnElement[bool], ...]:
    return (Delivery.delivered_at.is_(None), Delivery.given_up_at.is_(None))


def _due() -> tuple[ColumnElement[bool], ...]:
    return (*_open(), Delivery.not_before <= func.clock_timestamp())
