"""The allowed moves between statuses, as data, and the only functions that write a status.

Each move appends its audit entry in the same transaction, so that the log has no gaps.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Uuid, any_, bindparam, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.audit import ledger
from app.errors import IllegalMove
from app.statuses import (
    ErasureStatus,
    JobStatus,
    LedgerStatus,
    ModelStatus,
    ReferenceStatus,
    RequestStatus,
    VersionStatus,
)
from app.tables import (
    DeletionRequest,
    Erasure,
    GradientLedger,
    ModelVersion,
    ReferenceSet,
    RegisteredModel,
    UnlearningJob,
)

Row = TypeVar(
    "Row",
    RegisteredModel,
    ModelVersion,
    DeletionRequest,
    Erasure,
    UnlearningJob,
    ReferenceSet,
    GradientLedger,
)
Facts = Mapping[str, Any] | Callable[[Any], Mapping[str, Any]]

SUBJECTS: Mapping[type[Any], str] = {
    RegisteredModel: "model",
    ModelVersion: "version",
    DeletionRequest: "deletion_request",
    Erasure: "erasure",
    UnlearningJob: "job",
    ReferenceSet: "references",
    GradientLedger: "ledger",
}

INITIAL: Mapping[type[Any], str] = {
    RegisteredModel: ModelStatus.CHECKING,
    ModelVersion: VersionStatus.CURRENT,
    DeletionRequest: RequestStatus.PENDING,
    Erasure: ErasureStatus.PENDING,
    UnlearningJob: JobStatus.QUEUED,
    ReferenceSet: ReferenceStatus.BUILDING,
    GradientLedger: LedgerStatus.COMPUTING,
}

MOVES: Mapping[type[Any], Mapping[str, Collection[str]]] = {
    RegisteredModel: {
        ModelStatus.CHECKING: {ModelStatus.READY, ModelStatus.REJECTED},
        ModelStatus.READY: set(),
        ModelStatus.REJECTED: set(),
    },
    ModelVersion: {
        VersionStatus.CURRENT: {VersionStatus.WITHDRAWN},
        VersionStatus.WITHDRAWN: {VersionStatus.PURGED},
        VersionStatus.PURGED: set(),
    },
    DeletionRequest: {
        RequestStatus.PENDING: {
            RequestStatus.IN_PROGRESS,
            RequestStatus.COMPLETED,
            RequestStatus.NOTHING_FOUND,
            RequestStatus.NEEDS_ATTENTION,
            RequestStatus.REJECTED,
            RequestStatus.CANCELLED,
        },
        RequestStatus.IN_PROGRESS: {
            RequestStatus.PENDING,
            RequestStatus.COMPLETED,
            RequestStatus.NEEDS_ATTENTION,
            RequestStatus.CANCELLED,
        },
        RequestStatus.NEEDS_ATTENTION: {
            RequestStatus.PENDING,
            RequestStatus.IN_PROGRESS,
            RequestStatus.COMPLETED,
            RequestStatus.CANCELLED,
        },
        # A model that was still being checked when the request came may turn out to hold samples.
        RequestStatus.NOTHING_FOUND: {RequestStatus.PENDING},
        RequestStatus.COMPLETED: {RequestStatus.IN_PROGRESS},
        RequestStatus.REJECTED: set(),
        RequestStatus.CANCELLED: set(),
    },
    Erasure: {
        ErasureStatus.PENDING: {
            ErasureStatus.SCHEDULED,
            ErasureStatus.COMPLETED,  # an earlier job forgot all its samples
            ErasureStatus.REJECTED,
            ErasureStatus.CANCELLED,
        },
        ErasureStatus.SCHEDULED: {
            ErasureStatus.PENDING,
            ErasureStatus.COMPLETED,
            ErasureStatus.NEEDS_ATTENTION,
            ErasureStatus.CANCELLED,
        },
        ErasureStatus.NEEDS_ATTENTION: {ErasureStatus.PENDING, ErasureStatus.CANCELLED},
        ErasureStatus.COMPLETED: set(),
        ErasureStatus.REJECTED: set(),
        ErasureStatus.CANCELLED: set(),
    },
    UnlearningJob: {
        JobStatus.QUEUED: {JobStatus.RUNNING, JobStatus.CANCELLED},
        JobStatus.RUNNING: {
            JobStatus.QUEUED,  # its lease ran out, or it was given back
            JobStatus.CANCELLED,
            JobStatus.PUBLISHED,
            JobStatus.REFUSED,
            JobStatus.FAILED,
        },
        JobStatus.PUBLISHED: set(),
        JobStatus.REFUSED: set(),
        JobStatus.FAILED: set(),
        JobStatus.CANCELLED: set(),
    },
    ReferenceSet: {
        ReferenceStatus.BUILDING: {
            ReferenceStatus.READY,
            ReferenceStatus.FAILED,
            ReferenceStatus.DISCARDED,
        },
        ReferenceStatus.READY: {ReferenceStatus.DISCARDED},
        ReferenceStatus.FAILED: {ReferenceStatus.DISCARDED},
        ReferenceStatus.DISCARDED: set(),
    },
    GradientLedger: {
        LedgerStatus.COMPUTING: {LedgerStatus.READY, LedgerStatus.FAILED, LedgerStatus.VOID},
        LedgerStatus.READY: {LedgerStatus.VOID},
        LedgerStatus.FAILED: {LedgerStatus.VOID},
        LedgerStatus.VOID: set(),
    },
}


def sources(table: type[Any], to: str) -> list[str]:
    """Return the statuses from which a row may move to this one."""
    return sorted(source for source, targets in MOVES[table].items() if to in targets)


def begin(session: Session, row: Row, facts: Mapping[str, Any]) -> Row:
    """Insert a row in its first status."""
    return begin_all(session, [row], lambda _: facts)[0]


def begin_all(session: Session, rows: list[Row], facts: Facts) -> list[Row]:
    """Insert rows of one table in their first status."""
    for row in rows:
        row.status = INITIAL[type(row)]
    session.add_all(rows)
    session.flush()
    _report(session, rows, facts)
    return rows


def begin_missing(
    session: Session,
    table: type[Row],
    values: list[dict[str, Any]],
    unique: Collection[InstrumentedAttribute[Any]],
    facts: Facts,
) -> list[Row]:
    """Insert rows in their first status, but those whose unique columns are taken; return the new.

    Whoever inserts the same ones at this moment is waited for.
    """
    if not values:
        return []
    statement = (
        insert(table)
        .on_conflict_do_nothing(index_elements=list(unique))
        .returning(table)
        .execution_options(populate_existing=True)
    )
    given = [{"status": INITIAL[table], **of_one} for of_one in values]
    rows = list(session.scalars(statement, given))
    _report(session, rows, facts)
    return rows


def move(
    session: Session,
    table: type[Row],
    ids: Collection[UUID],
    to: str,
    *conditions: ColumnElement[bool],
    facts: Facts | None = None,
    values: Mapping[str, Any] | None = None,
) -> list[Row]:
    """Move those of the rows that the lifecycle and the conditions allow; return them.

    One conditional UPDATE: of two that race for a row, one moves it and the other does not.
    """
    if not ids:
        return []
    statement = (
        update(table)
        # An array is one parameter, however many ids there are.
        .where(table.id == any_(bindparam("ids", list(ids), ARRAY(Uuid))))
        .where(table.status.in_(sources(table, to)), *conditions)
        .values(status=to, **(values or {}))
        .returning(table)
        .execution_options(populate_existing=True, synchronize_session=False)
    )
    rows = list(session.scalars(statement))
    _report(session, rows, facts or {})
    return rows


def move_one(
    session: Session,
    table: type[Row],
    id_: UUID,
    to: str,
    *conditions: ColumnElement[bool],
    facts: Facts | None = None,
    values: Mapping[str, Any] | None = None,
) -> Row:
    """Move one row.

    Raises:
        IllegalMove: it does not stand where this move begins, or a condition does not hold.

    """
    rows = move(session, table, [id_], to, *conditions, facts=facts, values=values)
    if not rows:
        raise IllegalMove(f"{SUBJECTS[table]} {id_} cannot become {to}")
    return rows[0]


def _report(session: Session, rows: list[Row], facts: Facts) -> None:
    of = facts if callable(facts) else lambda _: facts
    ledger.append(
        session,
        [ledger.Entry(f"{SUBJECTS[type(row)]}.{row.status}", row.id, of(row)) for row in rows],
    )
