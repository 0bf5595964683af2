"""The log of deliveries, and sending one of them again."""

from collections.abc import Sequence
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.orm import Session

from app import pages
from app.errors import Conflict, NotFound
from app.tables import Callback, Delivery, DeliveryAttempt, Notice, Recipient, Signer
from app.webhooks import endpoints, replaying

_UNKNOWN = "No delivery has this id."


class DeliveryState(StrEnum):
    """How far a delivery is."""

    OPEN = "open"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


def state_of(row: Delivery) -> DeliveryState:
    """Return how far a delivery is."""
    if row.delivered_at is not None:
        return DeliveryState.DELIVERED
    return DeliveryState.OPEN if row.given_up_at is None else DeliveryState.GIVEN_UP


def browse(
    session: Session,
    only_of: str | None,
    cursor: str | None,
    limit: int,
    *,
    callback_id: UUID | None = None,
    request_id: UUID | None = None,
    state: DeliveryState | None = None,
) -> pages.Page[Delivery]:
    """Return a page of deliveries, newest first; of this client alone, if one is named.

    Raises:
        InvalidCursor: the cursor is not one that an earlier page gave.

    """
    statement: Select[tuple[Delivery]] = select(Delivery)
    if only_of is not None:
        statement = statement.where(Delivery.client == only_of)
    if callback_id is not None:
        statement = statement.where(Delivery.callback_id == callback_id)
    if request_id is not None:
        statement = statement.where(Delivery.request_id == request_id)
    if state is not None:
        statement = statement.where(*_in_state(state))
    at = Delivery.created_at
    return pages.newest_first(
        session, statement, at.expression, Delivery.id.expression, cursor, limit
    )


def find(session: Session, delivery_id: UUID, only_of: str | None) -> Delivery:
    """Return one delivery; of this client alone, if one is named.

    Raises:
        NotFound: there is none of this id, none any more, or it is another client's.

    """
    row = session.get(Delivery, delivery_id)
    if row is None or only_of not in (None, row.client):
        raise NotFound(_UNKNOWN)
    return row


def attempts_of(session: Session, delivery_id: UUID) -> Sequence[DeliveryAttempt]:
    """Return what came of each attempt at a delivery, in order."""
    rows = select(DeliveryAttempt).where(DeliveryAttempt.delivery_id == delivery_id)
    return session.scalars(rows.order_by(DeliveryAttempt.number)).all()


def replay(session: Session, delivery_id: UUID, only_of: str | None) -> Delivery:
    """Send a message again, under its id; one that is still to be sent goes at once.

    Raises:
        NotFound: as for ``find``.
        Conflict: its endpoint is disabled or was removed.

    """
    row = find(session, delivery_id, only_of)
    secret = None
    if row.callback_id is not None:
        require_use(endpoints.hold(session, row.callback_id))
    elif row.signer == Signer.STANDARD_WEBHOOKS:
        secret = _secret_of_recipient(session, row)
    if not replaying.replay(session, Delivery.id == row.id, secret=secret):
        raise NotFound(_UNKNOWN)  # the log has just let go of it
    session.refresh(row)
    return row


def require_use(row: Callback) -> None:
    """Check that a callback is told anything.

    Raises:
        Conflict: it is disabled or was removed.

    """
    if row.removed_at is not None:
        raise Conflict("The callback was removed; nothing is sent to it.")
    if row.disabled_at is not None:
        raise Conflict("The callback is disabled: ping it first.")


def _secret_of_recipient(session: Session, row: Delivery) -> bytes:
    secret = session.scalars(
        select(Recipient.secret)
        .join(Notice, Notice.recipient_id == Recipient.id)
        .where(Notice.id == row.notice_id)
    ).first()
    if secret is None:
        raise Conflict("The recipient was removed; nothing is sent to it.")
    return secret


def _in_state(state: DeliveryState) -> tuple[ColumnElement[bool], ...]:
    if state == DeliveryState.DELIVERED:
        return (Delivery.delivered_at.is_not(None),)
    if state == DeliveryState.GIVEN_UP:
        return (Delivery.given_up_at.is_not(None),)
    return endpoints.is_open()
