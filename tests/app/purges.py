"""What tests do to versions whose time is over, and what they look up afterwards."""

import json
from datetime import timedelta
from threading import Thread
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text, update

from app import lifecycle
from app.db import transaction
from app.retention import purging
from app.statuses import VersionStatus
from app.tables import AuditEntry, ModelVersion, RegisteredModel
from tests.app.scrubbing import store

WEEK = timedelta(days=7)  # the policy's default
MINUTE = timedelta(minutes=1)


def age(version: ModelVersion, since: timedelta) -> None:
    """Let a version have been withdrawn so long ago."""
    with transaction() as session:
        session.execute(
            update(ModelVersion)
            .where(ModelVersion.id == version.id)
            .values(withdrawn_at=func.now() - since)
        )


def withdraw(version: ModelVersion, since: timedelta) -> None:
    """Withdraw the version of a model that gets no other one, so long ago."""
    with transaction() as session:
        session.get_one(RegisteredModel, version.model_id).current_version_id = None
        session.flush()
        lifecycle.move_one(session, ModelVersion, version.id, VersionStatus.WITHDRAWN)
    age(version, since)


def purge_due() -> int:
    return purging.purge_due(store())


def due() -> list[UUID]:
    with transaction() as session:
        return purging.due(session)


def status(version: ModelVersion) -> str:
    with transaction() as session:
        return session.get_one(ModelVersion, version.id).status


def is_there(version: ModelVersion) -> bool:
    return store().find(version.digest) is not None


def entries(event: str) -> list[Any]:
    """The entries of an event, in order, as they stand in the log."""
    with transaction() as session:
        statement = select(AuditEntry.payload).where(AuditEntry.event == event)
        return [json.loads(payload) for payload in session.scalars(statement.order_by("id"))]


def wait_for_a_lock(thread: Thread) -> None:
    """Return when somebody waits for an advisory lock that another one holds."""
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    while thread.is_alive():
        with transaction() as session:
            if session.scalar(text(waiting)):
                return
    raise AssertionError("it waited for nobody")
