"""The append-only log: entries join the transaction that they report, leaves are placed after it.

An entry is durable with what it reports. Its place in the Merkle tree is given by ``sequence``,
one caller at a time, so that no lock on the log is held while other work waits to commit.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, exists, func, insert, select
from sqlalchemy import tuple_ as row_of
from sqlalchemy.orm import Session

from app.audit import merkle
from app.audit.payloads import payload
from app.db import lock, now
from app.errors import NotFound, RolledBack
from app.statements import Statement, ask
from app.tables import AuditEntry, AuditHead, AuditLeaf, AuditNode, AuditPending, SignedHead
from lethe.verify import EMPTY_ROOT, leaf_hash
from lethe.verify.note import peek
from lethe.verify.reasons import NotProven

# Entries placed in one transaction: bounds its memory, and how long others wait for the log.
BATCH = 10_000

# One parameter, since a batch of erasures brings thousands of entries.
_ADD = """
    WITH added AS (
        INSERT INTO audit_entries (event, subject, payload)
        SELECT event, subject, payload FROM json_to_recordset(%(told)s::json)
            AS told (event text, subject uuid, payload text)
        RETURNING id
    )
    INSERT INTO audit_pending (entry_id) SELECT id FROM added
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """What happened to whom. ``facts`` hold ids, digests and numbers, never a sample ID."""

    event: str
    subject: UUID
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Head:
    """The log at one size. A signature over it has its place beside these three."""

    size: int
    root_hash: bytes
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Leaf:
    """One entry at its place."""

    position: int
    payload: str

    @property
    def hash(self) -> bytes:
        """The leaf hash over the entry's bytes."""
        return leaf_hash(self.payload.encode())


def append(session: Session, entries: Sequence[Entry]) -> None:
    """Add entries to the caller's transaction; they happened if and only if it commits."""
    if entries:
        ask(session, addition(entries))


def addition(entries: Iterable[Entry]) -> Statement:
    """Return the statement that does so, for a caller who has others to send with it."""
    at = now().isoformat()
    told = [
        {
            "event": entry.event,
            "subject": str(entry.subject),
            "payload": payload(entry.event, entry.subject, entry.facts, at),
        }
        for entry in entries
    ]
    return Statement(_ADD, {"told": json.dumps(told)})


def sequence(session: Session) -> bool:
    """Give committed entries their places and record a new tree head; tell whether any may remain.

    Those that are committed meanwhile do not count: they could keep the caller here for good.
    Takes the log's lock until the caller's transaction ends.

    Raises:
        RolledBack: the tree lacks what new entries are to be appended to.

    """
    if not is_growing(session):
        return False
    lock(session, "audit-log")
    oldest = select(AuditPending.entry_id).order_by(AuditPending.entry_id).limit(BATCH)
    ids = sorted(
        session.scalars(
            delete(AuditPending)
            .where(AuditPending.entry_id.in_(oldest.scalar_subquery()))
            .returning(AuditPending.entry_id)
        )
    )
    if not ids:
        return False  # another process was faster
    size = _size(session)
    payloads = dict(
        session.execute(
            select(AuditEntry.id, AuditEntry.payload).where(AuditEntry.id.in_(ids))
        ).all()
    )
    edge = _nodes(session, merkle.right_edge(size))
    if len(edge) != size.bit_count():
        raise RolledBack("Nodes of the log's tree are gone; the operator must act.")
    grown = merkle.append(size, edge, (leaf_hash(payloads[id_].encode()) for id_ in ids))
    session.execute(
        insert(AuditLeaf),
        [{"position": size + offset, "entry_id": id_} for offset, id_ in enumerate(ids)],
    )
    session.execute(
        insert(AuditNode),
        [{"level": a[0], "index": a[1], "hash": value} for a, value in grown.nodes.items()],
    )
    known = {**edge, **grown.nodes}
    session.execute(
        insert(AuditHead).values(
            size=grown.size, root_hash=merkle.root(grown.size, known.__getitem__)
        )
    )
    return len(ids) == BATCH


def is_growing(session: Session) -> bool:
    """Tell whether committed entries wait for their places."""
    return bool(session.scalar(select(exists(select(AuditPending.entry_id)))))


def head(session: Session, size: int | None = None) -> Head:
    """Return the newest tree head, or the tree at a size up to it.

    Raises:
        NotFound: the log is shorter than that.

    """
    newest = session.scalars(select(AuditHead).order_by(AuditHead.size.desc()).limit(1)).first()
    if newest is None:
        if size:
            raise NotFound("The log is empty; ask for a size of 0.")
        return Head(0, EMPTY_ROOT, now())
    if size is None or size == newest.size:
        return Head(newest.size, newest.root_hash, newest.created_at)
    if size > newest.size:
        raise NotFound(f"The log has {newest.size} entries; ask for a size up to that.")
    return Head(size, _compute(session, lambda nodes: [merkle.root(size, nodes)])[0], now())


