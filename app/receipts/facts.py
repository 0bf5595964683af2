"""What became of a finished request, as its receipt tells it."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.deletions import service as deletions
from app.deletions.service import ErasureView
from app.statuses import ErasureStatus
from app.tables import DeletionRequest, ManifestEntry, ModelVersion, RequestedSample


@dataclass(frozen=True, slots=True)
class Forgotten:
    """One sample of the request, and the version of a model that forgot it."""

    model_id: UUID
    sample_digest: bytes
    number: int


@dataclass(frozen=True, slots=True)
class Fulfilled:
    """A request's samples, its erasures, and the versions that forgot them."""

    samples: Sequence[bytes]
    """Keyed digests, ascending."""
    erasures: Sequence[ErasureView]
    forgotten: Sequence[Forgotten]
    versions: Sequence[ModelVersion]
    """By model and number."""


def fulfilled(session: Session, request: DeletionRequest) -> Fulfilled:
    """Return what a request's completed erasures came to."""
    samples = session.scalars(
        select(RequestedSample.sample_digest)
        .where(RequestedSample.request_id == request.id)
        .order_by(RequestedSample.sample_digest)
    ).all()
    erasures = deletions.erasures_of(session, [request.id])[request.id]
    completed = [
        view.erasure.model_id for view in erasures if view.erasure.status == ErasureStatus.COMPLETED
    ]
    rows = session.execute(
        select(ManifestEntry.model_id, ManifestEntry.sample_digest, ModelVersion)
        .join(
            RequestedSample,
            (RequestedSample.sample_digest == ManifestEntry.sample_digest)
            & (RequestedSample.request_id == request.id),
        )
        .join(ModelVersion, ModelVersion.job_id == ManifestEntry.forgotten_by_job_id)
        .where(ManifestEntry.model_id.in_(completed))
        .order_by(ManifestEntry.model_id, ManifestEntry.sample_digest)
    ).all()
    versions = {version.id: version for _, _, version in rows}
    return Fulfilled(
        samples=samples,
        erasures=erasures,
        forgotten=[Forgotten(model, digest, version.number) for model, digest, version in rows],
        versions=sorted(versions.values(), key=lambda each: (each.model_id, each.number)),
    )
