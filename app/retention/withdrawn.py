"""Keep out the bytes of versions that were withdrawn because samples in them were forgotten."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.errors import Gone
from app.statuses import VersionStatus
from app.tables import ModelVersion

GONE = (
    "A version with these bytes was withdrawn because samples in it were forgotten. They are not "
    "taken back: use the model's current version."
)


def refuse(session: Session, digest: str) -> None:
    """Check that a digest is not that of a withdrawn or purged version.

    One that some model serves at present is as good as any other.

    Raises:
        Gone: it is, and no current version has the same bytes.

    """
    versions = select(ModelVersion.status).where(ModelVersion.digest == digest).distinct()
    found = set(session.scalars(versions))
    if found and VersionStatus.CURRENT not in found:
        raise Gone(GONE)
