"""Jobs and the methods that they tried."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    ForeignKey,
    Index,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.db import now
from app.statuses import JobStatus, RungOutcome
from app.tables.base import Base, one_of


class UnlearningJob(Base):
    """One batch of erasures for one model, from one parent version."""

    __tablename__ = "unlearning_jobs"
    __table_args__ = (
        one_of(JobStatus),
        Index(
            "uq_unlearning_jobs_one_unfinished",
            "model_id",
            unique=True,
            postgresql_where=text("status IN ('queued', 'running')"),
        ),
        Index(None, "created_at", "id"),
        Index(None, "model_id", "created_at"),
        Index("ix_unlearning_jobs_rebases", "parent_version_id", postgresql_where=text("rebase")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    model_id: Mapped[UUID] = mapped_column(ForeignKey("registered_models.id"))
    parent_version_id: Mapped[UUID] = mapped_column(ForeignKey("model_versions.id"))
    policy: Mapped[dict[str, Any]]
    seed: Mapped[int]
    erasure_count: Mapped[int] = mapped_column(default=0)
    sample_count: Mapped[int]
    # The nearest legal deadline in the batch.
    due_at: Mapped[datetime | None]
    # Set where the batch is a part of one that failed.
    cohort_id: Mapped[UUID | None] = mapped_column(ForeignKey("cohorts.id"))
    # Pays off the model's unlearning debt: only the exact method will do.
    rebase: Mapped[bool] = mapped_column(default=False)
    status: Mapped[str]
    # Claims, however they ended.
    attempts: Mapped[int] = mapped_column(default=0)
    # Claims that ended in an error or in silence; their number is bounded.
    failures: Mapped[int] = mapped_column(default=0)
    # Claims that ended because somebody withdrew an erasure of the batch.
    interruptions: Mapped[int] = mapped_column(default=0)
    # Nobody may claim it earlier: the pause after an error.
    not_before: Mapped[datetime | None]
    # Most records in one step, after memory ran out with more.
    batch_limit: Mapped[int | None]
    # Raised by every claim; what a former holder of the lease still writes is refused by it.
    fence: Mapped[int] = mapped_column(default=0)
    lease_expires_at: Mapped[datetime | None]
    worker: Mapped[str | None]
    progress: Mapped[dict[str, Any] | None]
    error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Cohort(Base):
    """Erasures of a batch that failed, apart from the others to find the one it failed for."""

    __tablename__ = "cohorts"
    __table_args__ = (Index(None, "origin_job_id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    # The batch that failed first, whatever its parts were split into since.
    origin_job_id: Mapped[UUID] = mapped_column(ForeignKey("unlearning_jobs.id", use_alter=True))
    created_at: Mapped[datetime] = mapped_column(default=now)


class Rung(Base):
    """One method that a job tried, with all that verification found."""

    __tablename__ = "rungs"
    __table_args__ = (one_of(RungOutcome, "outcome"),)

    job_id: Mapped[UUID] = mapped_column(ForeignKey("unlearning_jobs.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    method: Mapped[str]
    guarantee: Mapped[str | None]
    outcome: Mapped[str]
    verdict: Mapped[dict[str, Any] | None]
    evidence: Mapped[dict[str, Any]]
    seconds: Mapped[float]
    created_at: Mapped[datetime] = mapped_column(default=now)
