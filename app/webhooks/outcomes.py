"""What comes of an attempt: the message is over, or is sent again after a pause."""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.tables import Delivery, DeliveryAttempt
from app.webhooks import endpoints
from app.webhooks.endpoints import is_open
from app.webhooks.outbox import Message

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

GONE = "It answered 410 Gone."
SILENT = "It took no message in three days."


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a message was not taken."""

    problem: str
    """A status, or the kind of the error; never what was answered."""
    is_final: bool = False
    """Whether the receiver said that it wants no more."""
    retry_after: timedelta | None = None
    """How long the receiver wants to be left alone."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one attempt."""

    at: datetime
    """When it began."""
    seconds: float
    status: int | None
    """What was answered, if anything was."""
    failure: Failure | None
    """None if the message was taken."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What an outcome led to."""

    ended: bool
    """The delivery is over."""
    disabled: bool = False
    """Its callback is disabled from now on."""


def record(session: Session, message: Message, outcome: Outcome) -> Recorded:
    """Note what came of an attempt.

    It changes nothing for a claim that another one followed, nor for a delivery that has ended.
    """
    failure = outcome.failure
    if failure is not None and message.callback_id is not None:
        endpoints.hold(session, message.callback_id)
    _note(session, message, outcome)
    tried = message.attempt - message.earlier_attempts
    ended = failure is None or failure.is_final or tried > len(PAUSES)
    values: dict[str, Any] = {"problem": None if failure is None else failure.problem}
    if failure is None:
        values["delivered_at"] = func.clock_timestamp()
    elif ended:
        values["given_up_at"] = func.clock_timestamp()
    else:
        values["not_before"] = func.clock_timestamp() + pause(tried, failure.retry_after)
    if ended:
        values["secret"] = None
    counted = session.execute(
        update(Delivery)
        .where(Delivery.id == message.id, Delivery.attempts == message.attempt, *is_open())
        .values(**values)
        .returning(Delivery.id)
        .execution_options(synchronize_session=False)
    ).first()
    if counted is None or failure is None:
        return Recorded(ended)
    if not ended:
        _put_off_followers(session, message)
        return Recorded(False)
    return Recorded(True, _disabled(session, message, failure))


def pause(attempt: int, retry_after: timedelta | None = None) -> timedelta:
    """Return how long to wait after a failed attempt, counted from 1, that is not the last."""
    # Jitter, so that those who failed together do not come back together.
    chosen = PAUSES[attempt - 1] * (1 + JITTER * secrets.SystemRandom().random())
    return max(chosen, retry_after or timedelta(0))


def _note(session: Session, message: Message, outcome: Outcome) -> None:
    row = {
        "delivery_id": message.id,
        "number": message.attempt,
        "at": outcome.at,
        "seconds": outcome.seconds,
        "status": outcome.status,
        "problem": None if outcome.failure is None else outcome.failure.problem,
    }
    session.execute(insert(DeliveryAttempt).on_conflict_do_nothing(), row)


def _put_off_followers(session: Session, message: Message) -> None:
    """Let what waits behind a message come back with it, not stand before everybody till then."""
    if message.lane is None:
        return
    until = select(Delivery.not_before).where(Delivery.id == message.id).scalar_subquery()
    session.execute(
        update(Delivery)
        .where(Delivery.lane == message.lane, Delivery.position > message.position, *is_open())
        .values(not_before=func.greatest(Delivery.not_before, until))
        .execution_options(synchronize_session=False)
    )


def _disabled(session: Session, message: Message, failure: Failure) -> bool:
    """Disable the callback of a message that was given up, if nothing speaks for it."""
    if message.callback_id is None:
        return False
    if not failure.is_final and endpoints.took_something(
        session, message.callback_id, sum(PAUSES, timedelta(0))
    ):
        return False
    endpoints.disable(session, message.callback_id, GONE if failure.is_final else SILENT)
    return True
