"""What clients are told of."""

from enum import StrEnum

PING = "ping"


class Event(StrEnum):
    """A change of a deletion request's status."""

    PENDING = "deletion_request.pending"
    HELD = "deletion_request.held"
    IN_PROGRESS = "deletion_request.in_progress"
    COMPLETED = "deletion_request.completed"
    NOTHING_FOUND = "deletion_request.nothing_found"
    NEEDS_ATTENTION = "deletion_request.needs_attention"
    REJECTED = "deletion_request.rejected"
    CANCELLED = "deletion_request.cancelled"


def event_of(status: str) -> Event:
    """Return the event by which clients are told that a request has this status now."""
    return Event(f"deletion_request.{status}")
