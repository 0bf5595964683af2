"""Cursor pages over rows in the order of a time and an id."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, tuple_
from sqlalchemy.orm import Session

from app.errors import InvalidCursor

Row = TypeVar("Row")

# Stands in the cursors of lists by the nearest time.
_NEAREST = "nearest-"
# In place of a time.
_NEVER = "never"
# A time in microseconds since 1970, and an id: each text of this form is a place in a list.
PATTERN = r"^(nearest-)?([0-9]{1,17}|never)-([0-9a-f]{32})$"
_EPOCH = datetime.fromtimestamp(0, UTC)
_UNCHANGED = "Take next_cursor from an earlier page of the same list, unchanged."


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Some rows, and where the next ones begin."""

    rows: Sequence[Row]
    next_cursor: str | None


def newest_first(
    session: Session,
    statement: Select[tuple[Row]],
    at: ColumnElement[datetime],
    id_: ColumnElement[UUID],
    cursor: str | None,
    limit: int,
) -> Page[Row]:
    """Return a page of the statement's rows; rows that are inserted meanwhile do not shift it.

    Raises:
        InvalidCursor: the cursor is not one that an earlier page gave.

    """
    if cursor is not None:
        statement = statement.where(tuple_(at, id_) < tuple_(*_decode(cursor)))
    ordered = statement.add_columns(at, id_).order_by(at.desc(), id_.desc()).limit(limit + 1)
    return _page(list(session.execute(ordered)), limit, lambda last: _encode(*last))


def nearest_first(
    session: Session,
    statement: Select[tuple[Row]],
    at: ColumnElement[datetime | None],
    id_: ColumnElement[UUID],
    cursor: str | None,
    limit: int,
) -> Page[Row]:
    """Return a page of the statement's rows, the nearest time first, those without one last.

    A row whose time changes between two pages stands where it stands then: it may come twice, or
    not at all.

    Raises:
        InvalidCursor: the cursor is not one that an earlier page gave.

    """
    after, id_after = (None, None) if cursor is None else _decode_nearest(cursor)
    found: list[Any] = []
    # Two statements, since a comparison of both columns holds for no row without a time; each of
    # them reads the rows of its page alone, in the order of an index.
    if cursor is None or after is not None:
        timed = statement.add_columns(at, id_).where(at.is_not(None))
        if after is not None:
            timed = timed.where(tuple_(at, id_) > tuple_(after, id_after))
        found += session.execute(timed.order_by(at, id_).limit(limit + 1))
    if len(found) <= limit:
        untimed = statement.add_columns(at, id_).where(at.is_(None))
        if cursor is not None and after is None:
            untimed = untimed.where(id_ > id_after)
        found += session.execute(untimed.order_by(id_).limit(limit + 1 - len(found)))
    return _page(found, limit, lambda last: _encode(*last, _NEAREST))


def _page(found: list[Any], limit: int, encode: Callable[[tuple[Any, UUID]], str]) -> Page[Any]:
    last = found[limit - 1] if len(found) > limit else None
    return Page(
        [row[0] for row in found[:limit]], None if last is None else encode((last[1], last[2]))
    )


def _encode(at: datetime | None, id_: UUID, kind: str = "") -> str:
    moment = _NEVER if at is None else str((at - _EPOCH) // timedelta(microseconds=1))
    return f"{kind}{moment}-{id_.hex}"


def _decode(cursor: str) -> tuple[datetime, UUID]:
    at, id_ = _parts(cursor, "")
    if at is None:
        raise InvalidCursor(_UNCHANGED)
    return at, id_


def _decode_nearest(cursor: str) -> tuple[datetime | None, UUID]:
    return _parts(cursor, _NEAREST)


def _parts(cursor: str, kind: str) -> tuple[datetime | None, UUID]:
    found = re.fullmatch(PATTERN, cursor, re.ASCII)
    # A cursor of another order would begin anywhere.
    if found is None or (found[1] or "") != kind:
        raise InvalidCursor(_UNCHANGED)
    at = None if found[2] == _NEVER else _EPOCH + timedelta(microseconds=int(found[2]))
    return at, UUID(found[3])
