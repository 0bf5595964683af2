"""Find out whose key somebody shows."""

import hmac
from datetime import datetime, timedelta

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from app.access_keys import credentials
from app.db import now, transaction
from app.scopes import Client, Identity, Scope
from app.tables import AccessKey

# How exactly it is known when a key was last used: each use within it costs no write.
USE_NOTED_EVERY = timedelta(minutes=1)
# Compared with where there is no such key, so that the work is the same.
NOBODYS = bytes(32)


def identify(text: str) -> Identity | None:
    """Return whose key this is; None for an unknown, wrong, expired or revoked one alike.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database does not answer.

    """
    shown = credentials.read(text)
    if shown is None:
        return None
    with transaction() as session:
        row = session.get(AccessKey, shown.id)
        right = hmac.compare_digest(shown.digest, NOBODYS if row is None else row.secret_digest)
        at = now()
        if row is None or not right or not is_valid(row, at):
            return None
        _note_use(session, row, at)
    # A scope that this release does not know opens nothing.
    scopes = frozenset(scope for scope in Scope if scope in row.scopes)
    return Identity(Client(row.name, scopes), row.expires_at)


def is_valid(row: AccessKey, at: datetime) -> bool:
    """Tell whether a key opens anything at a time."""
    return row.revoked_at is None and (row.expires_at is None or at < row.expires_at)


def _note_use(session: Session, row: AccessKey, at: datetime) -> None:
    due = or_(AccessKey.last_used_at.is_(None), AccessKey.last_used_at <= at - USE_NOTED_EVERY)
    if row.last_used_at is not None and row.last_used_at > at - USE_NOTED_EVERY:
        return
    # Whoever holds the row notes it, or revokes it; nobody waits for that to call.
    free = select(AccessKey.id).where(AccessKey.id == row.id, due).with_for_update(skip_locked=True)
    session.execute(
        update(AccessKey)
        .where(AccessKey.id.in_(free.scalar_subquery()))
        .values(last_used_at=at)
        .execution_options(synchronize_session=False)
    )
