"""A log that grows, and what somebody does to it who owns the database."""

import json
from uuid import uuid4

from sqlalchemy import select, text

from app import keys
from app.audit import ledger, published, service
from app.db import transaction
from app.keys import Purpose, SigningKey
from app.tables import APPEND_ONLY_TABLES, AuditEntry, PublishedKey, SignedHead
from lethe.verify.keys import VerifyingKey

# An entry gets other words, and the tree is made of that.
FORGERY = (
    "UPDATE audit_entries SET payload = replace(payload, 'test.event', 'best.event')",
    "DELETE FROM audit_leaves",
    "DELETE FROM audit_nodes",
    "DELETE FROM audit_heads",
    "INSERT INTO audit_pending SELECT id FROM audit_entries ON CONFLICT DO NOTHING",
)


def write(count: int = 1) -> None:
    """Log some things."""
    with transaction() as session:
        ledger.append(
            session, [ledger.Entry("test.event", uuid4(), {"n": n}) for n in range(count)]
        )


def key(purpose: Purpose = Purpose.LOG, *, generated: bool = False) -> SigningKey:
    """A new private key."""
    return SigningKey(purpose, keys.create(purpose), generated)


def sign_on_schedule() -> None:
    """What the scheduler does, in this process; the module reads the settings at its import."""
    from workers.tasks import sign_head

    sign_head()


def public_keys() -> list[VerifyingKey]:
    """What anybody can read at /v1/keys."""
    with transaction() as session:
        return published.published(session)


def rewrite(*statements: str, **values: object) -> None:
    """Change what never changes, as the tables' owner can, and compute the tree anew."""
    with transaction() as session:
        for table in APPEND_ONLY_TABLES:
            session.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER append_only"))
        for statement in statements:
            session.execute(text(statement), values)
        for table in APPEND_ONLY_TABLES:
            session.execute(text(f"ALTER TABLE {table} ENABLE TRIGGER append_only"))
    service.place_all()


def cut(size: int) -> None:
    """Leave the log as if it had never grown beyond a size, as a backup of then would."""
    rewrite(
        "DELETE FROM signed_heads WHERE size > :size",
        "DELETE FROM audit_heads WHERE size > :size",
        "CREATE TEMPORARY TABLE gone ON COMMIT DROP AS"
        " SELECT entry_id FROM audit_leaves WHERE position >= :size",
        "DELETE FROM audit_leaves WHERE position >= :size",
        "DELETE FROM audit_entries WHERE id IN (SELECT entry_id FROM gone)",
        'DELETE FROM audit_nodes WHERE ("index" + 1) << level > :size',
        size=size,
    )


def events() -> list[str]:
    """What the log tells of, oldest first."""
    with transaction() as session:
        return list(session.scalars(select(AuditEntry.event).order_by(AuditEntry.id)))


def facts_of(event: str) -> list[dict[str, object]]:
    """The facts of each entry of a kind, oldest first."""
    with transaction() as session:
        rows = session.scalars(
            select(AuditEntry.payload).where(AuditEntry.event == event).order_by(AuditEntry.id)
        )
        return [json.loads(payload)["facts"] for payload in rows]


def notes() -> list[str]:
    """Every head that was signed, oldest first."""
    with transaction() as session:
        return list(session.scalars(select(SignedHead.note).order_by(SignedHead.id)))


def retired() -> dict[str, bool]:
    """Each published key's id, and whether its end is known."""
    with transaction() as session:
        rows = session.execute(select(PublishedKey.id, PublishedKey.retired_at))
        return {id_: at is not None for id_, at in rows}


def let_pass(interval: str) -> None:
    """Let all that is known of keys and signatures be longer ago, instead of waiting."""
    rewrite(
        "UPDATE published_keys SET introduced_at = introduced_at - CAST(:interval AS interval),"
        " retired_at = retired_at - CAST(:interval AS interval)",
        interval=interval,
    )
