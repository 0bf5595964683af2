"""Deletion requests and the erasures that fulfil them."""

from datetime import datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    Interval,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.db import now
from app.statuses import ErasureStatus, RequestStatus
from app.tables.base import Base, one_of


class DeletionRequest(Base):
    """The legal promise. Its sample IDs are kept as keyed digests in ``requested_samples``."""

    __tablename__ = "deletion_requests"
    __table_args__ = (
        one_of(RequestStatus),
        UniqueConstraint("client", "idempotency_key_digest"),
        Index(None, "received_at", "id"),
        Index(None, "status", "received_at", "id"),
        # What a client lists of its own, and a case that it looks for.
        Index(None, "client", "received_at", "id"),
        Index(
            "ix_deletion_requests_reference",
            "reference",
            postgresql_where=text("reference IS NOT NULL"),
        ),
        # The open ones, the nearest deadline first.
        Index(
            "ix_deletion_requests_open_by_due",
            "due_at",
            "id",
            postgresql_where=text("finished_at IS NULL"),
        ),
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
    # Hides which samples the log's commitment to the request stands for; told in its receipt.
    samples_salt: Mapped[bytes | None]
    id_key_id: Mapped[str]
    status: Mapped[str]
    received_at: Mapped[datetime] = mapped_column(default=now)
    due_at: Mapped[datetime | None]
    # Its clock: when receipt was confirmed and the term extended; since when it stands still and
    # why, and for how long it did before.
    confirmed_at: Mapped[datetime | None]
    extended_at: Mapped[datetime | None]
    paused_at: Mapped[datetime | None]
    pause_ground: Mapped[str | None]
    paused_for: Mapped[timedelta] = mapped_column(
        Interval, default=timedelta(0), server_default=text("'0'::interval")
    )
    # Held for a review, until an approval; no model adds to it meanwhile.
    held_at: Mapped[datetime | None]
    approved_at: Mapped[datetime | None]
    # Rejected or withdrawn: no model that is still being checked will add to it.
    rejected_at: Mapped[datetime | None]
    rejection: Mapped[str | None]
    cancelled_at: Mapped[datetime | None]
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
        one_of(ErasureStatus),
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
        # How long they wait, and how many samples they are, from the index alone.
        Index(
            "ix_erasures_waiting",
            "model_id",
            "created_at",
            postgresql_include=["sample_count"],
            postgresql_where=text("status = 'pending'"),
        ),
        Index(None, "job_id"),
        Index(
            "ix_erasures_of_a_cohort",
            "model_id",
            "cohort_id",
            postgresql_where=text("status = 'pending' AND cohort_id IS NOT NULL"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    request_id: Mapped[UUID] = mapped_column(ForeignKey("deletion_requests.id"))
    model_id: Mapped[UUID] = mapped_column(ForeignKey("registered_models.id"))
    job_id: Mapped[UUID | None] = mapped_column(ForeignKey("unlearning_jobs.id"))
    version_id: Mapped[UUID | None] = mapped_column(ForeignKey("model_versions.id"))
    cohort_id: Mapped[UUID | None] = mapped_column(ForeignKey("cohorts.id"))
    sample_count: Mapped[int]
    status: Mapped[str]
    # Why it needs attention.
    problem: Mapped[str | None]
    due_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]
