"""What the transparency log looks like on the wire. Hashes are lower-case hexadecimal."""

from datetime import datetime
from typing import Any

from pydantic import Field

from app.audit import ledger
from app.audit.service import Inclusion
from app.audit.signed_heads import Signed
from app.wire import Answer

_HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


class TreeHead(Answer):
    """The log at one size: whoever has it can notice any change of what came before."""

    size: int = Field(examples=[42])
    root_hash: str = Field(examples=[_HASH])
    created_at: datetime


class CurrentHead(TreeHead):
    """The log as it is now, and the newest head that was signed."""

    checkpoint: str | None = Field(
        description="The newest signed head as a note, as `GET /v1/audit/checkpoint` answers it; "
        "it may be of a smaller size. Null before the first signature.",
        examples=["lethe/5a2c\n42\nn4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=\n"],
    )


class PublishedKeys(Answer):
    """A JWK Set: keys have `kid`, `purpose` (`log` or `weights`), `iat`, maybe `exp`, and `pem`."""

    keys: list[dict[str, Any]]


class LogEntry(Answer):
    """One entry: the leaf hash is SHA-256(0x00 || UTF-8 bytes of `entry`)."""

    position: int = Field(examples=[41])
    leaf_hash: str = Field(examples=[_HASH])
    entry: str = Field(
        description="Canonical JSON (RFC 8785) of what happened.",
        examples=['{"at":"2026-11-21T10:00:00+00:00","event":"version.current","facts":{}}'],
    )


class LogEntries(Answer):
    """Some entries in the order of the log."""

    items: list[LogEntry]
    next_start: int | None = Field(examples=[None])


class InclusionProof(Answer):
    """That an entry is in the tree of a head (RFC 9162, 2.1.3)."""

    entry: LogEntry
    head: TreeHead
    path: list[str] = Field(examples=[[_HASH]])


class ConsistencyProof(Answer):
    """That the second tree appends to the first (RFC 9162, 2.1.4)."""

    first: TreeHead
    second: TreeHead
    path: list[str] = Field(examples=[[_HASH]])


def describe_head(head: ledger.Head) -> TreeHead:
    """Return a tree head as its readers see it."""
    return TreeHead(size=head.size, root_hash=head.root_hash.hex(), created_at=head.created_at)


def describe_current(head: ledger.Head, signed: Signed | None) -> CurrentHead:
    """Return the newest tree head and the newest signed one as their readers see them."""
    return CurrentHead(
        **describe_head(head).model_dump(), checkpoint=None if signed is None else signed.note
    )


def describe_leaf(leaf: ledger.Leaf) -> LogEntry:
    """Return an entry as its readers see it."""
    return LogEntry(position=leaf.position, leaf_hash=leaf.hash.hex(), entry=leaf.payload)


def describe_inclusion(proof: Inclusion) -> InclusionProof:
    """Return the proof of an entry as its readers see it."""
    return InclusionProof(
        entry=describe_leaf(proof.leaf),
        head=describe_head(proof.head),
        path=[node.hex() for node in proof.path],
    )
