"""What tests do to sets of references, as workers and publications do, and what they look up."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text, update

from app import lifecycle
from app.db import transaction
from app.derived import references
from app.derived.reference_losses import Losses
from app.derived.references import ToMake
from app.tables import AuditEntry, ManifestEntry, ReferenceSet, RegisteredModel, UnlearningJob
from lethe.policy import Policy, References

LEASE = timedelta(seconds=60)
NONE = Policy(references=References(count=0))
SAMPLES = tuple("abcdef")
DIGEST = "sha256:" + "d" * 64


def claim(set_id: UUID) -> ToMake:
    with transaction() as session:
        to_make = references.claim(session, set_id, LEASE)
    assert to_make is not None
    return to_make


def record(to_make: ToMake, shown: Losses) -> bool:
    with transaction() as session:
        return references.record(session, to_make, shown)


def row(set_id: UUID) -> ReferenceSet:
    with transaction() as session:
        return session.get_one(ReferenceSet, set_id)


def count(table: type[Any], *conditions: Any) -> int:
    with transaction() as session:
        return session.scalar(select(func.count()).select_from(table).where(*conditions)) or 0


def events(set_id: UUID) -> list[str]:
    with transaction() as session:
        entries = select(AuditEntry.event).where(AuditEntry.subject == set_id)
        return list(session.scalars(entries.order_by(AuditEntry.id)))


def expire(set_id: UUID) -> None:
    with transaction() as session:
        session.execute(
            update(ReferenceSet)
            .where(ReferenceSet.id == set_id)
            .values(lease_expires_at=text("now() - interval '1s'"))
        )


def mark_forgotten(session: Any, model_id: UUID, sample_digest: bytes) -> None:
    """Do what publishing does to the manifest and to the references."""
    parent_id = session.get_one(RegisteredModel, model_id).current_version_id
    job = lifecycle.begin(
        session,
        UnlearningJob(
            model_id=model_id, parent_version_id=parent_id, policy={}, seed=0, sample_count=1
        ),
        {},
    )
    session.execute(
        update(ManifestEntry)
        .where(ManifestEntry.model_id == model_id, ManifestEntry.sample_digest == sample_digest)
        .values(forgotten_by_job_id=job.id)
    )
    forgotten = select(ManifestEntry.sample_digest).where(
        ManifestEntry.forgotten_by_job_id == job.id
    )
    references.forget(session, model_id, forgotten)
