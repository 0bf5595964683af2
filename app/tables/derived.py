"""What is computed from a model and its data beside the weights, and may be computed again."""

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import now
from app.statuses import LedgerStatus, ReferenceStatus
from app.tables.base import Base, one_of


class ReferenceSet(Base):
    """The reference models of one exact version, made one at a time; none of them is kept."""

    __tablename__ = "reference_sets"
    __table_args__ = (
        one_of(ReferenceStatus),
        CheckConstraint("0 <= done AND done <= planned", name="done"),
        Index(
            "uq_reference_sets_one_in_use",
            "model_id",
            unique=True,
            postgresql_where=text("status IN ('building', 'ready')"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    model_id: Mapped[UUID] = mapped_column(ForeignKey("registered_models.id"))
    version_id: Mapped[UUID] = mapped_column(ForeignKey("model_versions.id"))
    status: Mapped[str]
    # Draws the halves, so that a set that was interrupted goes on with the same ones.
    seed: Mapped[int]
    planned: Mapped[int]
    done: Mapped[int] = mapped_column(default=0)
    # Time in seconds that the references took, all together.
    seconds: Mapped[float] = mapped_column(default=0.0)
    # Raised by every claim; what a former holder of the lease still writes is refused by it.
    fence: Mapped[int] = mapped_column(default=0)
    # Claims since the last success.
    attempts: Mapped[int] = mapped_column(default=0)
    lease_expires_at: Mapped[datetime | None]
    error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]


class ReferenceLoss(Base):
    """One training sample's losses under the references that never saw it.

    Of each group the count, the mean, and the sum of squared deviations from the mean.
    """

    __tablename__ = "reference_losses"
    __table_args__ = (Index(None, "sample_digest"),)

    set_id: Mapped[UUID] = mapped_column(ForeignKey("reference_sets.id"), primary_key=True)
    sample_digest: Mapped[bytes] = mapped_column(primary_key=True)
    target_count: Mapped[int] = mapped_column(default=0)
    target_mean: Mapped[float] = mapped_column(default=0.0)
    target_squares: Mapped[float] = mapped_column(default=0.0)
    judge_count: Mapped[int] = mapped_column(default=0)
    judge_mean: Mapped[float] = mapped_column(default=0.0)
    judge_squares: Mapped[float] = mapped_column(default=0.0)


class HoldoutReferenceLoss(Base):
    """The same for one record of the holdout data, by its index."""

    __tablename__ = "holdout_reference_losses"

    set_id: Mapped[UUID] = mapped_column(ForeignKey("reference_sets.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    target_count: Mapped[int] = mapped_column(default=0)
    target_mean: Mapped[float] = mapped_column(default=0.0)
    target_squares: Mapped[float] = mapped_column(default=0.0)
    judge_count: Mapped[int] = mapped_column(default=0)
    judge_mean: Mapped[float] = mapped_column(default=0.0)
    judge_squares: Mapped[float] = mapped_column(default=0.0)


class GradientLedger(Base):
    """The sum of the loss gradients over all retained data, at one version's weights.

    The sum itself is an artifact. It is valid for exactly these weights, data and recipe.
    """

    __tablename__ = "gradient_ledgers"
    __table_args__ = (one_of(LedgerStatus),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    model_id: Mapped[UUID] = mapped_column(ForeignKey("registered_models.id"))
    version_id: Mapped[UUID] = mapped_column(ForeignKey("model_versions.id"), unique=True)
    status: Mapped[str]
    digest: Mapped[str | None]
    weights_digest: Mapped[str | None]
    data_fingerprint: Mapped[str | None]
    recipe_fingerprint: Mapped[str | None]
    records: Mapped[int | None]
    seconds: Mapped[float | None]
    # Raised by every claim; what a former holder of the lease still writes is refused by it.
    fence: Mapped[int] = mapped_column(default=0)
    # Claims since the last success.
    attempts: Mapped[int] = mapped_column(default=0)
    lease_expires_at: Mapped[datetime | None]
    error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]
