"""What a receipt states: an in-toto statement about one finished request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any
from uuid import UUID

from lethe.verify import documents
from lethe.verify.documents import (
    Malformed,
    hash_,
    items,
    members,
    moment,
    one_of,
    optional,
    text,
    uuid,
    whole,
)
from lethe.verify.reasons import NotProven, Reason

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:lethe:deletion-receipt:v1"
FINISHED = ("completed", "nothing_found", "cancelled", "rejected")
ENDED = ("completed", "cancelled", "rejected")


@dataclass(frozen=True, slots=True)
class Subject:
    """Something that the statement is about, by name and SHA-256."""

    name: str
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Decision:
    """What somebody decided about the request."""

    action: str
    at: datetime
    reason: str | None
    """Out of a fixed list, as of a rejection."""
    due_at: datetime | None
    """The deadline that it set."""


@dataclass(frozen=True, slots=True)
class Request:
    """The deletion request, as its receipt describes it."""

    id: UUID
    status: str
    regulation: str
    received_at: datetime
    due_at: datetime | None
    finished_at: datetime
    id_key_id: str
    samples: tuple[bytes, ...]
    """Keyed digests of 32 bytes, ascending."""
    salt: bytes | None
    """Opens the log's commitment to the samples; None where the log has none."""
    decisions: tuple[Decision, ...]
    """In the order of the log."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """A sample, and the number of the version that forgot it."""

    sample: bytes
    version: int


@dataclass(frozen=True, slots=True)
class Erasure:
    """What became of the request in one model."""

    model: UUID
    name: str
    status: str
    version: int | None
    """Number of a version without the samples."""
    forgotten: tuple[Forgotten, ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement of the right shape; nothing in it has been held against the log yet."""

    subjects: tuple[Subject, ...]
    origin: str
    software: str
    issued_at: datetime
    request: Request
    erasures: tuple[Erasure, ...]
    versions: tuple[Mapping[str, Any], ...]
    """Facts of log entries, as they stand there."""
    not_shown: tuple[str, ...]


def read_statement(payload: bytes) -> Statement:
    """Return the statement that a payload makes.

    Raises:
        NotProven: it is not canonical JSON, no receipt, or malformed.

    """
    value = documents.parse(payload)
    try:
        found = members(value, "statement", "_type", "subject", "predicateType", "predicate")
        types = (found["_type"], found["predicateType"])
        if types != (STATEMENT_TYPE, PREDICATE_TYPE):
            raise NotProven(Reason.NOT_A_RECEIPT, "a statement of another type")
        return _statement(found)
    except Malformed as error:
        raise NotProven(Reason.STATEMENT_MALFORMED, str(error)) from None


def _statement(found: Mapping[str, Any]) -> Statement:
    predicate = members(
        found["predicate"],
        "predicate",
        "issuer",
        "issued_at",
        "request",
        "erasures",
        "versions",
        "not_shown",
    )
    issuer = members(predicate["issuer"], "issuer", "log", "software")
    return Statement(
        subjects=tuple(_subject(each) for each in items(found["subject"], "subject")),
        origin=text(issuer["log"], "issuer.log"),
        software=text(issuer["software"], "issuer.software"),
        issued_at=moment(predicate["issued_at"], "issued_at"),
        request=_request(predicate["request"]),
        erasures=_erasures(predicate["erasures"]),
        versions=tuple(
            documents.mapping(each, "versions") for each in items(predicate["versions"], "versions")
        ),
        not_shown=tuple(
            text(each, "not_shown") for each in items(predicate["not_shown"], "not_shown")
        ),
    )


def _subject(value: object) -> Subject:
    found = members(value, "subject", "name", "digest")
    digest = members(found["digest"], "subject.digest", "sha256")
    return Subject(text(found["name"], "subject.name"), hash_(digest["sha256"], "subject.digest"))


def _request(value: object) -> Request:
    names = (
        "id",
        "status",
        "regulation",
        "received_at",
        "due_at",
        "finished_at",
        "id_key_id",
        "samples",
        "salt",
    )
    decided = "decisions" in documents.mapping(value, "request")
    found = members(value, "request", *names, *(["decisions"] if decided else []))
    decisions = items(found["decisions"], "request.decisions") if decided else []
    if decided and not decisions:
        raise Malformed("request.decisions: none; it is left out then")
    samples = tuple(
        hash_(each, "request.samples") for each in items(found["samples"], "request.samples")
    )
    if not samples or not _ascending(samples):
        raise Malformed("request.samples: not distinct and ascending, or none")
    return Request(
        id=uuid(found["id"], "request.id"),
        status=one_of(found["status"], "request.status", *FINISHED),
        regulation=text(found["regulation"], "request.regulation"),
        received_at=moment(found["received_at"], "request.received_at"),
        due_at=optional(found["due_at"], "request.due_at", moment),
        finished_at=moment(found["finished_at"], "request.finished_at"),
        id_key_id=text(found["id_key_id"], "request.id_key_id"),
        samples=samples,
        salt=optional(found["salt"], "request.salt", hash_),
        decisions=tuple(_decision(each) for each in decisions),
    )


def _decision(value: object) -> Decision:
    found = members(value, "decision", "action", "at", "reason", "due_at")
    return Decision(
        action=text(found["action"], "decision.action"),
        at=moment(found["at"], "decision.at"),
        reason=optional(found["reason"], "decision.reason", text),
        due_at=optional(found["due_at"], "decision.due_at", moment),
    )


def _erasures(value: object) -> tuple[Erasure, ...]:
    erasures = tuple(_erasure(each) for each in items(value, "erasures"))
    if len({erasure.model for erasure in erasures}) != len(erasures):
        raise Malformed("erasures: a model twice")
    return erasures


def _erasure(value: object) -> Erasure:
    found = members(value, "erasure", "model", "name", "status", "version", "forgotten")
    status = one_of(found["status"], "erasure.status", *ENDED)
    version = optional(found["version"], "erasure.version", lambda v, w: whole(v, w, 1))
    forgotten = tuple(_forgotten(each) for each in items(found["forgotten"], "forgotten"))
    if (status == "completed") != (version is not None):
        raise Malformed("erasure: completed and with a version, or neither")
    if (status == "completed") != bool(forgotten):
        raise Malformed("erasure: completed and with forgotten samples, or neither")
    if len({each.sample for each in forgotten}) != len(forgotten):
        raise Malformed("forgotten: a sample twice")
    if version is not None and any(each.version > version for each in forgotten):
        raise Malformed("forgotten: later than the version that is without it")
    return Erasure(
        model=uuid(found["model"], "erasure.model"),
        name=text(found["name"], "erasure.name"),
        status=status,
        version=version,
        forgotten=forgotten,
    )


def _forgotten(value: object) -> Forgotten:
    found = members(value, "forgotten", "sample", "version")
    # The first version forgot nothing.
    return Forgotten(
        hash_(found["sample"], "forgotten.sample"), whole(found["version"], "forgotten.version", 2)
    )


def _ascending(values: Sequence[bytes]) -> bool:
    return all(one < other for one, other in pairwise(values))
