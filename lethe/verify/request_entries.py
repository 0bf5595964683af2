"""What the log says of a request when it came and when it ended."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from lethe.verify.documents import (
    Malformed,
    digest,
    hash_,
    items,
    mapping,
    optional,
    quoted_moment,
    text,
    uuid,
    whole,
)
from lethe.verify.entries import Entry
from lethe.verify.reasons import NotProven, Reason
from lethe.verify.statement import Decision

MOVED = "deletion_request."
ARRIVED = MOVED + "pending"
DECIDED = "decision."


@dataclass(frozen=True, slots=True)
class Arrival:
    """Facts of the first entry about a request."""

    regulation: str
    samples: int
    commitment: bytes | None
    """To the samples; None for requests from before there were commitments."""
    due_at: datetime | None
    knows_due_at: bool
    """Whether the log holds the deadline, be it none."""


@dataclass(frozen=True, slots=True)
class ErasureOutcome:
    """What became of a request in one model, in the words of the log."""

    samples: int
    status: str
    version: int | None
    digest: str | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Facts of the last entry about a finished request."""

    regulation: str
    samples: int
    received_at: datetime
    due_at: datetime | None
    knows_due_at: bool
    """Whether the log holds the deadline as it was at the end, be it none."""
    reason: str | None
    """Of a rejection."""
    erasures: Mapping[UUID, ErasureOutcome]
    """By model."""


def read_arrival(entry: Entry) -> Arrival:
    """Return what the entry of a request's arrival says.

    Raises:
        NotProven: it is malformed.

    """
    facts = entry.facts
    try:
        return Arrival(
            regulation=text(facts.get("regulation"), "facts.regulation"),
            samples=whole(facts.get("samples"), "facts.samples", 1),
            commitment=optional(facts.get("samples_commitment"), "facts.samples_commitment", hash_),
            due_at=optional(facts.get("due_at"), "facts.due_at", quoted_moment),
            knows_due_at="due_at" in facts,
        )
    except Malformed as error:
        raise NotProven(Reason.ENTRY_MALFORMED, str(error)) from None


def read_outcome(entry: Entry) -> Outcome:
    """Return what the entry of a request's end says.

    Raises:
        NotProven: it is malformed.

    """
    facts = entry.facts
    try:
        listed = [_erasure(each) for each in items(facts.get("erasures"), "facts.erasures")]
        if len(dict(listed)) != len(listed):
            raise Malformed("facts.erasures: a model twice")
        return Outcome(
            regulation=text(facts.get("regulation"), "facts.regulation"),
            samples=whole(facts.get("samples"), "facts.samples", 1),
            received_at=quoted_moment(facts.get("received_at"), "facts.received_at"),
            due_at=optional(facts.get("due_at"), "facts.due_at", quoted_moment),
            knows_due_at="due_at" in facts,
            reason=optional(facts.get("reason"), "facts.reason", text),
            erasures=dict(listed),
        )
    except Malformed as error:
        raise NotProven(Reason.ENTRY_MALFORMED, str(error)) from None


def read_decision(entry: Entry) -> Decision:
    """Return what the entry of a decision says.

    Raises:
        NotProven: it is malformed.

    """
    facts = entry.facts
    try:
        return Decision(
            action=text(entry.event.removeprefix(DECIDED), "event"),
            at=entry.at,
            reason=optional(facts.get("reason"), "facts.reason", text),
            due_at=optional(facts.get("due_at"), "facts.due_at", quoted_moment),
        )
    except Malformed as error:
        raise NotProven(Reason.ENTRY_MALFORMED, str(error)) from None


def _erasure(value: Any) -> tuple[UUID, ErasureOutcome]:
    facts = mapping(value, "facts.erasures")
    return uuid(facts.get("model"), "erasure.model"), ErasureOutcome(
        samples=whole(facts.get("samples"), "erasure.samples", 1),
        status=text(facts.get("status"), "erasure.status"),
        version=optional(facts.get("version"), "erasure.version", whole),
        digest=optional(facts.get("digest"), "erasure.digest", digest),
    )
