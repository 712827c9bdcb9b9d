"""Jobs: what was submitted, what they wait for, and what was decided about them."""

from sqlalchemy import Boolean, Column, Index, Integer, String, Table, Text, false

from jobrunner.states import TaskState
from jobrunner.store.schema.columns import Moment, id_column, metadata, partial_index
from jobrunner.text import NAME

#: How many tasks of a job are in each state: a cache that only the tracker changes, in the transaction that moves the
#: task.
COUNTERS = {state: f"n_{state.replace('-', '_')}" for state in TaskState}

job = Table(
    "job",
    metadata,
    id_column("id", primary_key=True),
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
    id_column("value_task"),  # the node whose value is the job's
    id_column("value_group"),
    Column("submitted_at", Moment, nullable=False),
    Column("applied_at", Moment),  # when the tracker took it up; null: not yet
    Column("started_at", Moment),
    Column("ended_at", Moment),
    Index("ix_job_submitted_at", "submitted_at"),
    partial_index("ix_job_unapplied", "id", "applied_at IS NULL"),
    partial_index("ix_job_unended", "id", "ended_at IS NULL"),
    partial_index("ix_job_chore", "id", "chore"),
    partial_index("ix_job_keeping", "id", "keeps_values AND ended_at IS NOT NULL"),
)

#: What a job waits for: it is not executed until all of these have completed (C4).
prerequisite = Table(
    "prerequisite",
    metadata,
    id_column("job_id", primary_key=True),
    id_column("wanted", primary_key=True),  # the id or key of another job, as it was given
    id_column("on_job"),  # that job; null: there is none yet
    Column("met_at", Moment),  # when that had completed: it stays met, whatever becomes of that job
    Column("accepted", Boolean, nullable=False, server_default=false()),  # that had failed already, and is waited for
    Index("ix_prerequisite_on_job", "on_job"),
    partial_index("ix_prerequisite_unknown", "wanted", "on_job IS NULL"),
)

history = Table(
    "history",
    metadata,
    id_column("id", primary_key=True),  # ascends with time
    id_column("job_id", nullable=False),
    id_column("task_id"),
    Column("at", Moment, nullable=False),
    Column("line", Text, nullable=False),  # a sentence for people: what was decided, and why
    Column("old", String(20)),  # the states that job or task moved from and to; none: it did not move
    Column("new", String(20)),
    Column("trigger", String(NAME)),  # the kind of the order, or what the tracker has seen
    Column("who", String(NAME)),  # gave the order; none: the tracker decided
    Column("why", Text),
    Index("ix_history_job", "job_id"),
)
