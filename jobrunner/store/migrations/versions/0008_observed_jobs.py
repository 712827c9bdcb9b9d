"""Canvases that jobrunner has not sent, and workers without jobrunner, are known by what Celery tells of them."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the columns: all that is there has a plan, and its workers write into the event log."""
    op.add_column("job", sa.Column("observed", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("worker", sa.Column("lossy", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("task", sa.Column("parent_id", sa.String(255), nullable=True))


def downgrade() -> None:
    """Forget them, and what was only observed: to an older version it would be a job without a plan."""
    op.execute(
        "DELETE FROM attempt WHERE task_id IN (SELECT task.id FROM task JOIN job ON job.id = task.job_id"
        " WHERE job.observed)"
    )
    op.execute("DELETE FROM task WHERE job_id IN (SELECT id FROM job WHERE observed)")
    op.execute("DELETE FROM job WHERE observed")
    op.execute("DELETE FROM worker WHERE lossy")
    for table, column in (("job", "observed"), ("worker", "lossy"), ("task", "parent_id")):
        with op.batch_alter_table(table) as batch:
            batch.drop_column(column)
