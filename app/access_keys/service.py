"""Make keys for clients, list them, and revoke them."""

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app import pages
from app.access_keys import credentials
from app.audit import ledger
from app.db import now
from app.errors import NotFound
from app.scopes import Scope
from app.tables import AccessKey


def create(
    session: Session, name: str, scopes: Collection[Scope], expires_at: datetime | None, by: str
) -> tuple[AccessKey, str]:
    """Make a key for a client; return its row, and the key itself, which is kept nowhere.

    Args:
        session: the caller's transaction.
        name: the client's; requests belong to it.
        scopes: what the key opens.
        expires_at: from when on it opens nothing; None for never.
        by: who makes it.

    """
    text, credential = credentials.make()
    row = AccessKey(
        id=credential.id,
        name=name,
        secret_digest=credential.digest,
        scopes=sorted(set(scopes)),
        created_by=by,
        expires_at=expires_at,
    )
    session.add(row)
    session.flush()
    facts = {
        "name": name,
        "scopes": row.scopes,
        "expires_at": None if expires_at is None else expires_at.isoformat(),
    }
    _report(session, "access_key.created", row, by, facts)
    return row, text


def browse(session: Session, cursor: str | None, limit: int) -> pages.Page[AccessKey]:
    """Return a page of keys, newest first, also of those that open nothing any more.

    Raises:
        InvalidCursor: the cursor is not one that an earlier page gave.

    """
    at, id_ = AccessKey.created_at.expression, AccessKey.id.expression
    return pages.newest_first(session, select(AccessKey), at, id_, cursor, limit)


def get(session: Session, key_id: UUID) -> AccessKey:
    """Return one key.

    Raises:
        NotFound: there is none of this id.

    """
    row = session.get(AccessKey, key_id)
    if row is None:
        raise NotFound("No access key has this id.")
    return row


def revoke(session: Session, key_id: UUID, by: str) -> AccessKey:
    """Let a key open nothing more; once more changes nothing.

    Raises:
        NotFound: there is none of this id.

    """
    row = session.scalars(
        update(AccessKey)
        .where(AccessKey.id == key_id, AccessKey.revoked_at.is_(None))
        .values(revoked_at=now())
        .returning(AccessKey)
        .execution_options(populate_existing=True, synchronize_session=False)
    ).first()
    if row is None:
        return get(session, key_id)
    _report(session, "access_key.revoked", row, by, {"name": row.name})
    return row


def _report(session: Session, event: str, row: AccessKey, by: str, facts: dict[str, Any]) -> None:
    ledger.append(session, [ledger.Entry(event, row.id, {**facts, "by": by})])
