"""Every table. Statuses are written by ``app.lifecycle`` alone, and audit rows never change."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    SmallInteger,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.db import now
from app.statuses import ErasureStatus, JobStatus, ModelStatus, RequestStatus, VersionStatus

type_map: dict[Any, Any] = {
    str: Text(),
    datetime: DateTime(timezone=True),
    int: BigInteger(),
    bytes: LargeBinary(),
    dict[str, Any]: JSONB(none_as_null=True),
    list[Any]: JSONB(none_as_null=True),
}


class Base(DeclarativeBase):
    """Gives constraints names that migrations can refer to."""

    type_annotation_map = type_map
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def _one_of(statuses: type[StrEnum]) -> CheckConstraint:
    values = ", ".join(f"'{status}'" for status in statuses)
    return CheckConstraint(f"status IN ({values})", name="status")


class RegisteredModel(Base):
    """A name, a recipe, a base checkpoint and a policy."""

    __tablename__ = "registered_models"
    __table_args__ = (_one_of(ModelStatus),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str] = mapped_column(unique=True)
    recipe: Mapped[str]
    checkpoint_digest: Mapped[str]
    policy: Mapped[dict[str, Any]]
    status: Mapped[str]
    problems: Mapped[list[Any] | None]
    check_attempts: Mapped[int] = mapped_column(default=0)
    check_lease_expires_at: Mapped[datetime | None]
    data_fingerprint: Mapped[str | None]
    id_key_id: Mapped[str | None]
    sample_count: Mapped[int | None]
    current_version_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("model_versions.id", use_alter=True)
    )
    created_at: Mapped[datetime] = mapped_column(default=now)
    checked_at: Mapped[datetime | None]


class ManifestEntry(Base):
    """One sample of a model's training data, by keyed digest; and the job that forgot it."""

    __tablename__ = "manifest_entries"

    model_id: Mapped[UUID] = mapped_column(ForeignKey("registered_models.id"), primary_key=True)
    sample_digest: Mapped[bytes] = mapped_column(primary_key=True)
    forgotten_by_job_id: Mapped[UUID | None] = mapped_column(ForeignKey("unlearning_jobs.id"))
    # Finds every model that holds a sample, which is how a request becomes erasures.
    __table_args__ = (
        Index(None, "sample_digest"),
        Index(
            "ix_manifest_entries_forgotten",
            "forgotten_by_job_id",
            postgresql_where=text("forgotten_by_job_id IS NOT NULL"),
        ),
    )


class ModelVersion(Base):
    """Immutable weights. A parent has one child, so that versions form one chain."""

    __tablename__ = "model_versions"
    __table_args__ = (
        _one_of(VersionStatus),
        UniqueConstraint("model_id", "number"),
        CheckConstraint("(number = 1) = (parent_id IS NULL)", name="first_has_no_parent"),
        Index(
            "uq_model_versions_one_current",
            "model_id",
            unique=True,
            postgresql_where=text("status = 'current'"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    model_id: Mapped[UUID] = mapped_column(ForeignKey("registered_models.id"))
    number: Mapped[int]
    digest: Mapped[str]
    size_bytes: Mapped[int]
    parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("model_versions.id"), unique=True)
    job_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("unlearning_jobs.id", use_alter=True), unique=True
    )
    method: Mapped[str | None]
    guarantee: Mapped[str | None]
    status: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)


