"""The only functions that write a status; ``app.moves`` says which moves are allowed.

Each move appends its audit entry in the same transaction, so that the log has no gaps, and has the
clients concerned told of it.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Uuid, any_, bindparam, inspect, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import InstrumentedAttribute, Session, make_transient_to_detached
from sqlalchemy.orm.attributes import set_committed_value

from app.audit import ledger
from app.callbacks import announcing
from app.errors import IllegalMove
from app.moves import INITIAL, SUBJECTS, sources
from app.statements import Statement, ask
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
    rows: Sequence[Row],
    unique: Collection[InstrumentedAttribute[Any]],
    facts: Facts,
) -> list[Row]:
    """Insert rows in their first status, but those whose unique columns are taken; return the new.

    Whoever inserts the same ones at this moment is waited for.
    """
    if not rows:
        return []
    for row in rows:
        row.status = INITIAL[type(row)]
    (found,) = ask(session, insertion(rows, unique))
    ids = {id_ for (id_,) in found}
    new = keep(session, [row for row in rows if row.id in ids])
    _report(session, new, facts)
    return new


def begun(row: Row, facts: Mapping[str, Any]) -> ledger.Entry:
    """Give a row that is yet to be inserted its first status; return the entry that goes with it.

    For many rows in few statements: this, ``moved``, ``insertion`` and ``keep`` do together what
    ``begin`` and ``move`` do. Their caller appends the entries, and tells clients.
    """
    row.status = INITIAL[type(row)]
    return _entry(row, facts)


def moved(row: Row, to: str, facts: Mapping[str, Any]) -> ledger.Entry:
    """Move a row that is yet to be inserted; return the entry that goes with it.

    Raises:
        IllegalMove: it does not stand where this move begins.

    """
    if row.status not in sources(type(row), to):
        raise IllegalMove(f"{SUBJECTS[type(row)]} {row.id} cannot become {to}")
    row.status = to
    return _entry(row, facts)


def insertion(rows: Sequence[Row], unique: Collection[InstrumentedAttribute[Any]]) -> Statement:
    """Return the statement that inserts rows of one table, and returns the ids of the new ones.

    Those whose unique columns are taken are left out. It fills no column by itself.
    """
    table = type(rows[0])
    names = table.__table__.c.keys()
    # Of what is not given, JSON says nothing, and it becomes NULL.
    given = [{name: row.__dict__[name] for name in names if name in row.__dict__} for row in rows]
    return Statement(
        _insertion(table, tuple(each.key for each in unique)),
        {"given": json.dumps(given, default=_as_json)},
    )


def keep(session: Session, rows: Sequence[Row]) -> list[Row]:
    """Have the session know rows that were inserted past it; return them."""
    for row in rows:
        if row in session:
            continue
        # What is not given is NULL, and not yet to be read.
        for name in inspect(row).unloaded:
            set_committed_value(row, name, None)
        make_transient_to_detached(row)
    session.add_all(rows)
    return list(rows)


@cache
def _insertion(table: type[Any], unique: tuple[str, ...]) -> str:
    # One parameter, however many rows.
    columns = table.__table__.c
    types = (f"{column.name} {column.type.compile(dialect=_DIALECT)}" for column in columns)
    names = ", ".join(columns.keys())
    return (
        f"INSERT INTO {table.__tablename__} ({names}) "  # noqa: S608  our own names
        f"SELECT * FROM json_to_recordset(%(given)s::json) AS given ({', '.join(types)}) "
        f"ON CONFLICT ({', '.join(unique)}) DO NOTHING RETURNING id"
    )


def _as_json(value: object) -> str:
    """Return what PostgreSQL reads as the value of a column."""
    match value:
        case bytes():
            return "\\x" + value.hex()
        case datetime():
            return value.isoformat()
        case UUID():
            return str(value)
        case timedelta():
            return f"{value // timedelta(microseconds=1)} microseconds"
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


def _report(session: Session, rows: list[Any], facts: Facts) -> None:
    of = facts if callable(facts) else lambda _: facts
    ledger.append(session, [_entry(row, of(row)) for row in rows])
    requests = [row for row in rows if isinstance(row, DeletionRequest)]
    if requests:
        announcing.announce(session, requests)


def _entry(row: Any, facts: Mapping[str, Any]) -> ledger.Entry:
    return ledger.Entry(f"{SUBJECTS[type(row)]}.{row.status}", row.id, facts)
