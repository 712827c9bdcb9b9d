"""Attempts are bounded and tell their progress, jobs have failure rules and prerequisites, workers are blocked."""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

from jobrunner.store.schema import Moment

revision = "0011"
down_revision = "0010"


def _columns() -> Iterator[tuple[str, sa.Column[Any]]]:
    """Yield the new columns, made anew for each use, with their tables."""
    yield "job", sa.Column("failure_rule", sa.String(10), nullable=False, server_default="continue")
    yield "job", sa.Column("threshold", sa.Integer(), nullable=True)
    yield "job", sa.Column("propagate", sa.Boolean(), nullable=True)
    yield "job", sa.Column("will_fail", sa.String(20), nullable=True)
    yield "job", sa.Column("unmet", sa.Integer(), nullable=False, server_default="0")
    yield "task", sa.Column("max_retries", sa.Integer(), nullable=True)
    yield "task", sa.Column("untouched_timeout", sa.Double(), nullable=True)
    yield "task", sa.Column("earlier", sa.Integer(), nullable=False, server_default="0")
    yield "task", sa.Column("handed_back", sa.Integer(), nullable=False, server_default="0")
    yield "task", sa.Column("progress", sa.Double(), nullable=True)
    yield "attempt", sa.Column("progress", sa.Double(), nullable=True)
    yield "attempt", sa.Column("said", sa.Text(), nullable=True)
    yield "attempt", sa.Column("touched_at", Moment, nullable=True)
    yield "worker", sa.Column("queues", sa.Text(), nullable=True)


def upgrade() -> None:
    """Add the columns and tables: what was submitted before goes on after failures, as it did."""
    for table, column in _columns():
        op.add_column(table, column)
    op.create_table(
        "prerequisite",
        sa.Column("job_id", sa.String(255), nullable=False),
        sa.Column("wanted", sa.String(255), nullable=False),
        sa.Column("on_job", sa.String(255), nullable=True),
        sa.Column("met_at", Moment, nullable=True),
        sa.Column("accepted", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.PrimaryKeyConstraint("job_id", "wanted", name="pk_prerequisite"),
    )
    op.create_index("ix_prerequisite_on_job", "prerequisite", ["on_job"])
    unknown = sa.text("on_job IS NULL")
    op.create_index(
        "ix_prerequisite_unknown", "prerequisite", ["wanted"], sqlite_where=unknown, postgresql_where=unknown
    )
    op.create_table(
        "worker_failure",
        sa.Column("job_id", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("worker", sa.String(255), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last_task", sa.String(255), nullable=True),
        sa.Column("blocked_at", Moment, nullable=True),
        sa.PrimaryKeyConstraint("job_id", "name", "worker", name="pk_worker_failure"),
    )


def downgrade() -> None:
    """Forget them: jobs that wait for others are released by nobody, so requeue them afterwards."""
    op.drop_table("worker_failure")
    op.drop_table("prerequisite")
    for table in ("job", "task", "attempt", "worker"):
        with op.batch_alter_table(table) as batch:
            for of, column in _columns():
                if of == table:
                    batch.drop_column(column.name)
