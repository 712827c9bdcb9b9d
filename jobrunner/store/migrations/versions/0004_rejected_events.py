"""What the tracker cannot fold is written down: nothing of the event log disappears without a trace."""

import sqlalchemy as sa
from alembic import op

from jobrunner.store.schema import Moment

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "rejected_event",
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("at", Moment, nullable=False),
        sa.Column("source", sa.String(36)),
        sa.Column("worker", sa.String(255)),
        sa.Column("type", sa.String(255)),
        sa.Column("uuid", sa.String(255)),
        sa.Column("reason", sa.String(255), nullable=False),
        sa.Column("detail", sa.Text),
        sa.Column("event", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_rejected_event"),
    )


def downgrade() -> None:
    """Drop it, with what it tells."""
    op.drop_table("rejected_event")
