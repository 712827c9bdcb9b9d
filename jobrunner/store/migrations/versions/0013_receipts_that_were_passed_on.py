"""What a worker has received and another one has since is found by the worker's name, for when that is lost.

Revision ID: 0013
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

_PASSED_ON = sa.text("standing = 0 AND received_at IS NOT NULL")


def upgrade() -> None:
    """Add the index."""
    op.create_index("ix_attempt_passed_on", "attempt", ["worker"], sqlite_where=_PASSED_ON, postgresql_where=_PASSED_ON)


def downgrade() -> None:
    """Drop it."""
    op.drop_index("ix_attempt_passed_on", "attempt")
