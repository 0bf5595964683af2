"""Requests that came in the form of OpenDSR."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "opendsr_requests",
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("subject_request_id", sa.Uuid(), nullable=False),
        sa.Column("deletion_request_id", sa.Uuid(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("submitted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("api_version", sa.Text(), nullable=True),
        sa.Column(
            "callback_urls",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            nullable=False,
        ),
        sa.Column("told_status", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "told_status IN ('pending', 'in_progress', 'completed', 'cancelled')",
            name=op.f("ck_opendsr_requests_told_status"),
        ),
        sa.ForeignKeyConstraint(
            ["deletion_request_id"],
            ["deletion_requests.id"],
            name=op.f("fk_opendsr_requests_deletion_request_id"),
        ),
        sa.PrimaryKeyConstraint("client", "subject_request_id", name=op.f("pk_opendsr_requests")),
        sa.UniqueConstraint(
            "deletion_request_id", name=op.f("uq_opendsr_requests_deletion_request_id")
        ),
    )


def downgrade() -> None:
    raise RuntimeError("going back would lose what controllers were promised; restore a backup")
