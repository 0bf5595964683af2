"""Models, what they were trained on, and their versions."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.db import now
from app.statuses import ModelStatus, VersionStatus
from app.tables.base import Base, one_of


class RegisteredModel(Base):
    """A name, a recipe, a base checkpoint and a policy."""

    __tablename__ = "registered_models"
    __table_args__ = (one_of(ModelStatus),)

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
        one_of(VersionStatus),
        UniqueConstraint("model_id", "number"),
        CheckConstraint("(number = 1) = (parent_id IS NULL)", name="first_has_no_parent"),
        Index(
            "uq_model_versions_one_current",
            "model_id",
            unique=True,
            postgresql_where=text("status = 'current'"),
        ),
        Index(
            "ix_model_versions_to_purge",
            "withdrawn_at",
            postgresql_where=text("status = 'withdrawn'"),
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
    verdict: Mapped[str | None]
    # Unlearning debt: what was forgotten approximately since the last exact version, in samples,
    # and how far the weights went meanwhile, as the sum of relative L2 distances.
    debt_samples: Mapped[int] = mapped_column(default=0)
    debt_drift: Mapped[float] = mapped_column(default=0.0)
    # Sparse Merkle root over the samples that it was trained on and retains, and their number;
    # None for versions from before there were commitments.
    commitment_root: Mapped[bytes | None]
    retained_count: Mapped[int | None]
    status: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)
    withdrawn_at: Mapped[datetime | None]
    purged_at: Mapped[datetime | None]
