"""Orders, and what gates must know of them: the snapshot, and the messages that gates have handed back."""

from sqlalchemy import Column, Double, Index, Integer, LargeBinary, String, Table, Text

from jobrunner.store.schema.columns import Moment, id_column, metadata, partial_index
from jobrunner.text import NAME

orders = Table(
    "orders",
    metadata,
    id_column("id", primary_key=True),
    Column("kind", String(12), nullable=False),
    id_column("job_id"),
    id_column("task_id"),
    Column("arguments", Text, nullable=False),  # JSON
    Column("asked_by", String(NAME), nullable=False),
    Column("why", Text),
    Column("asked_at", Moment, nullable=False),
    Column("applied_at", Moment),
    Column("answered_at", Moment),  # what was ordered is done, or refused
    Column("answer", Text),  # JSON, see jobrunner.order_records.Answer
    partial_index("ix_orders_unapplied", "id", "applied_at IS NULL"),
    partial_index("ix_orders_unanswered", "job_id", "answered_at IS NULL"),
)

#: What the snapshot for workers says of jobs: these rows are all of it.
gate_entry = Table(
    "gate_entry",
    metadata,
    id_column("job_id", primary_key=True),
    Column("kind", String(8), primary_key=True),  # see jobrunner.snapshot.Kind
    id_column("subject", primary_key=True),  # what is void: a Celery id or a batch; else empty
    Column("number", Double),  # seconds of grace, null to let finish; of `run` the first that is not void
    Column("version", Integer, nullable=False),  # of the snapshot in which it appeared
    Column("made_at", Moment, nullable=False),
)

#: One row: the version of the snapshot that the rows of `gate_entry` make up.
snapshot = Table(
    "snapshot",
    metadata,
    Column("name", String(20), primary_key=True),
    Column("version", Integer, nullable=False),
)

#: Messages that the tracker has not sent, and that a gate has handed back whole: they are forwarded later (C3).
held_message = Table(
    "held_message",
    metadata,
    id_column("id", primary_key=True),
    id_column("job_id", nullable=False),
    id_column("task_id", nullable=False),
    id_column("celery_id", nullable=False),
    Column("retries", Integer, nullable=False),
    Column("queue", String(NAME), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("content_type", String(NAME), nullable=False),
    Column("content_encoding", String(NAME), nullable=False),
    Column("headers", Text, nullable=False),  # JSON
    Column("properties", Text, nullable=False),  # JSON: exchange, routing_key, priority, …
    Column("held_at", Moment, nullable=False),
    Column("forwarded_at", Moment),  # about to be, until the broker is known to have it
    Index("ix_held_message_job", "job_id"),
)
