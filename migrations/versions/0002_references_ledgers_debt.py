"""Keep reference losses, gradient ledgers, unlearning debt and three-valued verdicts."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "gradient_ledgers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=True),
        sa.Column("weights_digest", sa.Text(), nullable=True),
        sa.Column("data_fingerprint", sa.Text(), nullable=True),
        sa.Column("recipe_fingerprint", sa.Text(), nullable=True),
        sa.Column("records", sa.BigInteger(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('computing', 'ready', 'failed', 'void')",
            name=op.f("ck_gradient_ledgers_status"),
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], ["registered_models.id"], name=op.f("fk_gradient_ledgers_model_id")
        ),
        sa.ForeignKeyConstraint(
            ["version_id"], ["model_versions.id"], name=op.f("fk_gradient_ledgers_version_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gradient_ledgers")),
        sa.UniqueConstraint("version_id", name=op.f("uq_gradient_ledgers_version_id")),
    )
    op.create_table(
        "reference_sets",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("planned", sa.BigInteger(), nullable=False),
        sa.Column("done", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('building', 'ready', 'failed', 'discarded')",
            name=op.f("ck_reference_sets_status"),
        ),
        sa.CheckConstraint("0 <= done AND done <= planned", name=op.f("ck_reference_sets_done")),
        sa.ForeignKeyConstraint(
            ["model_id"], ["registered_models.id"], name=op.f("fk_reference_sets_model_id")
        ),
        sa.ForeignKeyConstraint(
            ["version_id"], ["model_versions.id"], name=op.f("fk_reference_sets_version_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reference_sets")),
    )
    op.create_index(
        "uq_reference_sets_one_in_use",
        "reference_sets",
        ["model_id"],
        unique=True,
        postgresql_where=sa.text("status IN ('building', 'ready')"),
    )
    op.create_table(
        "holdout_reference_losses",
        sa.Column("set_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("target_count", sa.BigInteger(), nullable=False),
        sa.Column("target_mean", sa.Double(), nullable=False),
        sa.Column("target_squares", sa.Double(), nullable=False),
        sa.Column("judge_count", sa.BigInteger(), nullable=False),
        sa.Column("judge_mean", sa.Double(), nullable=False),
        sa.Column("judge_squares", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["set_id"], ["reference_sets.id"], name=op.f("fk_holdout_reference_losses_set_id")
        ),
        sa.PrimaryKeyConstraint("set_id", "position", name=op.f("pk_holdout_reference_losses")),
    )
    op.create_table(
        "reference_losses",
        sa.Column("set_id", sa.Uuid(), nullable=False),
        sa.Column("sample_digest", sa.LargeBinary(), nullable=False),
        sa.Column("target_count", sa.BigInteger(), nullable=False),
        sa.Column("target_mean", sa.Double(), nullable=False),
        sa.Column("target_squares", sa.Double(), nullable=False),
        sa.Column("judge_count", sa.BigInteger(), nullable=False),
        sa.Column("judge_mean", sa.Double(), nullable=False),
        sa.Column("judge_squares", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["set_id"], ["reference_sets.id"], name=op.f("fk_reference_losses_set_id")
        ),
        sa.PrimaryKeyConstraint("set_id", "sample_digest", name=op.f("pk_reference_losses")),
    )
    op.create_index(
        op.f("ix_reference_losses_sample_digest"),
        "reference_losses",
        ["sample_digest"],
        unique=False,
    )
    op.add_column("model_versions", sa.Column("verdict", sa.Text(), nullable=True))
    # Whatever was published before passed; its debt was not counted and begins at nothing.
    op.execute("UPDATE model_versions SET verdict = 'passed' WHERE job_id IS NOT NULL")
    _add_counted("model_versions", "debt_samples", sa.BigInteger(), "0")
    _add_counted("model_versions", "debt_drift", sa.Double(), "0")
    _add_counted("unlearning_jobs", "rebase", sa.Boolean(), "false")
    op.add_column("rungs", sa.Column("outcome", sa.Text(), nullable=True))
    op.execute(
        """
        UPDATE rungs SET outcome = CASE
            WHEN passed THEN 'passed' WHEN verdict IS NULL THEN 'not_run' ELSE 'failed' END
        """
    )
    op.alter_column("rungs", "outcome", nullable=False)
    op.create_check_constraint(
        op.f("ck_rungs_outcome"),
        "rungs",
        "outcome IN ('passed', 'failed', 'inconclusive', 'not_run')",
    )
    op.drop_column("rungs", "passed")


def _add_counted(table: str, name: str, kind: sa.types.TypeEngine[object], start: str) -> None:
    # The default serves the rows that are there; new ones get theirs from the code.
    op.add_column(table, sa.Column(name, kind, nullable=False, server_default=sa.text(start)))
    op.alter_column(table, name, server_default=None)


def downgrade() -> None:
    raise RuntimeError("going back would lose verdicts and debt; restore a backup instead")
