"""The only functions that write a status; ``app.moves`` says which moves are allowed.

Each move appends its audit entry in the same transaction, so that the log has no gaps, and has the
clients concerned told of it.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Uuid, any_, bindparam, select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql.expression import Executable

from app.audit import ledger
from app.callbacks import announcing
from app.errors import IllegalMove
from app.moves import INITIAL, SUBJECTS, sources
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

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]
# Where a session keeps the entries of a block.
_TOLD = "lifecycle.told"


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

    All name the same columns, and each that has no default in the database. Whoever inserts the
    same ones at this moment is waited for.
    """
    if not values:
        return []
    given = [{"status": INITIAL[table], **of_one} for of_one in values]
    statement = _insertion(table, tuple(given[0]), tuple(each.key for each in unique))
    rows = list(session.scalars(statement, {"given": json.dumps(given, default=_as_json)}))
    _report(session, rows, facts)
    return rows


@cache
def _insertion(table: type[Any], names: tuple[str, ...], unique: tuple[str, ...]) -> Executable:
    # One statement with one parameter, however many rows. SQLAlchemy looks through a statement of
    # its own making at each use, which takes longer than PostgreSQL does.
    columns = table.__table__.c
    types = (f"{name} {columns[name].type.compile(dialect=_DIALECT)}" for name in names)
    inserted = text(
        f"INSERT INTO {table.__tablename__} ({', '.join(names)}) "  # noqa: S608  our own names
        f"SELECT * FROM json_to_recordset(CAST(:given AS json)) AS given ({', '.join(types)}) "
        f"ON CONFLICT ({', '.join(unique)}) DO NOTHING "
        f"RETURNING {', '.join(columns.keys())}"
    ).columns(*columns)
    return select(table).from_statement(inserted).execution_options(populate_existing=True)


def _as_json(value: object) -> str:
    """Return what PostgreSQL reads as the value of a column."""
    match value:
        case bytes():
            return "\\x" + value.hex()
        case datetime():
            return value.isoformat()
        case UUID():
            return str(value)
    raise TypeError(f"no column takes a {type(value).__name__}")


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


@contextmanager
def together(session: Session) -> Iterator[None]:
    """Append the entries of all that begins and moves in this block in one statement, at its end.

    Whoever leaves the block by an exception rolls back: nothing is appended then.
    """
    told: list[ledger.Entry] = []
    session.info[_TOLD] = told
    try:
        yield
    finally:
        del session.info[_TOLD]
    ledger.append(session, told)


def _report(session: Session, rows: list[Any], facts: Facts) -> None:
    of = facts if callable(facts) else lambda _: facts
    entries = [ledger.Entry(f"{SUBJECTS[type(row)]}.{row.status}", row.id, of(row)) for row in rows]
    told = session.info.get(_TOLD)
    if told is None:
        ledger.append(session, entries)
    else:
        told += entries
    requests = [row for row in rows if isinstance(row, DeletionRequest)]
    if requests:
        announcing.announce(session, requests)
