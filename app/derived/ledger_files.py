"""The files of gradient ledgers: which has to stay, and when each goes.

A ledger's file sums over data that may be forgotten later. So that no file outlives its ledger, a
worker writes the digest into the row before the file has its name, and the row keeps the digest
until the file is gone.
"""

from collections.abc import Callable
from uuid import UUID

from sqlalchemy import ColumnElement, and_, or_, select, update
from sqlalchemy.orm import Session, aliased

from app.artifacts import lock_file
from app.audit import ledger as audit
from app.statuses import LedgerStatus, ModelStatus, VersionStatus
from app.tables import GradientLedger, ModelVersion, RegisteredModel

# A ledger that has one of these may have its file in the store, and needs it.
IN_USE = (LedgerStatus.COMPUTING, LedgerStatus.READY)


def void_files(session: Session) -> list[tuple[UUID, str]]:
    """Return the void ledgers whose files may be removed, each with its file's digest.

    Equal bytes are one file: what anything in use names is left out until that is void as well.
    So is a ledger that was ready when its version was withdrawn: the job that followed may be
    repeated for an audit, until the version is purged.
    """
    rows = session.execute(
        select(GradientLedger.id, GradientLedger.digest)
        .where(
            GradientLedger.status == LedgerStatus.VOID,
            ~_kept(GradientLedger),
            ~_needed(GradientLedger),
        )
        .order_by(GradientLedger.created_at)
    )
    return [(id_, digest) for id_, digest in rows if digest is not None]


def remove_file(session: Session, ledger_id: UUID, delete: Callable[[str], None]) -> bool:
    """Have the file of a void ledger deleted, and note in the audit log that it is gone.

    Nothing can come to need the file meanwhile. When ``delete`` raises, or the caller's
    transaction fails after it, the row still names the file, and it is tried again.

    Returns whether there was a file to delete that nothing else needs.
    """
    row = session.scalars(
        select(GradientLedger)
        .where(
            GradientLedger.id == ledger_id,
            GradientLedger.status == LedgerStatus.VOID,
            ~_kept(GradientLedger),
        )
        .with_for_update()
    ).one_or_none()
    return row is not None and remove(session, row, delete)


def remove(session: Session, row: GradientLedger, delete: Callable[[str], None]) -> bool:
    """Have a ledger's file deleted unless something else needs it; its row has to be locked."""
    digest = row.digest
    if digest is None:
        return False
    lock_file(session, digest)
    mine = select(GradientLedger.id).where(GradientLedger.id == row.id)
    if session.scalar(mine.where(~_needed(GradientLedger))) is None:
        return False
    delete(digest)
    _set_digest(session, row.id, None)
    facts = {"model": str(row.model_id), "version": str(row.version_id), "digest": digest}
    audit.append(session, [audit.Entry("ledger.removed", row.id, facts)])
    return True


def name(session: Session, ledger_id: UUID, digest: str) -> None:
    """Note which file is about to appear for a ledger; its row has to be locked."""
    lock_file(session, digest)
    _set_digest(session, ledger_id, digest)


def _set_digest(session: Session, ledger_id: UUID, digest: str | None) -> None:
    session.execute(
        update(GradientLedger).where(GradientLedger.id == ledger_id).values(digest=digest)
    )


def needs_file(row: type[GradientLedger]) -> ColumnElement[bool]:
    """Return the condition under which the file that a ledger names has to stay."""
    return or_(row.status.in_(IN_USE), _kept(row))


def _kept(row: type[GradientLedger]) -> ColumnElement[bool]:
    its = aliased(ModelVersion)
    withdrawn = select(its.id).where(
        its.id == row.version_id, its.status == VersionStatus.WITHDRAWN
    )
    # No ledger has the weights' digest before it is ready.
    void = and_(row.status == LedgerStatus.VOID, row.weights_digest.is_not(None))
    return and_(void, withdrawn.exists())


def _needed(row: type[GradientLedger]) -> ColumnElement[bool]:
    # Whether anything but the row itself names its file and must be able to read it.
    other = aliased(GradientLedger)
    version = select(ModelVersion.id).where(
        ModelVersion.digest == row.digest, ModelVersion.status != VersionStatus.PURGED
    )
    model = select(RegisteredModel.id).where(
        RegisteredModel.checkpoint_digest == row.digest,
        RegisteredModel.status != ModelStatus.READY,  # which has a version
    )
    return or_(
        select(other.id)
        .where(other.digest == row.digest, other.id != row.id, needs_file(other))
        .exists(),
        version.exists(),
        model.exists(),
    )
