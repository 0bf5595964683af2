"""Clients of the API, each with keys of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from uuid import UUID

from sqlalchemy import event

from app import db
from app.access_keys import service
from app.db import transaction
from app.scopes import Scope


def give(name: str, *scopes: Scope, expires_at: datetime | None = None) -> str:
    """Make a key for a client; returns its text."""
    with transaction() as session:
        return service.create(session, name, scopes, expires_at, "tests")[1]


def revoke(key: str) -> None:
    """Revoke a key, given its text."""
    with transaction() as session:
        service.revoke(session, id_of(key), "tests")


def id_of(key: str) -> UUID:
    return UUID(key.split("_")[1])


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@contextmanager
def statements() -> Iterator[list[str]]:
    """What this process asks of its database."""
    asked: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        asked.append(statement)

    engine = db.engine()
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(engine, "before_cursor_execute", note)
