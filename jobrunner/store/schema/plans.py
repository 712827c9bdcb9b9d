"""Plans: blocks, tasks, the message of each, and what tasks have added."""

from sqlalchemy import Boolean, Column, Double, Index, Integer, LargeBinary, String, Table, Text, false

from jobrunner.store.schema.columns import Moment, id_column, metadata, partial_index
from jobrunner.text import NAME

block = Table(
    "block",
    metadata,
    id_column("id", primary_key=True),
    id_column("job_id", nullable=False),
    Column("kind", String(8), nullable=False),
    id_column("parent_id"),
    Column("position", Integer, nullable=False),  # in the parent
    Column("size", Integer, nullable=False),  # children that hold tasks
    Column("remaining", Integer, nullable=False),  # of these, not ended well yet
    id_column("yields_group"),  # the group whose list of values this group's list is an item of
    Column("yields_at", Integer),
    id_column("addition_id"),  # with what it was added
    Index("ix_block_job", "job_id"),
    partial_index("ix_block_addition", "addition_id", "addition_id IS NOT NULL"),
    partial_index("ix_block_yields", "yields_group", "yields_group IS NOT NULL"),
)

task = Table(
    "task",
    metadata,
    id_column("id", primary_key=True),
    id_column("job_id", nullable=False),
    id_column("celery_id", nullable=False),  # of the present delivery
    Column("name", String(NAME), nullable=False),
    Column("queue", String(NAME), nullable=False),
    Column("arrival", Integer, nullable=False),
    Column("sequence", Integer, nullable=False),
    id_column("created_by"),  # the task that has added it to the job, or has sent it
    id_column("addition_id"),  # with what it was added
    Column("discovers", Boolean, nullable=False, server_default=false()),  # it makes the job known: N1's discovery task
    Column("replayable", Boolean, nullable=False, server_default=false()),  # may run again if its value is lost
    id_column("block_id", nullable=False),  # empty for an observed or adopted task: no plan knows it
    Column("position", Integer, nullable=False),
    id_column("opens_block", nullable=False),
    Column("opens_at", Integer, nullable=False),
    id_column("takes_task"),
    id_column("takes_group"),
    id_column("yields_group"),
    Column("yields_at", Integer),
    id_column("value_task"),  # the node whose value is this task's, if not its own
    id_column("value_group"),
    Column("state", String(12), nullable=False),
    Column("reason", String(20)),  # why it failed, was canceled or skipped: see FailureReason, CancelReason, SkipReason
    Column("note", Text),
    Column("ordered", String(12)),  # the end that an operator has given it, whatever events tell
    Column("held", Boolean, nullable=False, server_default=false()),  # ready, and not sent because its job is held
    Column("skip_empty", Boolean, nullable=False, server_default=false()),  # if what it takes is empty
    Column("only_items", Integer),  # it takes only the items that failed in this delivery; null: all
    Column("max_retries", Integer),  # null: as many as any task may have
    Column("untouched_timeout", Double),  # seconds without a sign of life after which its attempt is given up
    Column("handed_back", Integer, nullable=False, server_default="0"),  # by workers that this attempt avoids
    Column("progress", Double),  # of the attempt that counts, from 0.0 to 1.0
    Column("delivery", Integer, nullable=False),  # 0 before the first
    Column("earlier", Integer, nullable=False, server_default="0"),  # deliveries before it was requeued last
    Column("first_retries", Integer, nullable=False),  # Celery's retries with which the present delivery began
    Column("countdown", Double),  # seconds, from becoming ready
    Column("not_before", Moment),
    Column("queued_at", Moment),
    Column("sent_at", Moment),  # null while queued: in the outbox
    Column("started_at", Moment),
    Column("ended_at", Moment),
    Index("ix_task_arrival", "job_id", "arrival"),
    Index("ix_task_opens", "opens_block", "opens_at"),
    partial_index("ix_task_yields", "yields_group", "yields_group IS NOT NULL"),
    partial_index("ix_task_ready", "id", "state = 'ready' AND NOT held"),
    partial_index("ix_task_held", "job_id", "held"),
    partial_index("ix_task_unsent", "id", "state = 'queued' AND sent_at IS NULL"),
    partial_index("ix_task_addition", "addition_id", "addition_id IS NOT NULL"),
)

message = Table(
    "message",
    metadata,
    id_column("task_id", primary_key=True),
    Column("body", LargeBinary, nullable=False),
    Column("content_type", String(NAME), nullable=False),
    Column("content_encoding", String(NAME), nullable=False),
    Column("headers", Text, nullable=False),  # JSON; `id` and our own header are added per delivery
    Column("properties", Text, nullable=False),  # JSON: exchange, routing_key, priority, …
)

#: What an attempt of a task, its creator, has added to its job at once.
addition = Table(
    "addition",
    metadata,
    id_column("id", primary_key=True),  # the outermost block of what was added at once
    id_column("job_id", nullable=False),
    id_column("task_id", nullable=False),  # the creator, and its attempt: if that fails, all of it is deleted (A4)
    Column("delivery", Integer, nullable=False),
    Column("retries", Integer, nullable=False),
    id_column("process", nullable=False),
    # The blocks that will take the creator's place: a chain of it and then the group of what was added.
    id_column("chain_id", nullable=False),
    id_column("group_id", nullable=False),
    Column("tasks", Integer, nullable=False),  # that were folded
    Column("told", Integer),  # tasks in all, as its last event says
    Column("expands", Boolean, nullable=False),  # its value becomes the creator's
    id_column("value_task"),
    id_column("value_group"),
    Column("kept", Boolean),  # null until it is known whether the attempt succeeds; false: deleted
    Index("ix_addition_job", "job_id"),
    partial_index("ix_addition_unkept", "task_id", "kept IS NULL OR NOT kept"),
)