class DeletionRequest(Base):
    """The legal promise. Its sample IDs are kept as keyed digests in ``requested_samples``."""

    __tablename__ = "deletion_requests"
    __table_args__ = (
        _one_of(RequestStatus),
        UniqueConstraint("client", "idempotency_key_digest"),
        Index(None, "received_at", "id"),
        Index(None, "status", "received_at", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    client: Mapped[str]
    # The key and the body may hold personal data, so that only keyed digests are kept.
    idempotency_key_digest: Mapped[bytes | None]
    body_digest: Mapped[bytes]
    model_id: Mapped[UUID | None] = mapped_column(ForeignKey("registered_models.id"))
    regulation: Mapped[str]
    reference: Mapped[str | None]
    reason: Mapped[str | None]
    sample_count: Mapped[int]
    id_key_id: Mapped[str]
    status: Mapped[str]
    received_at: Mapped[datetime] = mapped_column(default=now)
    due_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class RequestedSample(Base):
    """One sample of one request, by keyed digest."""

    __tablename__ = "requested_samples"
    __table_args__ = (Index(None, "sample_digest"),)

    request_id: Mapped[UUID] = mapped_column(ForeignKey("deletion_requests.id"), primary_key=True)
    sample_digest: Mapped[bytes] = mapped_column(primary_key=True)


class Erasure(Base):
    """One request × one model: the piece of the promise that one job fulfils."""

    __tablename__ = "erasures"
    __table_args__ = (
        _one_of(ErasureStatus),
        UniqueConstraint("request_id", "model_id"),
        CheckConstraint(
            "(status = 'completed') = (version_id IS NOT NULL)", name="completed_has_version"
        ),
        Index(
            "ix_erasures_to_plan",
            "model_id",
            "due_at",
            "created_at",
            postgresql_where=text("status = 'pending'"),
        ),
        Index(None, "job_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    request_id: Mapped[UUID] = mapped_column(ForeignKey("deletion_requests.id"))
    model_id: Mapped[UUID] = mapped_column(ForeignKey("registered_models.id"))
    job_id: Mapped[UUID | None] = mapped_column(ForeignKey("unlearning_jobs.id"))
    version_id: Mapped[UUID | None] = mapped_column(ForeignKey("model_versions.id"))
    sample_count: Mapped[int]
    status: Mapped[str]
    due_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]


class UnlearningJob(Base):
    """One batch of erasures for one model, from one parent version."""

    __tablename__ = "unlearning_jobs"
    __table_args__ = (
        _one_of(JobStatus),
        Index(
            "uq_unlearning_jobs_one_unfinished",
            "model_id",
            unique=True,
            postgresql_where=text("status IN ('queued', 'running')"),
        ),
        Index(None, "created_at", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    model_id: Mapped[UUID] = mapped_column(ForeignKey("registered_models.id"))
    parent_version_id: Mapped[UUID] = mapped_column(ForeignKey("model_versions.id"))
    policy: Mapped[dict[str, Any]]
    seed: Mapped[int]
    sample_count: Mapped[int]
    status: Mapped[str]
    attempts: Mapped[int] = mapped_column(default=0)
    # Raised by every claim; what a former holder of the lease still writes is refused by it.
    fence: Mapped[int] = mapped_column(default=0)
    lease_expires_at: Mapped[datetime | None]
    worker: Mapped[str | None]
    progress: Mapped[dict[str, Any] | None]
    error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Rung(Base):
    """One method that a job tried, with all that verification found."""

    __tablename__ = "rungs"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("unlearning_jobs.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    method: Mapped[str]
    guarantee: Mapped[str | None]
    passed: Mapped[bool]
    verdict: Mapped[dict[str, Any] | None]
    evidence: Mapped[dict[str, Any]]
    seconds: Mapped[float]
    created_at: Mapped[datetime] = mapped_column(default=now)


class AuditEntry(Base):
    """What happened, as canonical JSON: the bytes that a leaf of the log hashes."""

    __tablename__ = "audit_entries"
    __table_args__ = (Index(None, "subject"),)

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    event: Mapped[str]
    subject: Mapped[UUID]
    payload: Mapped[str]


class AuditPending(Base):
    """An entry that was committed and has no place in the log yet."""

    __tablename__ = "audit_pending"

    entry_id: Mapped[int] = mapped_column(ForeignKey("audit_entries.id"), primary_key=True)


class AuditLeaf(Base):
    """An entry's place in the log."""

    __tablename__ = "audit_leaves"

    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    entry_id: Mapped[int] = mapped_column(ForeignKey("audit_entries.id"), unique=True)


class AuditNode(Base):
    """The hash of a complete subtree of 2^level leaves, the index-th of its level."""

    __tablename__ = "audit_nodes"

    level: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    hash: Mapped[bytes]


class AuditHead(Base):
    """A tree head that was shown to somebody; every later one is consistent with it."""

    __tablename__ = "audit_heads"

    size: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    root_hash: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(default=now)


APPEND_ONLY_TABLES = ("audit_entries", "audit_leaves", "audit_nodes", "audit_heads")
