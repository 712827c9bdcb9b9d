"""Tasks are found by their own id, which is the Celery id of their first delivery, or by the attempts of later ones."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Drop an index that every new task had to be written into."""
    op.drop_index("ix_task_celery_id", "task")


def downgrade() -> None:
    """Make it again."""
    op.create_index("ix_task_celery_id", "task", ["celery_id"])
