"""The tree heads that were signed, and what they prove about one another."""

from dataclasses import dataclass

import rfc8785
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from app.audit import ledger, published
from app.errors import NotFound
from app.keys import Purpose
from app.tables import LogOrigin, SignedHead
from lethe.verify import verify_consistency
from lethe.verify.note import Checkpoint, open_note, peek
from lethe.verify.reasons import NotProven


@dataclass(frozen=True, slots=True)
class Signed:
    """A tree head and its note."""

    checkpoint: Checkpoint
    note: str

    @property
    def age(self) -> tuple[int, float]:
        """What grows from each head of a log to the next."""
        return self.checkpoint.size, self.checkpoint.signed_at.timestamp()


def origin(session: Session) -> str:
    """Return the name of the log."""
    return session.scalars(select(LogOrigin.origin)).one()


def latest(session: Session) -> Signed | None:
    """Return the newest signed head of the log of this name, if there is one."""
    found = session.scalar(
        select(SignedHead.note)
        .where(of_log(origin(session)))
        .order_by(SignedHead.id.desc())
        .limit(1)
    )
    return None if found is None else Signed(peek(found), found)


def of_log(name: str) -> ColumnElement[bool]:
    """Return the condition that a stored head is of the log of a name."""
    return SignedHead.note.startswith(name + "\n", autoescape=True)


def contradiction(session: Session, note: str) -> str | None:
    """Tell how the log as it is now contradicts a head that it signed; None if it does not."""
    try:
        earlier = open_note(note, published.published(session, Purpose.LOG))
    except NotProven as error:
        return f"a head that should be the log's own is refused: {error.reason}"
    if earlier.origin != origin(session):
        return "the head is of another log"
    now = ledger.head(session)
    if now.size < earlier.size:
        return f"the log has {now.size} entries, and a signed head over {earlier.size}"
    if ledger.computed_root(session, now.size) != now.root_hash:
        return "the newest head is not that of the tree's nodes"
    try:
        path = ledger.consistency_path(session, earlier.size, now.size)
    except (KeyError, NotFound):
        return "nodes of the tree are gone"
    if verify_consistency(earlier.size, now.size, path, earlier.root_hash, now.root_hash):
        return None
    return f"the first {earlier.size} entries are not those of a signed head"


def message(session: Session, previous_size: int, signed: Signed) -> bytes:
    """Return what a witness is told: a head, and that it appends to the one that the witness has.

    Raises:
        NotFound: the log never had that size.

    """
    path = ledger.consistency_path(session, previous_size, signed.checkpoint.size)
    return rfc8785.dumps(
        {
            "checkpoint": signed.note,
            "consistency": [node.hex() for node in path],
            "previous_size": previous_size,
        }
    )
