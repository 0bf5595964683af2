"""Read the log as of now: committed entries get their places before anybody asks about them."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.audit import ledger
from app.crash_points import CrashPoint, reach
from app.db import transaction
from app.errors import NotFound

# A request, job or version has a handful of entries; this only bounds the answer.
MOST_ABOUT_ONE = 1_000


@dataclass(frozen=True, slots=True)
class Inclusion:
    """That an entry is in the tree of a head (RFC 9162, 2.1.3)."""

    leaf: ledger.Leaf
    head: ledger.Head
    path: Sequence[bytes]


def place_all() -> None:
    """Place every entry that is committed, in transactions of their own.

    Raises:
        RolledBack: the tree lacks what they are to be appended to.

    """
    more = True
    while more:
        with transaction() as session:
            more = ledger.sequence(session)
            reach(CrashPoint.SEQUENCE_BEFORE_COMMIT)


def prove(session: Session, position: int, head: ledger.Head) -> Inclusion:
    """Return the proof that the entry at a position is in the tree of a head.

    Raises:
        NotFound: the tree has no such position.

    """
    path = ledger.inclusion_path(session, position, head.size)
    found = ledger.leaves(session, position, 1)
    if not found:
        raise NotFound("The log has no entry at this position.")
    return Inclusion(found[0], head, path)
