"""What tests do to gradient ledgers, as workers do, and what they look up."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import select, text, update

from app.db import transaction
from app.derived import leasing, ledger_files, ledgers
from app.derived.ledgers import Kept, ToCompute
from app.tables import AuditEntry, GradientLedger, RegisteredModel
from lethe.policy import Batching, Policy, References

LEASE = timedelta(seconds=60)
# No method of the ladder wants a ledger, so that each one here is the test's own.
POLICY = Policy(
    batching=Batching(max_wait=timedelta(0)), ladder=("retrain",), references=References(count=0)
)
FILE = "sha256:" + "f" * 64
OTHER_FILE = "sha256:" + "e" * 64
DATA = "sha256:" + "d" * 64
RECIPE = "sha256:" + "c" * 64


def begin(model_id: UUID) -> UUID:
    with transaction() as session:
        version_id = session.get_one(RegisteredModel, model_id).current_version_id
        assert version_id is not None
        return ledgers.begin(session, model_id, version_id).id


def claim(ledger_id: UUID) -> ToCompute:
    with transaction() as session:
        claimed = ledgers.claim(session, ledger_id, LEASE)
    assert claimed is not None
    return claimed


def announce(claimed: ToCompute, digest: str = FILE) -> list[str]:
    deleted: list[str] = []
    with transaction() as session:
        ledgers.announce(session, claimed, digest, deleted.append)
    return deleted


def finish(claimed: ToCompute, digest: str = FILE) -> None:
    with transaction() as session:
        ledgers.finish(session, claimed, digest, 4, RECIPE, DATA, 1.5)


def compute(model_id: UUID, digest: str = FILE) -> ToCompute:
    claimed = claim(begin(model_id))
    finish(claimed, digest)
    return claimed


def void(claimed: ToCompute) -> None:
    with transaction() as session:
        assert ledgers.void(session, claimed.version_id, "test") is not None


def die() -> None:
    """Let every lease run out, as those of dead workers do."""
    with transaction() as session:
        session.execute(
            update(GradientLedger).values(lease_expires_at=text("now() - interval '1 second'"))
        )


def row(ledger_id: UUID) -> GradientLedger:
    with transaction() as session:
        return session.get_one(GradientLedger, ledger_id)


def found(claimed: ToCompute) -> Kept | None:
    with transaction() as session:
        return ledgers.find(session, claimed.version_id)


def waiting() -> list[UUID]:
    with transaction() as session:
        return leasing.waiting(session, GradientLedger)


def void_files() -> list[tuple[UUID, str]]:
    with transaction() as session:
        return ledger_files.void_files(session)


def remove(ledger_id: UUID) -> list[str]:
    """Remove a ledger's file and return what was deleted."""
    deleted: list[str] = []
    with transaction() as session:
        told = ledger_files.remove_file(session, ledger_id, deleted.append)
    assert told == bool(deleted)
    return deleted


def events(subject: UUID) -> list[str]:
    with transaction() as session:
        statement = select(AuditEntry.event).where(AuditEntry.subject == subject)
        return list(session.scalars(statement.order_by(AuditEntry.id)))
