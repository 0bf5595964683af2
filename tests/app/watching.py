"""Watch what this process asks of its database."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import psycopg
from sqlalchemy import event

from app import db
from app import statements as past_sqlalchemy
from app.statements import Row, Statement


@contextmanager
def statements() -> Iterator[list[str]]:
    """The statements that are sent meanwhile, through SQLAlchemy and past it."""
    sent: list[str] = []
    execute = past_sqlalchemy.execute

    def note(_: object, __: object, statement: str, *___: object) -> None:
        sent.append(statement)

    def noting(connection: psycopg.Connection[Row], one: Statement) -> psycopg.Cursor[Row]:
        sent.append(one.text)
        return execute(connection, one)

    engine = db.engine()
    event.listen(engine, "before_cursor_execute", note)
    try:
        with patch.object(past_sqlalchemy, "execute", noting):
            yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)
