"""Tasks add tasks, values are kept as long as their job, and what was decided is written down."""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

from jobrunner.store.schema import Moment

revision = "0009"
down_revision = "0008"


def _columns() -> Iterator[tuple[str, sa.Column[Any]]]:
    """Yield the new columns, made anew for each use, with their tables."""
    yield "job", sa.Column("barrier", sa.Boolean(), nullable=False, server_default=sa.false())
    yield "job", sa.Column("keeps_values", sa.Boolean(), nullable=False, server_default=sa.false())
    yield "job", sa.Column("outcome", sa.String(12), nullable=True)
    yield "job", sa.Column("discovering", sa.Integer(), nullable=False, server_default="0")
    yield "job", sa.Column("discovered", sa.Integer(), nullable=False, server_default="0")
    yield "block", sa.Column("addition_id", sa.String(255), nullable=True)
    yield "task", sa.Column("addition_id", sa.String(255), nullable=True)
    yield "task", sa.Column("discovers", sa.Boolean(), nullable=False, server_default=sa.false())
    yield "task", sa.Column("replayable", sa.Boolean(), nullable=False, server_default=sa.false())
    yield "task", sa.Column("reason", sa.String(20), nullable=True)
    yield "task", sa.Column("value_task", sa.String(255), nullable=True)
    yield "task", sa.Column("value_group", sa.String(255), nullable=True)


def upgrade() -> None:
    """Add the columns: no job there is has grown, and the tracker has yet to keep the values of those that go on."""
    for table, column in _columns():
        op.add_column(table, column)
    op.execute("ALTER TABLE task RENAME COLUMN parent_id TO created_by")
    kept = sa.text("keeps_values AND ended_at IS NOT NULL")
    op.create_index("ix_job_keeping", "job", ["id"], sqlite_where=kept, postgresql_where=kept)
    added = sa.text("addition_id IS NOT NULL")
    for table in ("block", "task"):
        op.create_index(f"ix_{table}_addition", table, ["addition_id"], sqlite_where=added, postgresql_where=added)
    _create_addition()
    op.create_table(
        "history",
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("job_id", sa.String(255), nullable=False),
        sa.Column("task_id", sa.String(255), nullable=True),
        sa.Column("at", Moment, nullable=False),
        sa.Column("line", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_history"),
    )
    op.create_index("ix_history_job", "history", ["job_id"])


def _create_addition() -> None:
    op.create_table(
        "addition",
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("job_id", sa.String(255), nullable=False),
        sa.Column("task_id", sa.String(255), nullable=False),
        sa.Column("delivery", sa.Integer(), nullable=False),
        sa.Column("retries", sa.Integer(), nullable=False),
        sa.Column("process", sa.String(255), nullable=False),
        sa.Column("chain_id", sa.String(255), nullable=False),
        sa.Column("group_id", sa.String(255), nullable=False),
        sa.Column("tasks", sa.Integer(), nullable=False),
        sa.Column("told", sa.Integer(), nullable=True),
        sa.Column("expands", sa.Boolean(), nullable=False),
        sa.Column("value_task", sa.String(255), nullable=True),
        sa.Column("value_group", sa.String(255), nullable=True),
        sa.Column("kept", sa.Boolean(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_addition"),
    )
    unkept = sa.text("kept IS NULL OR NOT kept")
    op.create_index("ix_addition_job", "addition", ["job_id"])
    op.create_index("ix_addition_unkept", "addition", ["task_id"], sqlite_where=unkept, postgresql_where=unkept)


def downgrade() -> None:
    """Forget them. Tasks that were added stay as tasks of the plan."""
    op.drop_table("history")
    op.drop_table("addition")
    op.drop_index("ix_task_addition", "task")
    op.drop_index("ix_block_addition", "block")
    op.drop_index("ix_job_keeping", "job")
    op.execute("ALTER TABLE task RENAME COLUMN created_by TO parent_id")
    for table in ("job", "block", "task"):
        with op.batch_alter_table(table) as batch:
            for of, column in _columns():
                if of == table:
                    batch.drop_column(column.name)
