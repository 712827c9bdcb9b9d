"""Workers: who lives, what of their events was lost or rejected, and what fails on whom."""

from sqlalchemy import BigInteger, Boolean, Column, Integer, String, Table, Text, false

from jobrunner.store.schema.columns import Moment, id_column, metadata
from jobrunner.text import NAME, SOURCE

worker = Table(
    "worker",
    metadata,
    Column("name", String(NAME), primary_key=True),
    Column("source", String(SOURCE), nullable=False),  # its present process, by its event batches; empty: it was lost
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

#: How workers have fared with the tasks of one name in a job.
worker_failure = Table(
    "worker_failure",
    metadata,
    id_column("job_id", primary_key=True),
    Column("name", String(NAME), primary_key=True),  # of the tasks
    Column("worker", String(NAME), primary_key=True),
    Column("failures", Integer, nullable=False),  # of so many tasks in a row
    id_column("last_task"),  # the one that failed last
    Column("blocked_at", Moment),  # since then it gets none of them
)

#: How far the batches of each process of a worker were read: a gap in their numbers is a loss.
series = Table(
    "series",
    metadata,
    Column("id", String(SOURCE), primary_key=True),
    Column("worker", String(NAME), nullable=False),
    Column("number", Integer, nullable=False),  # of the last batch that was read; they count from 1
    Column("dropped", Integer, nullable=False),  # events, as that one said
    Column("heard_at", Moment, nullable=False),
)

#: Events that could not be folded, and entries of the event log that could not be read.
rejected_event = Table(
    "rejected_event",
    metadata,
    id_column("id", primary_key=True),  # ascends with time
    Column("at", Moment, nullable=False),  # when it was rejected, by the tracker's clock
    Column("source", String(SOURCE)),
    Column("worker", String(NAME)),
    Column("type", String(NAME)),
    Column("uuid", String(NAME)),
    Column("reason", String(NAME), nullable=False),  # see tracker.rejects; few of them, to be counted by
    Column("detail", Text),  # what the database or Python said of it
    Column("event", Text, nullable=False),  # its beginning
)
