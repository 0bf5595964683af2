"""What of a model's manifest everything that is computed from its data has to leave out."""

from uuid import UUID

from sqlalchemy import Select, select

from app.tables import ManifestEntry


def forgotten(model_id: UUID) -> Select[bytes]:
    """Select the digests of the samples that a model has forgotten."""
    return select(ManifestEntry.sample_digest).where(
        ManifestEntry.model_id == model_id, ManifestEntry.forgotten_by_job_id.is_not(None)
    )
