"""Orders are answered, jobs and tasks are held, workers acknowledge snapshots, history tells every move of a job."""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

from jobrunner.store.schema import Moment

revision = "0010"
down_revision = "0009"


def _columns() -> Iterator[tuple[str, sa.Column[Any]]]:
    """Yield the new columns, made anew for each use, with their tables."""
    yield "job", sa.Column("intent", sa.String(8), nullable=True)
    yield "job", sa.Column("held", sa.Boolean(), nullable=False, server_default=sa.false())
    yield "job", sa.Column("chore", sa.Boolean(), nullable=False, server_default=sa.false())
    yield "job", sa.Column("hold_version", sa.Integer(), nullable=True)
    yield "job", sa.Column("requeue", sa.Text(), nullable=True)
    yield "job", sa.Column("kept", sa.Integer(), nullable=False, server_default="0")
    yield "job", sa.Column("priority", sa.Integer(), nullable=False, server_default="0")
    yield "job", sa.Column("annotation", sa.Text(), nullable=True)
    yield "job", sa.Column("labels", sa.Text(), nullable=True)
    yield "task", sa.Column("ordered", sa.String(12), nullable=True)
    yield "task", sa.Column("held", sa.Boolean(), nullable=False, server_default=sa.false())
    yield "worker", sa.Column("snapshot", sa.Integer(), nullable=True)
    yield "history", sa.Column("old", sa.String(20), nullable=True)
    yield "history", sa.Column("new", sa.String(20), nullable=True)
    yield "history", sa.Column("trigger", sa.String(255), nullable=True)
    yield "history", sa.Column("who", sa.String(255), nullable=True)
    yield "history", sa.Column("why", sa.Text(), nullable=True)
    yield "orders", sa.Column("answered_at", Moment, nullable=True)


def _partial(name: str, table: str, column: str, condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, [column], sqlite_where=where, postgresql_where=where)


def upgrade() -> None:
    """Add the columns and tables: nobody has ordered anything yet."""
    for table, column in _columns():
        op.add_column(table, column)
    op.drop_index("ix_task_ready", "task")
    _partial("ix_task_ready", "task", "id", "state = 'ready' AND NOT held")
    _partial("ix_task_held", "task", "job_id", "held")
    _partial("ix_job_chore", "job", "id", "chore")
    _partial("ix_orders_unanswered", "orders", "job_id", "answered_at IS NULL")
    op.create_table(
        "gate_entry",
        sa.Column("job_id", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("number", sa.Double(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("made_at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "kind", "subject", name="pk_gate_entry"),
    )
    op.create_table(
        "snapshot",
        sa.Column("name", sa.String(20), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_snapshot"),
    )
    op.create_table(
        "held_message",
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("job_id", sa.String(255), nullable=False),
        sa.Column("task_id", sa.String(255), nullable=False),
        sa.Column("celery_id", sa.String(255), nullable=False),
        sa.Column("retries", sa.Integer(), nullable=False),
        sa.Column("queue", sa.String(255), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("content_type", sa.String(255), nullable=False),
        sa.Column("content_encoding", sa.String(255), nullable=False),
        sa.Column("headers", sa.Text(), nullable=False),
        sa.Column("properties", sa.Text(), nullable=False),
        sa.Column("held_at", Moment, nullable=False),
        sa.Column("forwarded_at", Moment, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_held_message"),
    )
    op.create_index("ix_held_message_job", "held_message", ["job_id"])


def downgrade() -> None:
    """Forget them: what is held goes on."""
    op.drop_table("held_message")
    op.drop_table("snapshot")
    op.drop_table("gate_entry")
    op.drop_index("ix_orders_unanswered", "orders")
    op.drop_index("ix_job_chore", "job")
    op.drop_index("ix_task_held", "task")
    op.drop_index("ix_task_ready", "task")
    for table in ("job", "task", "worker", "history", "orders"):
        with op.batch_alter_table(table) as batch:
            for of, column in _columns():
                if of == table:
                    batch.drop_column(column.name)
    _partial("ix_task_ready", "task", "id", "state = 'ready'")
