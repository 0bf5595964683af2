"""Find the deliveries that are over for the longest time, which the log keeps no longer.

Until the index is built, at a second or two for a million rows, deliveries can be read and not
written: what moves requests of clients with callbacks waits, as do senders. It is built within the
migrations' one transaction all the same, so that a failure changes nothing.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

OVER_AT = "coalesce(delivered_at, given_up_at)"


def upgrade() -> None:
    op.create_index(
        "ix_deliveries_over",
        "deliveries",
        [sa.text(OVER_AT)],
        unique=False,
        postgresql_where=sa.text(f"notice_id IS NULL AND {OVER_AT} IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_deliveries_over", "deliveries")
