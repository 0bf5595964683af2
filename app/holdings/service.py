"""Which deletions are in a version, and which versions a sample was in; asked by keyed digest."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Select, and_, select
from sqlalchemy.orm import Session

from app import pages
from app.errors import NotFound
from app.statuses import ErasureStatus
from app.tables import Erasure, ManifestEntry, ModelVersion, RegisteredModel


@dataclass(frozen=True, slots=True)
class Deletion:
    """One request's samples that a version is without, and the version that forgot them."""

    erasure: Erasure
    version: ModelVersion


@dataclass(frozen=True, slots=True)
class Holding:
    """A model that was trained on a sample, and the version that forgot it, if one did."""

    model: RegisteredModel
    forgotten_by: ModelVersion | None


def deletions_in(
    session: Session, version: ModelVersion, cursor: str | None, limit: int
) -> pages.Page[Erasure]:
    """Return a page of the erasures that a version and those before it completed, newest first."""
    earlier = select(ModelVersion.id).where(
        ModelVersion.model_id == version.model_id, ModelVersion.number <= version.number
    )
    statement: Select[tuple[Erasure]] = select(Erasure)
    statement = statement.where(
        Erasure.version_id.in_(earlier), Erasure.status == ErasureStatus.COMPLETED
    )
    at = Erasure.created_at
    return pages.newest_first(
        session, statement, at.expression, Erasure.id.expression, cursor, limit
    )


def versions_of(session: Session, erasures: Sequence[Erasure]) -> dict[UUID, ModelVersion]:
    """Return the versions that completed erasures, by their ids."""
    ids = {erasure.version_id for erasure in erasures}
    rows = session.scalars(select(ModelVersion).where(ModelVersion.id.in_(ids)))
    return {row.id: row for row in rows}


def holdings_of(session: Session, sample_digest: bytes) -> list[Holding]:
    """Return the models that were trained on a sample, by name; none if no model ever was."""
    rows = session.execute(
        select(RegisteredModel, ModelVersion)
        .join(ManifestEntry, ManifestEntry.model_id == RegisteredModel.id)
        .outerjoin(
            ModelVersion,
            and_(
                ManifestEntry.forgotten_by_job_id.is_not(None),
                ModelVersion.job_id == ManifestEntry.forgotten_by_job_id,
            ),
        )
        .where(
            ManifestEntry.sample_digest == sample_digest,
            # A model in check has a manifest already, and no version yet.
            RegisteredModel.current_version_id.is_not(None),
        )
        .order_by(RegisteredModel.name)
    )
    return [Holding(model, version) for model, version in rows]


def versions_named(session: Session, digest: str) -> list[ModelVersion]:
    """Return the versions whose weights have a digest; equal weights may serve two models.

    Raises:
        NotFound: none has.

    """
    found = list(session.scalars(select(ModelVersion).where(ModelVersion.digest == digest)))
    if not found:
        raise NotFound("No version has weights of this digest.")
    return found
