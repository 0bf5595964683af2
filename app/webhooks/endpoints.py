"""Which endpoints are told anything: with what their messages are signed, and when that ends."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, exists, func, select, update
from sqlalchemy.orm import Session

from app.tables import Callback, Delivery

REMOVED = "the callback was removed"
DISABLED = "the callback is disabled"


def is_open(of: Any = Delivery) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions under which a delivery is neither taken nor given up."""
    return (of.delivered_at.is_(None), of.given_up_at.is_(None))


def hold(session: Session, callback_id: UUID) -> Callback:
    """Return an endpoint that nobody else disables, enables or removes until the commit.

    Before any of its deliveries is touched, so that two who end several of them do not deadlock.
    """
    return session.scalars(
        select(Callback)
        .where(Callback.id == callback_id)
        # Not its key: new deliveries refer to it, and need not wait.
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).one()


def secrets_of(session: Session, row: Delivery) -> Sequence[bytes] | None:
    """Return what signs a delivery, the newest first; None after giving it up for want of a use."""
    if row.callback_id is None:
        return [] if row.secret is None else [row.secret]
    callback, overlaps = session.execute(
        select(Callback, Callback.former_until > func.clock_timestamp())
        .where(Callback.id == row.callback_id)
        .execution_options(populate_existing=True)
    ).one()
    if callback.removed_at is not None or callback.disabled_at is not None:
        # Promised while that happened. It was no attempt.
        row.attempts -= 1
        session.flush()
        give_up(session, REMOVED if callback.removed_at else DISABLED, Delivery.id == row.id)
        return None
    if overlaps is False:
        forget_former_secret(session, callback.id)
    return [
        secret
        for secret in (callback.secret, callback.former_secret if overlaps else None)
        if secret
    ]


def forget_former_secret(session: Session, callback_id: UUID) -> None:
    """Remove the secret before the last rotation, if its time is over."""
    session.execute(
        update(Callback)
        .where(Callback.id == callback_id, Callback.former_until <= func.clock_timestamp())
        .values(former_secret=None, former_until=None)
        .execution_options(synchronize_session=False)
    )


def give_up(session: Session, problem: str, *conditions: ColumnElement[bool]) -> None:
    """End those deliveries that are not over."""
    session.execute(
        update(Delivery)
        .where(*conditions, *is_open())
        .values(given_up_at=func.clock_timestamp(), secret=None, problem=problem)
        .execution_options(synchronize_session=False)
    )


def disable(session: Session, callback_id: UUID, because: str) -> None:
    """Tell an endpoint nothing more, until its client asks for that; the caller holds it."""
    session.execute(
        update(Callback)
        .where(Callback.id == callback_id)
        .values(disabled_at=func.clock_timestamp(), disabled_because=because)
        .execution_options(synchronize_session=False)
    )
    give_up(session, DISABLED, Delivery.callback_id == callback_id)


def took_something(session: Session, callback_id: UUID, lately: timedelta) -> bool:
    """Tell whether an endpoint took any message within this time."""
    taken = exists().where(
        Delivery.callback_id == callback_id,
        Delivery.delivered_at > func.clock_timestamp() - lately,
    )
    return bool(session.scalar(select(taken)))
