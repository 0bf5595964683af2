"""The transparency log over HTTP: entries, tree heads and both kinds of proof."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from app.audit import ledger, service
from app.audit.schemas import (
    ConsistencyProof,
    InclusionProof,
    LogEntries,
    TreeHead,
    describe_head,
    describe_leaf,
)
from app.db import transaction
from app.errors import NotFound
from app.problems import responses
from app.security import Caller
from app.wire import COMMON, Limit

router = APIRouter(prefix="/v1/audit", tags=["audit"], responses=responses(*COMMON))

# Positions are stored as 64-bit integers.
Whole = Annotated[int, Query(ge=0, lt=2**63)]


@router.get("/head")
def head(_: Caller) -> TreeHead:
    """Return the newest tree head, over every entry committed so far."""
    service.place_all()
    with transaction() as session:
        return describe_head(ledger.head(session))


@router.get("/entries")
def entries(
    _: Caller, start: Whole = 0, limit: Limit = 100, subject: UUID | None = None
) -> LogEntries:
    """Return entries in the order of the log, or those about one request, job, version or model."""
    service.place_all()
    with transaction() as session:
        found = ledger.leaves(session, start, limit, subject)
    return LogEntries(
        items=[describe_leaf(leaf) for leaf in found],
        next_start=found[-1].position + 1 if len(found) == limit else None,
    )


@router.get("/proofs/inclusion", responses=responses(NotFound))
def inclusion(_: Caller, position: Whole, size: Whole | None = None) -> InclusionProof:
    """Prove that an entry is in the tree of a size, the newest one by default."""
    service.place_all()
    with transaction() as session:
        return service.prove(session, position, ledger.head(session, size))


@router.get("/proofs/consistency", responses=responses(NotFound))
def consistency(_: Caller, first: Whole, second: Whole | None = None) -> ConsistencyProof:
    """Prove that the tree of one size appends to that of another, and changes nothing in it."""
    service.place_all()
    with transaction() as session:
        later = ledger.head(session, second)
        path = ledger.consistency_path(session, first, later.size)
        return ConsistencyProof(
            first=describe_head(ledger.head(session, first)),
            second=describe_head(later),
            path=[node.hex() for node in path],
        )
