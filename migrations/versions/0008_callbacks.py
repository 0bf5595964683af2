"""Callbacks of clients, messages in the order of their requests, and a log of each attempt."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

OPEN = "delivered_at IS NULL AND given_up_at IS NULL"


def upgrade() -> None:
    _create_callbacks()
    _widen_deliveries()
    op.create_table(
        "delivery_attempts",
        sa.Column("delivery_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("status", sa.BigInteger(), nullable=True),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["deliveries.id"], name=op.f("fk_delivery_attempts_delivery_id")
        ),
        sa.PrimaryKeyConstraint("delivery_id", "number", name=op.f("pk_delivery_attempts")),
    )


def _create_callbacks() -> None:
    op.create_table(
        "callbacks",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("events", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("secret", sa.LargeBinary(), nullable=True),
        sa.Column("former_secret", sa.LargeBinary(), nullable=True),
        sa.Column("former_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("disabled_because", sa.Text(), nullable=True),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_callbacks")),
    )
    op.create_index(
        "ix_callbacks_in_use",
        "callbacks",
        ["client"],
        unique=False,
        postgresql_where=sa.text("removed_at IS NULL AND disabled_at IS NULL"),
    )
    for columns in (["client", "created_at", "id"], ["created_at", "id"]):
        name = op.f(f"ix_callbacks_{'_'.join(columns)}")
        op.create_index(name, "callbacks", columns, unique=False)


def _widen_deliveries() -> None:
    op.add_column(
        "deliveries",
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
    )
    for name, table in (("callback_id", "callbacks"), ("request_id", "deletion_requests")):
        op.add_column("deliveries", sa.Column(name, sa.Uuid(), nullable=True))
        key = op.f(f"fk_deliveries_{name}")
        op.create_foreign_key(key, "deliveries", table, [name], ["id"])
    op.add_column("deliveries", sa.Column("client", sa.Text(), nullable=True))
    op.add_column("deliveries", sa.Column("lane", sa.Uuid(), nullable=True))
    # The defaults serve the rows that are there; new ones get theirs from the code.
    signer = sa.Column("signer", sa.Text(), nullable=False, server_default="standard-webhooks")
    earlier = sa.Column("earlier_attempts", sa.BigInteger(), nullable=False, server_default="0")
    for column in (signer, earlier):
        op.add_column("deliveries", column)
        op.alter_column("deliveries", column.name, server_default=None)
    op.create_check_constraint(
        op.f("ck_deliveries_signer"), "deliveries", "signer IN ('standard-webhooks', 'opendsr')"
    )
    op.create_index(
        "ix_deliveries_open_in_lane",
        "deliveries",
        ["lane", "position"],
        unique=False,
        postgresql_where=sa.text(f"lane IS NOT NULL AND {OPEN}"),
    )
    for first in ([], ["client"], ["callback_id"], ["request_id"]):
        columns = [*first, "created_at", "id"]
        name = op.f(f"ix_deliveries_{'_'.join(columns)}")
        op.create_index(name, "deliveries", columns, unique=False)


def downgrade() -> None:
    raise RuntimeError("going back would lose what clients were promised; restore a backup")