def computed_root(session: Session, size: int) -> bytes | None:
    """Return the root at a size out of the stored nodes; None if some of them are gone."""
    try:
        return _compute(session, lambda nodes: [merkle.root(size, nodes)])[0]
    except KeyError:
        return None


def leaves(session: Session, start: int, limit: int, subject: UUID | None = None) -> list[Leaf]:
    """Return the entries from a position on, in the order of the log; or those of a subject."""
    statement = (
        select(AuditLeaf.position, AuditEntry.payload)
        .join(AuditEntry, AuditEntry.id == AuditLeaf.entry_id)
        .where(AuditLeaf.position >= start)
        .order_by(AuditLeaf.position)
        .limit(limit)
    )
    if subject is not None:
        statement = statement.where(AuditEntry.subject == subject)
    return [Leaf(position, payload) for position, payload in session.execute(statement)]


def inclusion_path(session: Session, position: int, size: int) -> list[bytes]:
    """Return the proof that the leaf at the position is in the tree of this size.

    Raises:
        NotFound: the position is not below the size, or the log is shorter.

    """
    if not 0 <= position < size <= _size(session):
        raise NotFound("Ask for a position below a size that the log has reached.")
    return _compute(session, lambda nodes: merkle.inclusion_path(position, size, nodes))


def consistency_path(session: Session, first: int, second: int) -> list[bytes]:
    """Return the proof that the second tree appends to the first.

    Raises:
        NotFound: the sizes are not in order, or the log is shorter.

    """
    if not 0 <= first <= second <= _size(session):
        raise NotFound("Ask for two sizes in order, up to the size of the log.")
    return _compute(session, lambda nodes: merkle.consistency_path(first, second, nodes))


def replay(session: Session) -> list[str]:
    """Recompute the whole log from its entries; return every contradiction found.

    Reads each entry once, in batches; meant for an operator's scrub, not for a request.
    """
    problems: list[str] = []
    hashes: list[bytes] = []
    while batch := leaves(session, len(hashes), BATCH):
        if [leaf.position for leaf in batch] != list(range(len(hashes), len(hashes) + len(batch))):
            problems.append(f"positions from {len(hashes)} on have a gap")
            break
        hashes += [leaf.hash for leaf in batch]
    grown = merkle.append(0, {}, iter(hashes))
    stored = {(node.level, node.index): node.hash for node in session.scalars(select(AuditNode))}
    if stored != dict(grown.nodes):
        wrong = {
            a for a in stored.keys() | grown.nodes.keys() if stored.get(a) != grown.nodes.get(a)
        }
        problems.append(f"{len(wrong)} tree nodes differ from the entries, first {min(wrong)}")
    problems += [
        f"tree head of size {row.size} differs from the entries"
        for row in session.scalars(select(AuditHead).order_by(AuditHead.size))
        if row.size > grown.size or merkle.root(row.size, grown.nodes.__getitem__) != row.root_hash
    ]
    problems += [
        f"signed head of size {size} differs from the entries"
        for size, note in session.execute(
            select(SignedHead.size, SignedHead.note).order_by(SignedHead.id)
        )
        if not _signs(note, size, grown)
    ]
    unplaced = session.scalar(
        select(func.count())
        .select_from(AuditEntry)
        .where(
            ~exists().where(AuditLeaf.entry_id == AuditEntry.id),
            ~exists().where(AuditPending.entry_id == AuditEntry.id),
        )
    )
    if unplaced:
        problems.append(f"{unplaced} entries have no place and await none")
    return problems


def _signs(note: str, size: int, grown: merkle.Growth) -> bool:
    with suppress(NotProven):
        head = peek(note)
        if head.size == size <= grown.size:
            return head.root_hash == merkle.root(size, grown.nodes.__getitem__)
    return False


def _size(session: Session) -> int:
    return session.scalar(select(func.max(AuditHead.size))) or 0


def _nodes(session: Session, addresses: Sequence[merkle.Address]) -> dict[merkle.Address, bytes]:
    if not addresses:
        return {}
    rows = session.execute(
        select(AuditNode.level, AuditNode.index, AuditNode.hash).where(
            row_of(AuditNode.level, AuditNode.index).in_(addresses)
        )
    )
    return {(level, index): value for level, index, value in rows}


def _compute(session: Session, path: merkle.PathFunction) -> list[bytes]:
    # A first run finds out which nodes are asked for, so that one query fetches them all.
    asked: list[merkle.Address] = []

    def record(address: merkle.Address) -> bytes:
        asked.append(address)
        return b""

    path(record)
    return path(_nodes(session, asked).__getitem__)
