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
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    model_id: Mapped[UUID] = mapped_column(ForeignKey("registered_models.id"))
    parent_version_id: Mapped[UUID] = mapped_column(ForeignKey("model_versions.id"))
    policy: Mapped[dict[str, Any]]
    seed: Mapped[int]
    sample_count: Mapped[int]
    # Pays off the model's unlearning debt: only the exact method will do.
    rebase: Mapped[bool] = mapped_column(default=False)
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
