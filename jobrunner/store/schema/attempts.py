"""Attempts of tasks, and what each has told in parts: item errors and its log."""

from typing import Any

from sqlalchemy import BigInteger, Column, Double, Index, Integer, String, Table, Text

from jobrunner.store.schema.columns import Moment, id_column, metadata, partial_index
from jobrunner.text import NAME

attempt = Table(
    "attempt",
    metadata,
    id_column("task_id", primary_key=True),
    Column("delivery", Integer, primary_key=True),
    Column("retries", Integer, primary_key=True),
    id_column("process", primary_key=True),  # the worker process, by the id of its event batches
    id_column("celery_id", nullable=False),
    Column("standing", Integer, nullable=False),  # how much it says about the task, see Standing
    Column("last_event", String(20)),
    Column("outcome", String(12)),  # see tracker.fold
    Column("worker", String(NAME)),
    Column("pid", Integer),
    Column("received_at", Moment),
    Column("started_at", Moment),
    Column("ended_at", Moment),  # earlier than its start, if the broker had the message back in between
    Column("runtime", Double),  # seconds
    Column("result", Text),  # Celery's shortened repr
    Column("exception", Text),
    Column("traceback", Text),
    Column("progress", Double),  # last reported, from 0.0 to 1.0
    Column("said", Text),  # with that
    Column("touched_at", Moment),  # when it was reported
    Column("statement", Text),  # JSON: what its body says came of its work, see jobrunner.statements
    partial_index("ix_attempt_celery_id", "celery_id", "delivery > 1"),
    partial_index("ix_attempt_open", "worker", "standing IN (4, 8)"),
    partial_index("ix_attempt_passed_on", "worker", "standing = 0 AND received_at IS NOT NULL"),
    partial_index("ix_attempt_foreign", "task_id", "standing = 0 AND outcome IS NOT NULL"),
)


def _of_an_execution() -> list[Column[Any]]:
    """Return the key of what an execution has told in parts, each with its number."""
    return [
        id_column("task_id", primary_key=True),
        Column("delivery", Integer, primary_key=True),
        Column("retries", Integer, primary_key=True),
        id_column("process", primary_key=True),
        Column("number", Integer, primary_key=True),
    ]


#: What an execution could not process, item by item, numbered from 0.
item_error = Table(
    "item_error",
    metadata,
    *_of_an_execution(),
    Column("item", Text),  # JSON, to be processed again; null: too long for that
    Column("label", String(NAME), nullable=False),  # the item for people
    Column("type", String(NAME)),  # of the exception
    Column("message", Text, nullable=False),
    Column("details", Text),  # JSON: an object
)

#: How many items tasks have processed, of those that say so: by the execution that counts.
item_count = Table(
    "item_count",
    metadata,
    id_column("task_id", primary_key=True),
    id_column("job_id", nullable=False),
    *(Column(name, BigInteger, nullable=False) for name in ("processed", "skipped", "failed", "aborted")),
    Index("ix_item_count_job", "job_id"),
)

#: What an execution has logged and printed: some lines, numbered from 0.
log_part = Table(
    "log_part",
    metadata,
    *_of_an_execution(),
    Column("at", Moment, nullable=False),  # of its first line
    Column("text", Text, nullable=False),
)
