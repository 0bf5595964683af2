"""Several statements in one round trip to PostgreSQL, which prepares them once a connection.

For the path that every request takes: there, what SQLAlchemy does around a statement takes longer
than the statement, and a thread that waits for an answer has to wait for the interpreter, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.db import engine

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Statement:
    """What to execute, with parameters as in ``%(name)s``."""

    text: str
    parameters: Mapping[str, Any] | None = None
    prepared: bool = True
    """One plan will do, whatever the parameters are: PostgreSQL may keep it."""


def ask(session: Session, *statements: Statement) -> list[list[Row]]:
    """Execute statements in this order, in the session's transaction; return the rows of each.

    They are sent together: none can depend on what Python makes of an earlier one's rows. Each
    sees what those before it did, and what others committed until it began.

    Raises:
        sqlalchemy.exc.DBAPIError: one of them failed; those after it were not executed.

    """
    connection = driver(session)
    try:
        if len(statements) == 1:
            cursors = [execute(connection, statements[0])]
        else:
            with connection.pipeline():
                cursors = [execute(connection, one) for one in statements]
        return [[] if one.description is None else one.fetchall() for one in cursors]
    except psycopg.Error as error:
        raise translated(error) from error


def driver(session: Session) -> psycopg.Connection[Row]:
    """Return the driver's own connection under the session's transaction."""
    connection = session.connection().connection.driver_connection
    assert isinstance(connection, psycopg.Connection)  # noqa: S101  # the one dialect
    return connection


def translated(error: psycopg.Error) -> BaseException:
    """Return what SQLAlchemy would have raised, with neither statement nor parameters."""
    return DBAPIError.instance(
        None, None, error, psycopg.Error, hide_parameters=True, dialect=engine().dialect
    )


def execute(connection: psycopg.Connection[Row], one: Statement) -> psycopg.Cursor[Row]:
    """Execute one of them; within a pipeline, have it sent."""
    # The text is ours alone; whatever comes from outside is a parameter.
    return connection.execute(one.text.encode(), one.parameters, prepare=one.prepared)
