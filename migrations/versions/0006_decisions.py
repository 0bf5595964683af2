"""Decisions about requests, and clocks that were extended or paused."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

TIMES = ("confirmed_at", "extended_at", "paused_at", "held_at", "approved_at", "rejected_at")
STATUSES = {
    "deletion_requests": "'pending', 'held', 'in_progress', 'completed', 'nothing_found', "
    "'needs_attention', 'rejected', 'cancelled'",
    "erasures": "'pending', 'paused', 'scheduled', 'completed', 'needs_attention', 'rejected', "
    "'cancelled'",
}


def upgrade() -> None:
    for name in TIMES:
        op.add_column(
            "deletion_requests", sa.Column(name, sa.DateTime(timezone=True), nullable=True)
        )
    for name in ("pause_ground", "rejection"):
        op.add_column("deletion_requests", sa.Column(name, sa.Text(), nullable=True))
    op.add_column(
        "deletion_requests",
        sa.Column(
            "paused_for", sa.Interval(), server_default=sa.text("'0'::interval"), nullable=False
        ),
    )
    for table, statuses in STATUSES.items():
        name = op.f(f"ck_{table}_status")
        op.drop_constraint(name, table, type_="check")
        op.create_check_constraint(name, table, f"status IN ({statuses})")
    op.create_table(
        "decisions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column(
            "facts", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False
        ),
        sa.CheckConstraint(
            "action IN ('approve', 'reject', 'reopen', 'extend', 'pause', 'resume', 'confirm', "
            "'cancel', 'retry')",
            name=op.f("ck_decisions_action"),
        ),
        sa.ForeignKeyConstraint(
            ["request_id"], ["deletion_requests.id"], name=op.f("fk_decisions_request_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_decisions")),
    )
    op.create_index(
        op.f("ix_decisions_request_id_at_id"), "decisions", ["request_id", "at", "id"], unique=False
    )


def downgrade() -> None:
    raise RuntimeError("going back would lose what was decided; restore a backup")
