"""The tables. Migrations make them; a test holds both equal.

Rows of `job`, `block` and `task` know nothing of how a message looks: `message` keeps what the broker gets, made once
at submission, so that the hot rows stay small.
"""

from jobrunner.store.schema.attempts import attempt, item_count, item_error, log_part
from jobrunner.store.schema.columns import Moment, metadata
from jobrunner.store.schema.jobs import COUNTERS, history, job, prerequisite
from jobrunner.store.schema.orders import gate_entry, held_message, orders, snapshot
from jobrunner.store.schema.plans import addition, block, message, task
from jobrunner.store.schema.trackers import lease, log_position
from jobrunner.store.schema.workers import rejected_event, series, worker, worker_failure

__all__ = [
    "COUNTERS",
    "Moment",
    "addition",
    "attempt",
    "block",
    "gate_entry",
    "held_message",
    "history",
    "item_count",
    "item_error",
    "job",
    "lease",
    "log_part",
    "log_position",
    "message",
    "metadata",
    "orders",
    "prerequisite",
    "rejected_event",
    "series",
    "snapshot",
    "task",
    "worker",
    "worker_failure",
]
