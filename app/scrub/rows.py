"""Which files the database asks for: those that must be whole, and those that must not go."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from sqlalchemy import ColumnElement, and_, func, or_, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.statuses import LedgerStatus, ModelStatus, VersionStatus
from app.tables import GradientLedger, ModelVersion, RegisteredModel


class Role(StrEnum):
    """What a file is for; the most urgent first."""

    CURRENT = "current version"
    CHECKPOINT = "checkpoint being checked"
    LEDGER = "gradient ledger"
    WITHDRAWN = "withdrawn version"


@dataclass(frozen=True, slots=True)
class Need:
    """A row that asks for a whole file."""

    role: Role
    model: str
    version: int | None
    digest: str
    size_bytes: int | None
    """As it was when the row was written; None where the row does not say."""

    @property
    def urgency(self) -> tuple[int, str, int]:
        """The order in which an operator wants to hear of it."""
        return list(Role).index(self.role), self.model, -(self.version or 0)


def needs(session: Session, digests: Collection[str] | None = None) -> list[Need]:
    """Return what asks for a whole file, or for one of these; the most urgent first."""
    name = RegisteredModel.name
    versions = session.execute(
        select(
            name,
            ModelVersion.number,
            ModelVersion.status,
            ModelVersion.digest,
            ModelVersion.size_bytes,
        )
        .join(RegisteredModel, RegisteredModel.id == ModelVersion.model_id)
        .where(ModelVersion.status != VersionStatus.PURGED, _among(ModelVersion.digest, digests))
    )
    found = [
        Need(
            Role.CURRENT if status == VersionStatus.CURRENT else Role.WITHDRAWN,
            model,
            number,
            digest,
            size_bytes,
        )
        for model, number, status, digest, size_bytes in versions
    ]
    checkpoints = session.execute(
        select(name, RegisteredModel.checkpoint_digest).where(
            RegisteredModel.status == ModelStatus.CHECKING,
            _among(RegisteredModel.checkpoint_digest, digests),
        )
    )
    found += [Need(Role.CHECKPOINT, model, None, digest, None) for model, digest in checkpoints]
    ledgers = session.execute(
        select(name, ModelVersion.number, GradientLedger.digest)
        .join(RegisteredModel, RegisteredModel.id == GradientLedger.model_id)
        .join(ModelVersion, ModelVersion.id == GradientLedger.version_id)
        .where(GradientLedger.status == LedgerStatus.READY, _among(GradientLedger.digest, digests))
    )
    found += [
        Need(Role.LEDGER, model, number, digest, None)
        for model, number, digest in ledgers
        if digest is not None
    ]
    return sorted(found, key=lambda need: need.urgency)


def named(
    session: Session, older_than: timedelta, digests: Collection[str] | None = None
) -> set[str]:
    """Return the digests, or those among these, whose files are not the scrub's to remove.

    A ledger's file is removed by the service, whatever became of the ledger. The checkpoint of a
    model that was rejected lately may be registered again.
    """
    lately = RegisteredModel.checked_at > func.clock_timestamp() - older_than
    columns = (
        select(ModelVersion.digest).where(
            ModelVersion.status != VersionStatus.PURGED, _among(ModelVersion.digest, digests)
        ),
        select(RegisteredModel.checkpoint_digest).where(
            or_(
                RegisteredModel.status == ModelStatus.CHECKING,
                and_(RegisteredModel.status == ModelStatus.REJECTED, lately),
            ),
            _among(RegisteredModel.checkpoint_digest, digests),
        ),
        select(GradientLedger.digest).where(
            GradientLedger.digest.is_not(None), _among(GradientLedger.digest, digests)
        ),
    )
    return {digest for column in columns for digest in session.scalars(column) if digest}


def purged(session: Session) -> set[str]:
    """Return the digests of versions that were purged; other versions may have the same bytes."""
    versions = select(ModelVersion.digest).where(ModelVersion.status == VersionStatus.PURGED)
    return set(session.scalars(versions))


def _among(
    column: InstrumentedAttribute[str] | InstrumentedAttribute[str | None],
    digests: Collection[str] | None,
) -> ColumnElement[bool]:
    return true() if digests is None else column.in_(digests)
