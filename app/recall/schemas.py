"""What recipients and notices look like on the wire."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from app.recall.service import NoticeView, RecipientView
from app.tables import Delivery, Recipient
from app.webhooks import addresses, signing
from app.wire import Answer, Body, Text

# For people to know each other by; kept out of the audit log.
PersonalName = Annotated[Text, Field(min_length=1, max_length=200)]
_DIGEST = "sha256:" + "5e" * 32


class NewRecipient(Body):
    """Somebody who runs a model and is to be told of withdrawals."""

    name: PersonalName = Field(examples=["checkout, EU"])
    url: Annotated[Text, Field(max_length=addresses.LONGEST)] | None = Field(
        None,
        description="Where to send a message for each withdrawal (Standard Webhooks), https. "
        "Without one, ask for the notices.",
        examples=["https://checkout.example.com/hooks/lethe"],
    )


class RecipientAnswer(Answer):
    """Somebody who runs a model, and how they stand with its withdrawals."""

    id: UUID
    model: str = Field(examples=["digits"])
    name: str
    url: str | None
    unacknowledged: int = Field(description="Notices that it has not acknowledged.", examples=[1])
    overdue: int = Field(description="Those among them that it should have by now.", examples=[0])
    created_at: datetime
    removed_at: datetime | None


class RegisteredRecipient(RecipientAnswer):
    """A recipient on the day of its registration."""

    secret: str | None = Field(
        description="Verifies the messages' signatures. Shown this once; null without a `url`.",
        examples=["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD+Jb9yZDBZmI="],
    )


class RecipientPage(Answer):
    """Some recipients of a model, newest first."""

    items: list[RecipientAnswer]
    next_cursor: str | None


class DeliveryAnswer(Answer):
    """How far the message to a recipient's address is. That it was taken acknowledges nothing."""

    attempts: int = Field(examples=[2])
    problem: str | None = Field(
        description="What the last attempt met; null if it was taken, or none was made yet.",
        examples=["status 503"],
    )
    next_attempt_at: datetime | None
    delivered_at: datetime | None
    given_up_at: datetime | None


class WithdrawnVersion(Answer):
    """The version that a notice is about."""

    number: int = Field(examples=[1])
    digest: str = Field(examples=[_DIGEST])


class NoticeAnswer(Answer):
    """One withdrawal that one recipient has to acknowledge."""

    id: UUID
    model: str = Field(examples=["digits"])
    recipient: UUID
    recipient_name: str
    version: WithdrawnVersion
    overdue: bool = Field(description="Older than LETHE_RECALL_OVERDUE, and not acknowledged.")
    delivery: DeliveryAnswer | None = Field(description="Null for a recipient without a `url`.")
    created_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: str | None


class NoticePage(Answer):
    """Some notices, newest first."""

    items: list[NoticeAnswer]
    overdue: int = Field(
        description="How many are overdue, of all models, or of the one recipient.", examples=[0]
    )
    next_cursor: str | None


class Acknowledgement(Body):
    """That a withdrawal was taken note of: the version is not in use any more."""

    by: PersonalName = Field(examples=["on-call, checkout"])


def describe_recipient(view: RecipientView) -> RecipientAnswer:
    """Return a recipient as its readers see it."""
    row = view.recipient
    return RecipientAnswer(
        id=row.id,
        model=view.model,
        name=row.name,
        url=row.url,
        unacknowledged=view.unacknowledged,
        overdue=view.overdue,
        created_at=row.created_at,
        removed_at=row.removed_at,
    )


def describe_registered(row: Recipient, model: str) -> RegisteredRecipient:
    """Return a new recipient, with its secret."""
    described = describe_recipient(RecipientView(row, model, 0, 0))
    secret = None if row.secret is None else signing.show(row.secret)
    return RegisteredRecipient(**described.model_dump(), secret=secret)


def describe_notice(view: NoticeView) -> NoticeAnswer:
    """Return a notice as its readers see it."""
    row = view.notice
    return NoticeAnswer(
        id=row.id,
        model=view.model,
        recipient=view.recipient.id,
        recipient_name=view.recipient.name,
        version=WithdrawnVersion(number=view.version.number, digest=view.version.digest),
        overdue=view.overdue,
        delivery=None if view.delivery is None else _delivery(view.delivery),
        created_at=row.created_at,
        acknowledged_at=row.acknowledged_at,
        acknowledged_by=row.acknowledged_by,
    )


def _delivery(row: Delivery) -> DeliveryAnswer:
    is_open = row.delivered_at is None and row.given_up_at is None
    return DeliveryAnswer(
        attempts=row.attempts,
        problem=row.problem,
        next_attempt_at=row.not_before if is_open else None,
        delivered_at=row.delivered_at,
        given_up_at=row.given_up_at,
    )
