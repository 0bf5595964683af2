"""What of the registry decides about new requests, in one look."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from app.statements import Row, Statement
from lethe.policy import Review

# Those that requests name, those that may turn out to hold samples, and those that review: whose
# policy says anything but that they do not, be it in words of another release.
_LOOK = """
    SELECT id, name, status, created_at, policy -> 'review' FROM registered_models
    WHERE name = ANY(%(names)s::text[]) OR status = 'checking'
        OR status = 'ready' AND policy -> 'review' <> %(without)s::jsonb
"""
_WITHOUT = Review().model_dump_json()


@dataclass(frozen=True, slots=True)
class Registered:
    """A model as far as a new request is concerned."""

    id: UUID
    name: str
    status: str
    created_at: datetime
    review: Review


def look(names: Collection[str]) -> Statement:
    """Return the statement that finds them; requests name these."""
    return Statement(_LOOK, {"names": sorted(names), "without": _WITHOUT})


def read(rows: Iterable[Row]) -> list[Registered]:
    """Return what was found; of models that have no part in new requests nothing is."""
    return [
        Registered(id_, name, status, at, review_of(review))
        for id_, name, status, at, review in rows
    ]


def review_of(stored: Mapping[str, Any] | None) -> Review:
    """Return what a model's policy says of reviews."""
    try:
        return Review.model_validate({} if stored is None else stored)
    except ValidationError:  # of another release: somebody had better look
        return Review(approval="manual")
