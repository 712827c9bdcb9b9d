"""Tasks state what came of their work: partial, skipped, item by item; and what they log is kept."""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

from jobrunner.store.schema import Moment

revision = "0012"
down_revision = "0011"

_EXECUTION = ("task_id", "delivery", "retries", "process", "number")


def _columns() -> Iterator[tuple[str, sa.Column[Any]]]:
    """Yield the new columns, made anew for each use, with their tables."""
    yield "job", sa.Column("partial_rule", sa.String(10), nullable=False, server_default="fail")
    yield "task", sa.Column("skip_empty", sa.Boolean(), nullable=False, server_default=sa.false())
    yield "task", sa.Column("only_items", sa.Integer(), nullable=True)
    yield "attempt", sa.Column("statement", sa.Text(), nullable=True)


def _of_an_execution() -> list[sa.Column[Any]]:
    return [
        sa.Column("task_id", sa.String(255), nullable=False),
        sa.Column("delivery", sa.Integer(), nullable=False),
        sa.Column("retries", sa.Integer(), nullable=False),
        sa.Column("process", sa.String(255), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
    ]


def upgrade() -> None:
    """Add the columns and tables."""
    for table, column in _columns():
        op.add_column(table, column)
    op.create_table(
        "item_error",
        *_of_an_execution(),
        sa.Column("item", sa.Text(), nullable=True),
        sa.Column("label", sa.String(255), nullable=False),
        sa.Column("type", sa.String(255), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("details", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint(*_EXECUTION, name="pk_item_error"),
    )
    op.create_table(
        "item_count",
        sa.Column("task_id", sa.String(255), nullable=False),
        sa.Column("job_id", sa.String(255), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("processed", "skipped", "failed", "aborted")),
        sa.PrimaryKeyConstraint("task_id", name="pk_item_count"),
    )
    op.create_index("ix_item_count_job", "item_count", ["job_id"])
    op.create_table(
        "log_part",
        *_of_an_execution(),
        sa.Column("at", Moment, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint(*_EXECUTION, name="pk_log_part"),
    )


def downgrade() -> None:
    """Forget them; a task that was partial is one that completed, as far as older trackers know."""
    for table in ("log_part", "item_count", "item_error"):
        op.drop_table(table)
    for table in ("job", "task", "attempt"):
        with op.batch_alter_table(table) as batch:
            for of, column in _columns():
                if of == table:
                    batch.drop_column(column.name)
