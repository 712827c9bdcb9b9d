"""The first schema: jobs, their plans, tasks, attempts and messages, orders, workers, lease and log position."""

import sqlalchemy as sa
from alembic import op

from jobrunner.store.schema import Moment

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "attempt",
        sa.Column("task_id", sa.String(length=255), nullable=False),
        sa.Column("delivery", sa.Integer(), nullable=False),
        sa.Column("retries", sa.Integer(), nullable=False),
        sa.Column("celery_id", sa.String(length=255), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("last_event", sa.String(length=20), nullable=True),
        sa.Column("outcome", sa.String(length=12), nullable=True),
        sa.Column("worker", sa.String(length=255), nullable=True),
        sa.Column("source", sa.String(length=36), nullable=True),
        sa.Column("pid", sa.Integer(), nullable=True),
        sa.Column("received_at", Moment(), nullable=True),
        sa.Column("started_at", Moment(), nullable=True),
        sa.Column("ended_at", Moment(), nullable=True),
        sa.Column("runtime", sa.Double(), nullable=True),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("exception", sa.Text(), nullable=True),
        sa.Column("traceback", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("task_id", "delivery", "retries", name="pk_attempt"),
    )
    op.create_index(
        "ix_attempt_celery_id",
        "attempt",
        ["celery_id"],
        sqlite_where=sa.text("delivery > 1"),
        postgresql_where=sa.text("delivery > 1"),
    )
    op.create_index(
        "ix_attempt_open",
        "attempt",
        ["worker"],
        sqlite_where=sa.text("outcome IS NULL"),
        postgresql_where=sa.text("outcome IS NULL"),
    )
    op.create_table(
        "block",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("job_id", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("parent_id", sa.String(length=255), nullable=True),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("remaining", sa.Integer(), nullable=False),
        sa.Column("yields_group", sa.String(length=255), nullable=True),
        sa.Column("yields_at", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_block"),
    )
    op.create_index("ix_block_job", "block", ["job_id"])
    op.create_index(
        "ix_block_yields",
        "block",
        ["yields_group"],
        sqlite_where=sa.text("yields_group IS NOT NULL"),
        postgresql_where=sa.text("yields_group IS NOT NULL"),
    )
    op.create_table(
        "job",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=True),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.String(length=20), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("n_pending", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_ready", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_queued", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_active", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_soft_failed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_completed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_partial", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_skipped", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_failed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_canceled", sa.Integer(), server_default="0", nullable=False),
        sa.Column("value_task", sa.String(length=255), nullable=True),
        sa.Column("value_group", sa.String(length=255), nullable=True),
        sa.Column("submitted_at", Moment(), nullable=False),
        sa.Column("applied_at", Moment(), nullable=True),
        sa.Column("started_at", Moment(), nullable=True),
        sa.Column("ended_at", Moment(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_job"),
        sa.UniqueConstraint("key", name="uq_key"),
    )
    op.create_index("ix_job_submitted_at", "job", ["submitted_at"])
    op.create_index(
        "ix_job_unapplied",
        "job",
        ["id"],
        sqlite_where=sa.text("applied_at IS NULL"),
        postgresql_where=sa.text("applied_at IS NULL"),
    )
    op.create_index(
        "ix_job_unended",
        "job",
        ["id"],
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.String(length=20), nullable=False),
        sa.Column("holder", sa.String(length=255), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("trouble", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_lease"),
    )
    op.create_table(
        "log_position",
        sa.Column("log", sa.String(length=255), nullable=False),
        sa.Column("position", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("log", name="pk_log_position"),
    )
    op.create_table(
        "message",
        sa.Column("task_id", sa.String(length=255), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("content_type", sa.String(length=255), nullable=False),
        sa.Column("content_encoding", sa.String(length=255), nullable=False),
        sa.Column("headers", sa.Text(), nullable=False),
        sa.Column("properties", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("task_id", name="pk_message"),
    )
    op.create_table(
        "orders",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("job_id", sa.String(length=255), nullable=True),
        sa.Column("task_id", sa.String(length=255), nullable=True),
        sa.Column("arguments", sa.Text(), nullable=False),
        sa.Column("asked_by", sa.String(length=255), nullable=False),
        sa.Column("why", sa.Text(), nullable=True),
        sa.Column("asked_at", Moment(), nullable=False),
        sa.Column("applied_at", Moment(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_orders"),
    )
    op.create_index(
        "ix_orders_unapplied",
        "orders",
        ["id"],
        sqlite_where=sa.text("applied_at IS NULL"),
        postgresql_where=sa.text("applied_at IS NULL"),
    )
    op.create_table(
        "task",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("job_id", sa.String(length=255), nullable=False),
        sa.Column("celery_id", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("queue", sa.String(length=255), nullable=False),
        sa.Column("arrival", sa.Integer(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("block_id", sa.String(length=255), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("opens_block", sa.String(length=255), nullable=False),
        sa.Column("opens_at", sa.Integer(), nullable=False),
        sa.Column("takes_task", sa.String(length=255), nullable=True),
        sa.Column("takes_group", sa.String(length=255), nullable=True),
        sa.Column("yields_group", sa.String(length=255), nullable=True),
        sa.Column("yields_at", sa.Integer(), nullable=True),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("delivery", sa.Integer(), nullable=False),
        sa.Column("first_retries", sa.Integer(), nullable=False),
        sa.Column("countdown", sa.Double(), nullable=True),
        sa.Column("not_before", Moment(), nullable=True),
        sa.Column("queued_at", Moment(), nullable=True),
        sa.Column("sent_at", Moment(), nullable=True),
        sa.Column("started_at", Moment(), nullable=True),
        sa.Column("ended_at", Moment(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_task"),
    )
    op.create_index("ix_task_arrival", "task", ["job_id", "arrival"])
    op.create_index("ix_task_celery_id", "task", ["celery_id"])
    op.create_index("ix_task_opens", "task", ["opens_block", "opens_at"])
    op.create_index(
        "ix_task_ready",
        "task",
        ["id"],
        sqlite_where=sa.text("state = 'ready'"),
        postgresql_where=sa.text("state = 'ready'"),
    )
    op.create_index(
        "ix_task_unsent",
        "task",
        ["id"],
        sqlite_where=sa.text("state = 'queued' AND sent_at IS NULL"),
        postgresql_where=sa.text("state = 'queued' AND sent_at IS NULL"),
    )
    op.create_index(
        "ix_task_yields",
        "task",
        ["yields_group"],
        sqlite_where=sa.text("yields_group IS NOT NULL"),
        postgresql_where=sa.text("yields_group IS NOT NULL"),
    )
    op.create_table(
        "worker",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("source", sa.String(length=36), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=True),
        sa.Column("online", sa.Boolean(), nullable=False),
        sa.Column("online_at", Moment(), nullable=False),
        sa.Column("seen_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_worker"),
    )


def downgrade() -> None:
    """Drop every table, with all that is in them."""
    for table in ("worker", "task", "orders", "message", "log_position", "lease", "job", "block", "attempt"):
        op.drop_table(table)
