"""Batches of events are numbered: how far each series was read, and what each worker has lost, to be shown."""

import sqlalchemy as sa
from alembic import op

from jobrunner.store.schema import Moment

revision = "0007"
down_revision = "0006"

_COUNTS = ("events_dropped", "batches_missed")


def upgrade() -> None:
    """Make the table and the columns; of series that began before, nothing is missed."""
    op.create_table(
        "series",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("worker", sa.String(255), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("dropped", sa.Integer(), nullable=False),
        sa.Column("heard_at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_series"),
    )
    for name in _COUNTS:
        op.add_column("worker", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))


def downgrade() -> None:
    """Forget them."""
    with op.batch_alter_table("worker") as worker:
        for name in _COUNTS:
            worker.drop_column(name)
    op.drop_table("series")
