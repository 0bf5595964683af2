"""Clients of the API, each with keys of its own."""

from datetime import datetime
from uuid import UUID

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
