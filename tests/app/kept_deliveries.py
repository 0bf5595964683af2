"""Messages that are over for a while, and what the log still has of them."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select, update

from app.db import transaction
from app.retention import delivery_log
from app.tables import Delivery, DeliveryAttempt
from app.webhooks.outcomes import Failure
from tests.app.outboxes import claimed, enqueue, record

KEPT = timedelta(days=90)
DAY = timedelta(days=1)
GONE = Failure("status 410", is_final=True)


def age(by: timedelta, *ids: UUID) -> None:
    """Let deliveries, all unless some are named, have been made and ended so much earlier."""
    earlier: dict[str, Any] = {
        name: getattr(Delivery, name) - by for name in ("created_at", "delivered_at", "given_up_at")
    }
    chosen = Delivery.id.in_(ids) if ids else Delivery.id.is_not(None)
    with transaction() as session:
        session.execute(update(Delivery).where(chosen).values(**earlier))


def sent(failure: Failure | None = None) -> UUID:
    """A message that was taken, or given up, a moment ago."""
    id_ = enqueue(9)
    message = claimed()
    assert message.id == id_
    assert record(message, failure).ended
    return id_


def old(number: int) -> list[UUID]:
    """Messages that were kept for their time, the oldest first."""
    ids = [sent() for _ in range(number)]
    for days, id_ in enumerate(reversed(ids), 1):
        age(KEPT + days * DAY, id_)
    return ids


def left() -> set[UUID]:
    """What is in the log, where each message has its one attempt and no attempt lacks its message.

    For messages that were tried once.
    """
    with transaction() as session:
        ids = set(session.scalars(select(Delivery.id)))
        assert ids == set(session.scalars(select(DeliveryAttempt.delivery_id)))
    return ids


def remove() -> int:
    with transaction() as session:
        return delivery_log.remove(session, KEPT)
