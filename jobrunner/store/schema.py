"""The tables. Migrations make them; a test holds both equal.

Rows of `job`, `block` and `task` know nothing of how a message looks: `message` keeps what the broker gets, made once
at submission, so that the hot rows stay small.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    false,
    text,
)
from sqlalchemy.types import TypeDecorator, TypeEngine

from jobrunner.states import TaskState
from jobrunner.text import NAME, SOURCE

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(column_0_N_name)s",
    }
)


class Moment(TypeDecorator[datetime]):
    """An aware UTC time: `timestamptz` where there is one; on SQLite, which has none, seconds since 1970."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the column type of the database at hand."""
        return dialect.type_descriptor(Double() if dialect.name == "sqlite" else DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Hand a time to the driver."""
        return value.timestamp() if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Take a time from the driver."""
        return datetime.fromtimestamp(value, UTC) if value is not None and dialect.name == "sqlite" else value


def _id(name: str, **kwargs: Any) -> Column[str]:
    return Column(name, String(NAME), **kwargs)


def _partial(name: str, column: str, condition: str) -> Index:
    return Index(name, column, sqlite_where=text(condition), postgresql_where=text(condition))


#: How many tasks of a job are in each state: a cache that only the tracker changes, in the transaction that moves the
#: task.
COUNTERS = {state: f"n_{state.replace('-', '_')}" for state in TaskState}

job = Table(
    "job",
    metadata,
    _id("id", primary_key=True),
    Column("name", String(NAME), nullable=False),
    Column("key", String(NAME), unique=True),
    Column("digest", String(64), nullable=False),  # of the content: the same key with another digest is refused
    Column("observed", Boolean, nullable=False, server_default=false()),  # a plain Celery canvas, known by its events
    Column("barrier", Boolean, nullable=False, server_default=false()),  # A8: level by level
    Column("keeps_values", Boolean, nullable=False, server_default=false()),  # in the result backend, for its tasks
    Column("state", String(20), nullable=False),
    Column("reason", String(20)),  # why it failed, see FailureReason
    Column("outcome", String(12)),  # how it completed, see JobOutcome
    Column("note", Text),  # a sentence for people: what ended it, or what it waits for
    Column("intent", String(8)),  # what an operator wants of it, see Intent
    Column("held", Boolean, nullable=False, server_default=false()),  # nothing of it is sent
    Column("chore", Boolean, nullable=False, server_default=false()),  # what was ordered is not done yet, see tracker
    Column("hold_version", Integer),  # of the snapshot that tells workers how it is held now; null: they need not know
    Column("requeue", Text),  # JSON: what of it is being requeued
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("annotation", Text),  # a note of its operators
    Column("labels", Text),  # JSON: an object of texts
    Column("failure_rule", String(10), nullable=False, server_default="continue"),  # see FailureRule
    Column("threshold", Integer),  # percent of its tasks that may fail, for that rule
    Column("propagate", Boolean),  # C5; null: as the tracker is told
    Column("partial_rule", String(10), nullable=False, server_default="fail"),  # see PartialRule
    Column("will_fail", String(20)),  # the reason for which it will have failed when what runs has ended
    Column("unmet", Integer, nullable=False, server_default="0"),  # of its prerequisites
    Column("run", Integer, nullable=False),
    Column("kept", Integer, nullable=False, server_default="0"),  # tasks that had ended well before this run
    Column("total", Integer, nullable=False),
    *(Column(name, Integer, nullable=False, server_default="0") for name in COUNTERS.values()),
    # Of these, tasks that discover work: those that are at it, and those that have tried to (not if canceled).
    Column("discovering", Integer, nullable=False, server_default="0"),
    Column("discovered", Integer, nullable=False, server_default="0"),
    _id("value_task"),  # the node whose value is the job's
    _id("value_group"),
    Column("submitted_at", Moment, nullable=False),
    Column("applied_at", Moment),  # when the tracker took it up; null: not yet
    Column("started_at", Moment),
    Column("ended_at", Moment),
    Index("ix_job_submitted_at", "submitted_at"),
    _partial("ix_job_unapplied", "id", "applied_at IS NULL"),
    _partial("ix_job_unended", "id", "ended_at IS NULL"),
    _partial("ix_job_chore", "id", "chore"),
    _partial("ix_job_keeping", "id", "keeps_values AND ended_at IS NOT NULL"),
)

block = Table(
    "block",
    metadata,
    _id("id", primary_key=True),
    _id("job_id", nullable=False),
    Column("kind", String(8), nullable=False),
    _id("parent_id"),
    Column("position", Integer, nullable=False),  # in the parent
    Column("size", Integer, nullable=False),  # children that hold tasks
    Column("remaining", Integer, nullable=False),  # of these, not ended well yet
    _id("yields_group"),  # the group whose list of values this group's list is an item of
    Column("yields_at", Integer),
    _id("addition_id"),  # with what it was added
    Index("ix_block_job", "job_id"),
    _partial("ix_block_addition", "addition_id", "addition_id IS NOT NULL"),
    _partial("ix_block_yields", "yields_group", "yields_group IS NOT NULL"),
)

task = Table(
    "task",
    metadata,
    _id("id", primary_key=True),
    _id("job_id", nullable=False),
    _id("celery_id", nullable=False),  # of the present delivery
    Column("name", String(NAME), nullable=False),
    Column("queue", String(NAME), nullable=False),
    Column("arrival", Integer, nullable=False),
    Column("sequence", Integer, nullable=False),
    _id("created_by"),  # the task that has added it to the job, or has sent it
    _id("addition_id"),  # with what it was added
    Column("discovers", Boolean, nullable=False, server_default=false()),  # it makes the job known: N1's discovery task
    Column("replayable", Boolean, nullable=False, server_default=false()),  # may run again if its value is lost
    _id("block_id", nullable=False),  # empty for an observed or adopted task: no plan knows it
    Column("position", Integer, nullable=False),
    _id("opens_block", nullable=False),
    Column("opens_at", Integer, nullable=False),
    _id("takes_task"),
    _id("takes_group"),
    _id("yields_group"),
    Column("yields_at", Integer),
    _id("value_task"),  # the node whose value is this task's, if not its own
    _id("value_group"),
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
    _partial("ix_task_yields", "yields_group", "yields_group IS NOT NULL"),
    _partial("ix_task_ready", "id", "state = 'ready' AND NOT held"),
    _partial("ix_task_held", "job_id", "held"),
    _partial("ix_task_unsent", "id", "state = 'queued' AND sent_at IS NULL"),
    _partial("ix_task_addition", "addition_id", "addition_id IS NOT NULL"),
)

message = Table(
    "message",
    metadata,
    _id("task_id", primary_key=True),
    Column("body", LargeBinary, nullable=False),
    Column("content_type", String(NAME), nullable=False),
    Column("content_encoding", String(NAME), nullable=False),
    Column("headers", Text, nullable=False),  # JSON; `id` and our own header are added per delivery
    Column("properties", Text, nullable=False),  # JSON: exchange, routing_key, priority, …
)

attempt = Table(
    "attempt",
    metadata,
    _id("task_id", primary_key=True),
    Column("delivery", Integer, primary_key=True),
    Column("retries", Integer, primary_key=True),
    _id("process", primary_key=True),  # the worker process, by the id of its event batches
    _id("celery_id", nullable=False),
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
    _partial("ix_attempt_celery_id", "celery_id", "delivery > 1"),
    _partial("ix_attempt_open", "worker", "standing IN (4, 8)"),
    _partial("ix_attempt_passed_on", "worker", "standing = 0 AND received_at IS NOT NULL"),
    _partial("ix_attempt_foreign", "task_id", "standing = 0 AND outcome IS NOT NULL"),
)


def _of_an_execution() -> list[Column[Any]]:
    """Return the key of what an execution has told in parts, each with its number."""
    return [
        _id("task_id", primary_key=True),
        Column("delivery", Integer, primary_key=True),
        Column("retries", Integer, primary_key=True),
        _id("process", primary_key=True),
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
    _id("task_id", primary_key=True),
    _id("job_id", nullable=False),
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

addition = Table(
    "addition",
    metadata,
    _id("id", primary_key=True),  # the outermost block of what was added at once
    _id("job_id", nullable=False),
    _id("task_id", nullable=False),  # the creator, and its attempt: if that fails, all of it is deleted (A4)
    Column("delivery", Integer, nullable=False),
    Column("retries", Integer, nullable=False),
    _id("process", nullable=False),
    _id("chain_id", nullable=False),  # the blocks that will take the creator's place: it, and then a group of additions
    _id("group_id", nullable=False),
    Column("tasks", Integer, nullable=False),  # that were folded
    Column("told", Integer),  # tasks in all, as its last event says
    Column("expands", Boolean, nullable=False),  # its value becomes the creator's
    _id("value_task"),
    _id("value_group"),
    Column("kept", Boolean),  # null until it is known whether the attempt succeeds; false: deleted
    Index("ix_addition_job", "job_id"),
    _partial("ix_addition_unkept", "task_id", "kept IS NULL OR NOT kept"),
)

history = Table(
    "history",
    metadata,
    _id("id", primary_key=True),  # ascends with time
    _id("job_id", nullable=False),
    _id("task_id"),
    Column("at", Moment, nullable=False),
    Column("line", Text, nullable=False),  # a sentence for people: what was decided, and why
    Column("old", String(20)),  # the states that job or task moved from and to; none: it did not move
    Column("new", String(20)),
    Column("trigger", String(NAME)),  # the kind of the order, or what the tracker has seen
    Column("who", String(NAME)),  # gave the order; none: the tracker decided
    Column("why", Text),
    Index("ix_history_job", "job_id"),
)

orders = Table(
    "orders",
    metadata,
    _id("id", primary_key=True),
    Column("kind", String(12), nullable=False),
    _id("job_id"),
    _id("task_id"),
    Column("arguments", Text, nullable=False),  # JSON
    Column("asked_by", String(NAME), nullable=False),
    Column("why", Text),
    Column("asked_at", Moment, nullable=False),
    Column("applied_at", Moment),
    Column("answered_at", Moment),  # what was ordered is done, or refused
    Column("answer", Text),  # JSON, see jobrunner.order_records.Answer
    _partial("ix_orders_unapplied", "id", "applied_at IS NULL"),
    _partial("ix_orders_unanswered", "job_id", "answered_at IS NULL"),
)

#: What the snapshot for workers says of jobs: these rows are all of it.
gate_entry = Table(
    "gate_entry",
    metadata,
    _id("job_id", primary_key=True),
    Column("kind", String(8), primary_key=True),  # see jobrunner.snapshot.Kind
    _id("subject", primary_key=True),  # what is void: a Celery id or a batch; else empty
    Column("number", Double),  # seconds of grace, null to let finish; of `run` the first that is not void
    Column("version", Integer, nullable=False),  # of the snapshot in which it appeared
    Column("made_at", Moment, nullable=False),
)

#: What a job waits for: it is not executed until all of these have completed (C4).
prerequisite = Table(
    "prerequisite",
    metadata,
    _id("job_id", primary_key=True),
    _id("wanted", primary_key=True),  # the id or key of another job, as it was given
    _id("on_job"),  # that job; null: there is none yet
    Column("met_at", Moment),  # when that had completed: it stays met, whatever becomes of that job
    Column("accepted", Boolean, nullable=False, server_default=false()),  # that had failed already, and is waited for
    Index("ix_prerequisite_on_job", "on_job"),
    _partial("ix_prerequisite_unknown", "wanted", "on_job IS NULL"),
)

#: How workers have fared with the tasks of one name in a job.
worker_failure = Table(
    "worker_failure",
    metadata,
    _id("job_id", primary_key=True),
    Column("name", String(NAME), primary_key=True),  # of the tasks
    Column("worker", String(NAME), primary_key=True),
    Column("failures", Integer, nullable=False),  # of so many tasks in a row
    _id("last_task"),  # the one that failed last
    Column("blocked_at", Moment),  # since then it gets none of them
)

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
    _id("id", primary_key=True),
    _id("job_id", nullable=False),
    _id("task_id", nullable=False),
    _id("celery_id", nullable=False),
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

worker = Table(
    "worker",
    metadata,
    Column("name", String(NAME), primary_key=True),
    Column("source", String(SOURCE), nullable=False),
    Column("pid", Integer),
    Column("online", Boolean, nullable=False),
    Column("lossy", Boolean, nullable=False, server_default=false()),  # without jobrunner: see tracker.lossy
    Column("online_at", Moment, nullable=False),
    Column("seen_at", Moment, nullable=False),
    Column("snapshot", Integer),  # the version that its present process has acknowledged
    Column("queues", Text),  # JSON: the names of those that it takes tasks from; null: it has not said
    # Of all processes that have borne the name: what they say they have dropped, and what of theirs never arrived.
    Column("events_dropped", BigInteger, nullable=False, server_default="0"),
    Column("batches_missed", BigInteger, nullable=False, server_default="0"),
)

series = Table(
    "series",
    metadata,
    Column("id", String(SOURCE), primary_key=True),  # the batches of one process of a worker, numbered from 1
    Column("worker", String(NAME), nullable=False),
    Column("number", Integer, nullable=False),  # of the last that was read
    Column("dropped", Integer, nullable=False),  # events, as that one said
    Column("heard_at", Moment, nullable=False),
)

rejected_event = Table(
    "rejected_event",
    metadata,
    _id("id", primary_key=True),  # ascends with time
    Column("at", Moment, nullable=False),  # when it was rejected, by the tracker's clock
    Column("source", String(SOURCE)),
    Column("worker", String(NAME)),
    Column("type", String(NAME)),
    Column("uuid", String(NAME)),
    Column("reason", String(NAME), nullable=False),  # see tracker.rejects; few of them, to be counted by
    Column("detail", Text),  # what the database or Python said of it
    Column("event", Text, nullable=False),  # its beginning
)

lease = Table(
    "lease",
    metadata,
    Column("name", String(20), primary_key=True),
    Column("holder", String(NAME), nullable=False),
    Column("expires_at", Double, nullable=False),  # seconds since 1970 by the database's clock
    Column("trouble", Text),  # what keeps the holder from its work, for people
    Column("caught_up_at", Double),  # until then all that was reported is in the database; by the same clock
)

log_position = Table(
    "log_position",
    metadata,
    Column("log", String(NAME), primary_key=True),
    Column("position", String(NAME), nullable=False),
)
