"""What entries of the log say: any entry, and the one that made a version current."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from lethe.verify import documents
from lethe.verify.documents import (
    Malformed,
    digest,
    hash_,
    mapping,
    members,
    one_of,
    optional,
    quoted_moment,
    text,
    uuid,
    whole,
)
from lethe.verify.merkle import leaf_hash
from lethe.verify.reasons import NotProven, Reason

CURRENT = "version.current"
WITHDRAWN = "version.withdrawn"
PURGED = "version.purged"


@dataclass(frozen=True, slots=True)
class Entry:
    """One leaf of the log, read."""

    at: datetime
    event: str
    facts: Mapping[str, Any]
    subject: UUID
    hash: bytes


@dataclass(frozen=True, slots=True)
class Commitment:
    """What a version retains: a root over keys of samples, and how many there are."""

    root: bytes
    retained: int
    parent_root: bytes | None
    """Of the version that it was made from; None for a model's first version."""
    removed: int


@dataclass(frozen=True, slots=True)
class Version:
    """What the log says of a model version when it became current."""

    id: UUID
    model: UUID
    model_name: str | None
    number: int
    digest: str
    """SHA-256 of the weights, hex."""
    parent_digest: str | None
    guarantee: str | None
    verdict: str | None
    method: str | None
    id_key_id: str | None
    commitment: Commitment | None
    """None for versions from before there were commitments."""

    @property
    def label(self) -> str:
        """How people call it."""
        return f"version {self.number} of {self.model_name or self.model}"


def read_entry(payload: str) -> Entry:
    """Return the entry that a leaf's text holds.

    Raises:
        NotProven: it is not canonical JSON, or has another shape.

    """
    content = _encode(payload)
    value = documents.parse(content)
    try:
        found = members(value, "entry", "at", "event", "facts", "subject")
        return Entry(
            at=quoted_moment(found["at"], "entry.at"),
            event=text(found["event"], "entry.event"),
            facts=mapping(found["facts"], "entry.facts"),
            subject=uuid(found["subject"], "entry.subject"),
            hash=leaf_hash(content),
        )
    except Malformed as error:
        raise NotProven(Reason.ENTRY_MALFORMED, str(error)) from None


def read_version(entry: Entry) -> Version:
    """Return what an entry ``version.current`` says.

    Raises:
        NotProven: its facts are malformed.

    """
    try:
        return _version(entry)
    except Malformed as error:
        raise NotProven(Reason.ENTRY_MALFORMED, str(error)) from None


def _version(entry: Entry) -> Version:
    facts = entry.facts
    number = whole(facts.get("number"), "facts.number", 1)
    parent_digest = optional(facts.get("parent_digest"), "facts.parent_digest", digest)
    verdict = optional(facts.get("verdict"), "facts.verdict", text)
    if (number == 1) != (parent_digest is None):
        raise Malformed("facts.parent_digest: the first version has none, all others have one")
    if (number == 1) != (verdict is None):
        raise Malformed("facts.verdict: the first version has none, all others have one")
    guarantee = None
    if verdict is not None:
        # What failed verification is never current.
        one_of(verdict, "facts.verdict", "passed", "inconclusive")
        guarantee = one_of(facts.get("guarantee"), "facts.guarantee", "exact", "approximate")
    return Version(
        id=entry.subject,
        model=uuid(facts.get("model"), "facts.model"),
        model_name=optional(facts.get("model_name"), "facts.model_name", text),
        number=number,
        digest=digest(facts.get("digest"), "facts.digest"),
        parent_digest=parent_digest,
        guarantee=guarantee,
        verdict=verdict,
        method=optional(facts.get("method"), "facts.method", text),
        id_key_id=optional(facts.get("id_key_id"), "facts.id_key_id", text),
        commitment=optional(
            facts.get("commitment"), "facts.commitment", lambda v, w: _commitment(v, w, number)
        ),
    )


def _commitment(value: object, where: str, number: int) -> Commitment:
    if number == 1:
        found = members(value, where, "root", "retained")
        parent_root, removed = None, 0
    else:
        found = members(value, where, "root", "retained", "parent_root", "removed")
        parent_root = hash_(found["parent_root"], f"{where}.parent_root")
        removed = whole(found["removed"], f"{where}.removed")
    return Commitment(
        root=hash_(found["root"], f"{where}.root"),
        retained=whole(found["retained"], f"{where}.retained"),
        parent_root=parent_root,
        removed=removed,
    )


def _encode(payload: str) -> bytes:
    try:
        return payload.encode()
    except UnicodeEncodeError:
        raise NotProven(Reason.ENTRY_MALFORMED, "not UTF-8") from None
