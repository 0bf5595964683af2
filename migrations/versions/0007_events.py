"""What clients poll and follow."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_index(
        "ix_deletion_requests_client_received_at_id",
        "deletion_requests",
        ["client", "received_at", "id"],
    )
    op.create_index(
        "ix_deletion_requests_reference",
        "deletion_requests",
        ["reference"],
        postgresql_where=sa.text("reference IS NOT NULL"),
    )
    op.create_index(
        "ix_deletion_requests_open_by_due",
        "deletion_requests",
        ["due_at", "id"],
        postgresql_where=sa.text("finished_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_deletion_requests_open_by_due", "deletion_requests")
    op.drop_index("ix_deletion_requests_reference", "deletion_requests")
    op.drop_index("ix_deletion_requests_client_received_at_id", "deletion_requests")
