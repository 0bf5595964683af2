"""Read the log as of now: committed entries get their places before anybody asks about them."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.orm import Session

from app.audit import ledger
from app.audit.schemas import InclusionProof, describe_head, describe_leaf
from app.crash_points import CrashPoint, reach
from app.db import transaction
from app.errors import NotFound

# A request, job or version has a handful of entries; this only bounds the answer.
MOST_ABOUT_ONE = 1_000


def place_all() -> None:
    """Place every entry that is committed, in transactions of their own."""
    more = True
    while more:
        with transaction() as session:
            more = ledger.sequence(session)
            reach(CrashPoint.SEQUENCE_BEFORE_COMMIT)


def prove(session: Session, position: int, head: ledger.Head) -> InclusionProof:
    """Return the proof that the entry at a position is in the tree of a head.

    Raises:
        NotFound: the tree has no such position.

    """
    path = ledger.inclusion_path(session, position, head.size)
    found = ledger.leaves(session, position, 1)
    if not found:
        raise NotFound("The log has no entry at this position.")
    return InclusionProof(
        entry=describe_leaf(found[0]),
        head=describe_head(head),
        path=[node.hex() for node in path],
    )


def prove_all_about(subjects: Sequence[UUID]) -> list[InclusionProof]:
    """Return the proof of every entry about the subjects, all under one tree head."""
    place_all()
    with transaction() as session:
        head = ledger.head(session)
        return [
            prove(session, leaf.position, head)
            for subject in subjects
            for leaf in ledger.leaves(session, 0, MOST_ABOUT_ONE, subject)
        ]
