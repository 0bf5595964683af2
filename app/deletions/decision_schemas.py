"""What decisions about deletion requests look like on the wire."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field, StringConstraints

from app.deletions.clocks import PauseGround
from app.statuses import DecisionAction, DenialReason
from app.tables import Decision
from app.wire import Answer, Body, Text, UtcMoment

Words = Annotated[Text, StringConstraints(min_length=1, max_length=2_000)]
NOTE = (
    "In words of your own, for whoever may read the request. Kept with it, and not in the audit "
    "log; it is not removed when somebody's data are, so leave out what you can."
)


class Remark(Body):
    """What there is to say about a decision."""

    note: Words | None = Field(None, description=NOTE, examples=["Identity checked by phone."])


class Rejection(Remark):
    """Why a request is rejected."""

    reason: DenialReason = Field(
        description="Out of the list of the Data Rights Protocol.", examples=["no_match"]
    )


class Extension(Body):
    """Why the term is extended, and until when."""

    reasons: Words = Field(
        description="What the person is told. " + NOTE, examples=["Several thousand models."]
    )
    until: UtcMoment | None = Field(
        None,
        description="The new deadline; without it, as late as the law allows.",
        examples=["2027-02-20T10:00:00Z"],
    )


class Pause(Remark):
    """What the clock waits for."""

    ground: PauseGround = Field(examples=["identity"])


class DecisionAnswer(Answer):
    """One decision about a request."""

    id: UUID
    action: DecisionAction
    by: str = Field(description="The client that decided.", examples=["privacy-office"])
    at: datetime
    reason: str | None = Field(
        description="Of a rejection or a pause, out of its list.", examples=["no_match"]
    )
    note: str | None
    due_at: datetime | None = Field(
        description="The deadline that it set; null if it set none.", examples=[None]
    )


class DecisionPage(Answer):
    """Some decisions, newest first."""

    items: list[DecisionAnswer]
    next_cursor: str | None


def describe(decision: Decision) -> DecisionAnswer:
    """Return a decision as those see it who may read the request."""
    due_at = decision.facts.get("due_at")
    return DecisionAnswer(
        id=decision.id,
        action=DecisionAction(decision.action),
        by=decision.by,
        at=decision.at,
        reason=decision.reason,
        note=decision.note,
        due_at=None if due_at is None else datetime.fromisoformat(due_at),
    )
