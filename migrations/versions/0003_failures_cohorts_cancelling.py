"""Keep failures apart from claims, pauses between them, parts of failed batches, cancellations."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "cohorts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("origin_job_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["origin_job_id"], ["unlearning_jobs.id"], name=op.f("fk_cohorts_origin_job_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cohorts")),
    )
    op.create_index(op.f("ix_cohorts_origin_job_id"), "cohorts", ["origin_job_id"], unique=False)
    _add_counted("unlearning_jobs", "erasure_count")
    op.execute(
        """
        UPDATE unlearning_jobs SET erasure_count =
            (SELECT count(*) FROM erasures WHERE erasures.job_id = unlearning_jobs.id)
        """
    )
    op.add_column("unlearning_jobs", sa.Column("due_at", sa.DateTime(timezone=True), nullable=True))
    op.execute(
        """
        UPDATE unlearning_jobs SET due_at =
            (SELECT min(erasures.due_at) FROM erasures WHERE erasures.job_id = unlearning_jobs.id)
        """
    )
    _add_cohort("unlearning_jobs")
    _add_counted("unlearning_jobs", "failures")
    # Until now every claim that did not end the job was a failure, the running one excepted.
    op.execute(
        """
        UPDATE unlearning_jobs SET failures = attempts - (status IN ('running', 'published'))::int
        WHERE attempts > 0
        """
    )
    _add_counted("unlearning_jobs", "interruptions")
    op.add_column(
        "unlearning_jobs", sa.Column("not_before", sa.DateTime(timezone=True), nullable=True)
    )
    op.add_column("unlearning_jobs", sa.Column("batch_limit", sa.BigInteger(), nullable=True))
    _allow("unlearning_jobs", "queued", "running", "published", "refused", "failed", "cancelled")
    op.create_index(
        op.f("ix_unlearning_jobs_model_id_created_at"),
        "unlearning_jobs",
        ["model_id", "created_at"],
        unique=False,
    )
    op.create_index(
        "ix_unlearning_jobs_rebases",
        "unlearning_jobs",
        ["parent_version_id"],
        unique=False,
        postgresql_where=sa.text("rebase"),
    )
    _add_cohort("erasures")
    op.add_column("erasures", sa.Column("problem", sa.Text(), nullable=True))
    op.execute(
        """
        UPDATE erasures SET problem = unlearning_jobs.error FROM unlearning_jobs
        WHERE unlearning_jobs.id = erasures.job_id AND erasures.status = 'needs_attention'
        """
    )
    op.create_index(
        "ix_erasures_waiting",
        "erasures",
        ["model_id", "created_at"],
        unique=False,
        postgresql_include=["sample_count"],
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "ix_erasures_of_a_cohort",
        "erasures",
        ["model_id", "cohort_id"],
        unique=False,
        postgresql_where=sa.text("status = 'pending' AND cohort_id IS NOT NULL"),
    )
    op.add_column(
        "deletion_requests", sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True)
    )


def _add_counted(table: str, name: str) -> None:
    # The default serves the rows that are there; new ones get theirs from the code.
    op.add_column(table, sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    op.alter_column(table, name, server_default=None)


def _add_cohort(table: str) -> None:
    op.add_column(table, sa.Column("cohort_id", sa.Uuid(), nullable=True))
    op.create_foreign_key(op.f(f"fk_{table}_cohort_id"), table, "cohorts", ["cohort_id"], ["id"])


def _allow(table: str, *statuses: str) -> None:
    name = op.f(f"ck_{table}_status")
    listed = ", ".join(f"'{status}'" for status in statuses)
    op.drop_constraint(name, table)
    op.create_check_constraint(name, table, f"status IN ({listed})")


def downgrade() -> None:
    raise RuntimeError("going back would lose why requests need attention; restore a backup")
