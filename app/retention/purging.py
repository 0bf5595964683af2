"""Purge withdrawn versions: their weights and what was computed from them go, for good.

The rows say so only when the files are gone durably: whoever dies in between leaves a version that
still counts as withdrawn, and the next pass completes it.
"""

from collections.abc import Callable, Collection, Sequence
from uuid import UUID

import structlog
from sqlalchemy import select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app import lifecycle
from app.artifacts import ArtifactStore, lock_file
from app.db import now, transaction
from app.derived import ledger_files, ledgers
from app.errors import StorageFailed
from app.retention import plans
from app.statuses import VersionStatus
from app.tables import GradientLedger, JobRecord, ModelVersion

log = structlog.get_logger()


def due(session: Session) -> list[UUID]:
    """Return the versions that can be purged now: their time has come, and nothing needs them."""
    versions = plans.due_versions(session)
    return [id_ for id_, waits_for in plans.waits(session, versions).items() if not waits_for]


def purge(
    session: Session, version_id: UUID, delete: Callable[[str], None]
) -> Sequence[ModelVersion]:
    """Have a version's files deleted, and note that it is purged; return what was.

    All versions with the same bytes go together, when each of them is due. None goes, which is no
    error, while anything else needs the bytes, or when the version was purged meanwhile.
    """
    found = session.get(ModelVersion, version_id)
    if found is None:
        return []
    # Nobody can come to need the file from here on; whoever did before is seen below.
    lock_file(session, found.digest)
    versions = plans.due_versions(session)
    leaving = [each.id for each in versions if each.digest == found.digest]
    waiting = plans.waits(session, versions)
    if version_id not in leaving or any(waiting[id_] for id_ in leaving):
        return []
    for id_ in leaving:
        ledgers.void(session, id_, "purged")
    sums = _ledgers(session, leaving)
    losses = _forget_losses(session, leaving)
    purged = lifecycle.move(
        session,
        ModelVersion,
        leaving,
        VersionStatus.PURGED,
        values={"purged_at": now()},
        facts=lambda version: {
            "model": str(version.model_id),
            "number": version.number,
            "digest": version.digest,
            "ledger_digest": sums[version.id].digest if version.id in sums else None,
            "losses_of_job": losses.get(version.id),
        },
    )
    # Not committed yet: whatever goes wrong with a file takes the move back.
    for row in sums.values():
        ledger_files.remove_file(session, row.id, delete)
    delete(found.digest)
    return purged


def purge_due(store: ArtifactStore) -> int:
    """Purge every version that can be purged now, each for itself; return how many were.

    What cannot be removed stays withdrawn, and is tried again at the next call.
    """
    with transaction() as session:
        ids = due(session)
    purged = 0
    for id_ in ids:
        try:
            with transaction() as session:
                gone = purge(session, id_, store.remove)
        except (StorageFailed, DBAPIError) as error:
            why = error.detail if isinstance(error, StorageFailed) else type(error).__name__
            log.error("version.not_purged", version=str(id_), error=why)
            continue
        for version in gone:
            log.info("version.purged", version=str(version.id), digest=version.digest)
        purged += len(gone)
    return purged


def _ledgers(session: Session, version_ids: Collection[UUID]) -> dict[UUID, GradientLedger]:
    rows = session.scalars(
        select(GradientLedger).where(
            GradientLedger.version_id.in_(version_ids), GradientLedger.digest.is_not(None)
        )
    )
    return {row.version_id: row for row in rows}


def _forget_losses(session: Session, version_ids: Collection[UUID]) -> dict[UUID, str]:
    # Numbers about single samples, which the job that began from these weights was given; by the
    # version that it began from.
    rows = session.execute(
        update(JobRecord)
        .where(
            JobRecord.job_id == ModelVersion.job_id,
            ModelVersion.parent_id.in_(version_ids),
            JobRecord.losses.is_not(None),
        )
        .values(losses=None)
        .returning(ModelVersion.parent_id, JobRecord.job_id)
        .execution_options(synchronize_session=False)
    )
    return {version_id: str(job_id) for version_id, job_id in rows if version_id is not None}
