"""The lease has its row from the beginning: two trackers that start at once would both try to make it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_lease = sa.table(
    "lease", sa.column("name", sa.String), sa.column("holder", sa.String), sa.column("expires_at", sa.Double)
)


def upgrade() -> None:
    """Make the row, unless a tracker has done so."""
    known = op.get_bind().execute(sa.select(_lease.c.name).where(_lease.c.name == "tracker")).first()
    if known is None:
        op.execute(sa.insert(_lease).values(name="tracker", holder="", expires_at=0.0))


def downgrade() -> None:
    """Leave the row: trackers of the version before use the one that they find."""
