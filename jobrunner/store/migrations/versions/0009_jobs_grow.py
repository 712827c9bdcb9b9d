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
    yield "task", sa.Column("created_in", sa.String(255), nullable=True)
    yield "task", sa.Column("discovers", sa.Boolean(), nullable=False, server_default=sa.false())
    yield "task", sa.Column("replayable", sa.Boolean(), nullable=False, server_default=sa.false())
    yield "task", sa.Column("reason", sa.String(20), nullable=True)
    yield "task", sa.Column("value_task", sa.String(255), nullable=True)
    yield "task", sa.Column("value_group", sa.String(255), nullable=True)


def upgrade() -> None:
    """Add the columns: no job there is has grown, and the values of all of them expire by themselves."""
    for table, column in _columns():
        op.add_column(table, column)
    op.execute("ALTER TABLE task RENAME COLUMN parent_id TO created_by")
    kept = sa.text("keeps_values AND ended_at IS NOT NULL")
    op.create_index("ix_job_keeping", "job", ["id"], sqlite_where=kept, postgresql_where=kept)
    created = sa.text("created_by IS NOT NULL")
    op.create_index("ix_task_created", "task", ["created_by"], sqlite_where=created, postgresql_where=created)
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


def downgrade() -> None:
    """Forget them. Tasks that were added stay as tasks of the plan."""
    op.drop_table("history")
    op.drop_index("ix_task_created", "task")
    op.drop_index("ix_job_keeping", "job")
    op.execute("ALTER TABLE task RENAME COLUMN created_by TO parent_id")
    for table in ("job", "task"):
        with op.batch_alter_table(table) as batch:
            for of, column in _columns():
                if of == table:
                    batch.drop_column(column.name)
