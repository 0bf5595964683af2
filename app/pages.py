"""Cursor pages over rows in the order of a time and an id."""

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, tuple_
from sqlalchemy.orm import Session

from app.errors import InvalidCursor

Row = TypeVar("Row")


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
    found: list[Any] = list(session.execute(ordered))
    more = len(found) > limit
    last = found[limit - 1] if more else None
    return Page([row[0] for row in found[:limit]], _encode(last[1], last[2]) if last else None)


def _encode(at: datetime, id_: UUID) -> str:
    raw = json.dumps([at.isoformat(), str(id_)]).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decode(cursor: str) -> tuple[datetime, UUID]:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        at, id_ = json.loads(raw)
        when = datetime.fromisoformat(at)
        if when.tzinfo is None:
            raise ValueError("a time without a zone")
        return when, UUID(id_)
    except (binascii.Error, ValueError, TypeError, AttributeError) as error:
        raise InvalidCursor("Take next_cursor from an earlier page, unchanged.") from error
