"""What the service answers, as its client hands it on."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Version:
    """Enough to find a model version."""

    number: int
    digest: str
    guarantee: str | None
    verdict: str | None


@dataclass(frozen=True, slots=True)
class Erasure:
    """What became of a request in one model."""

    model: str
    status: str
    sample_count: int
    job: UUID | None
    problem: str | None
    version: Version | None
    """The first version published without the samples."""


@dataclass(frozen=True, slots=True)
class DeletionRequest:
    """A deletion request and where it stands; see the API's documentation for the statuses."""

    id: UUID
    status: str
    model: str | None
    regulation: str
    reference: str | None
    sample_count: int
    received_at: datetime
    due_at: datetime | None
    finished_at: datetime | None
    """When it came to its end; None as long as it is open."""
    erasures: tuple[Erasure, ...]
    days_left: int | None = None


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """What a withdrawal achieved."""

    request: DeletionRequest
    cancelled: tuple[str, ...]
    """Models that will not forget it any more."""
    too_late: tuple[str, ...]
    """Models that have forgotten it, or are about to."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one line of many."""

    line: int
    id: UUID | None
    """The request's; None if the line was refused."""
    repeated: bool
    """Whether it was stored before."""
    problem: Mapping[str, Any] | None
    """Why it was refused, as a problem of RFC 9457."""


def read_request(told: Mapping[str, Any]) -> DeletionRequest:
    """Return a request from the JSON of an answer."""
    return DeletionRequest(
        id=UUID(told["id"]),
        status=told["status"],
        model=told["model"],
        regulation=told["regulation"],
        reference=told["reference"],
        sample_count=told["sample_count"],
        received_at=datetime.fromisoformat(told["received_at"]),
        due_at=_moment(told["due_at"]),
        finished_at=_moment(told["finished_at"]),
        erasures=tuple(_erasure(each) for each in told["erasures"]),
        days_left=told.get("days_left"),
    )


def read_outcome(told: Mapping[str, Any]) -> Outcome:
    """Return what a line of an answer says."""
    found = told.get("id")
    return Outcome(
        line=told["line"],
        id=None if found is None else UUID(found),
        repeated=bool(told.get("repeated", False)),
        problem=told.get("problem"),
    )


def _erasure(told: Mapping[str, Any]) -> Erasure:
    version = told["version"]
    return Erasure(
        model=told["model"],
        status=told["status"],
        sample_count=told["sample_count"],
        job=None if told["job"] is None else UUID(told["job"]),
        problem=told["problem"],
        version=None
        if version is None
        else Version(
            version["number"], version["digest"], version["guarantee"], version["verdict"]
        ),
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
