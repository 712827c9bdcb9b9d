"""The lease says until when all that workers reported is in the database, so that people learn how old a state is."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column; empty until a tracker has read its event log to the end."""
    op.add_column("lease", sa.Column("caught_up_at", sa.Double(), nullable=True))


def downgrade() -> None:
    """Forget it."""
    with op.batch_alter_table("lease") as lease:
        lease.drop_column("caught_up_at")
