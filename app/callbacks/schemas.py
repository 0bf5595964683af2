"""What callbacks and deliveries look like on the wire."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from app.callbacks.deliveries import DeliveryState, state_of
from app.callbacks.events import Event
from app.db import now
from app.tables import Callback, Delivery, DeliveryAttempt, Signer
from app.webhooks import addresses, signing
from app.wire import Answer, Body, Moment, Text

_URL = "https://shop.example.com/hooks/lethe"
_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD+Jb9yZDBZmI="  # noqa: S105  # an example's
_EVENT = Event.COMPLETED.value


class NewCallback(Body):
    """Where to tell a client how its requests fare."""

    url: Annotated[Text, Field(max_length=addresses.LONGEST)] = Field(
        description="Where messages go (Standard Webhooks), https.", examples=[_URL]
    )
    events: Annotated[list[Event], Field(min_length=1, max_length=100)] | None = Field(
        None,
        description="What to tell; null for everything, what later releases add included.",
        examples=[[_EVENT]],
    )


class CallbackAnswer(Answer):
    """An endpoint of a client."""

    id: UUID
    client: str = Field(examples=["shop"])
    url: str = Field(examples=[_URL])
    events: list[Event] | None = Field(
        description="What it is told; null for everything.", examples=[[_EVENT]]
    )
    created_at: datetime
    former_secret_until: datetime | None = Field(
        description="Until when the secret before the last rotation signs beside the new one."
    )
    disabled_at: datetime | None = Field(
        description="Since when it is told nothing; `ping` ends that."
    )
    disabled_because: str | None = Field(examples=["It answered 410 Gone."])


class CallbackWithSecret(CallbackAnswer):
    """An endpoint with its new secret."""

    secret: str = Field(
        description="Verifies the messages' signatures. Shown this once.", examples=[_SECRET]
    )


class CallbackPage(Answer):
    """Some callbacks, newest first."""

    items: list[CallbackAnswer]
    next_cursor: str | None


class LoggedDelivery(Answer):
    """A message and how far it is."""

    id: UUID = Field(description="The header `webhook-id`, the same at each attempt.")
    state: DeliveryState
    event: str = Field(examples=[_EVENT])
    callback: UUID | None = Field(description="Null for notices and for a request's own addresses.")
    request: UUID | None = Field(description="The deletion request that it tells of.")
    notice: UUID | None = Field(description="The withdrawal that it tells of.")
    signer: Signer = Field(description="In which way it is signed.")
    url: str = Field(examples=[_URL])
    attempts: int = Field(examples=[2])
    problem: str | None = Field(
        description="What the last attempt met, or why it was given up; null if there is nothing.",
        examples=["status 503"],
    )
    next_attempt_at: datetime | None = Field(
        description="Not before this, and not before the earlier messages of its request are over."
    )
    created_at: datetime
    delivered_at: datetime | None
    given_up_at: datetime | None


class AttemptAnswer(Answer):
    """One attempt at a delivery."""

    number: int = Field(examples=[1])
    at: datetime
    seconds: float = Field(description="Time until the answer, or without one.", examples=[0.08])
    status: int | None = Field(description="What was answered, if anything was.", examples=[503])
    problem: str | None = Field(
        description="Why it was not taken; null if it was.", examples=["status 503"]
    )


class DeliveryWithAttempts(LoggedDelivery):
    """A message, what it says, and each attempt at it."""

    payload: str = Field(
        description="The body, exactly as it is signed.",
        examples=['{"data":{},"timestamp":"2026-11-21T10:00:00Z","type":"ping"}'],
    )
    log: list[AttemptAnswer]


class DeliveryPage(Answer):
    """Some deliveries, newest first."""

    items: list[LoggedDelivery]
    next_cursor: str | None


class Replay(Body):
    """Which messages to send again."""

    since: Moment = Field(
        description="Those that were promised at this moment or later, and given up.",
        examples=["2026-11-20T00:00:00Z"],
    )


class Replayed(Answer):
    """What is sent again."""

    deliveries: int = Field(examples=[12])


def describe(row: Callback) -> CallbackAnswer:
    """Return a callback as its readers see it."""
    return CallbackAnswer(**_described(row))


def describe_with_secret(row: Callback) -> CallbackWithSecret:
    """Return a callback with its secret, which is shown once."""
    assert row.secret is not None  # noqa: S101  # only a removed one has none
    return CallbackWithSecret(**_described(row), secret=signing.show(row.secret))


def describe_delivery(row: Delivery) -> LoggedDelivery:
    """Return a delivery as it stands in lists."""
    return LoggedDelivery(**_logged(row))


def describe_in_full(row: Delivery, attempts: Sequence[DeliveryAttempt]) -> DeliveryWithAttempts:
    """Return a delivery with what it says and what came of it."""
    log = [
        AttemptAnswer(
            number=each.number,
            at=each.at,
            seconds=each.seconds,
            status=each.status,
            problem=each.problem,
        )
        for each in attempts
    ]
    return DeliveryWithAttempts(**_logged(row), payload=row.payload, log=log)


def _described(row: Callback) -> dict[str, Any]:
    overlaps = row.former_until is not None and row.former_until > now()
    return {
        "id": row.id,
        "client": row.client,
        "url": row.url,
        "events": row.events,
        "created_at": row.created_at,
        "former_secret_until": row.former_until if overlaps else None,
        "disabled_at": row.disabled_at,
        "disabled_because": row.disabled_because,
    }


def _logged(row: Delivery) -> dict[str, Any]:
    state = state_of(row)
    return {
        "id": row.id,
        "state": state,
        "event": row.event,
        "callback": row.callback_id,
        "request": row.request_id,
        "notice": row.notice_id,
        "signer": row.signer,
        "url": row.url,
        "attempts": row.attempts,
        "problem": row.problem,
        "next_attempt_at": row.not_before if state == DeliveryState.OPEN else None,
        "created_at": row.created_at,
        "delivered_at": row.delivered_at,
        "given_up_at": row.given_up_at,
    }
