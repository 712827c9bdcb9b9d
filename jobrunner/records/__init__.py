"""Rows of the database as plain values: what the store hands out and takes back, and what fold and advance work on.

What a field means, its unit and what null says, stands with the column of that name in `jobrunner.store.schema`.
"""

from jobrunner.records.attempts import Attempt, AttemptKey, Standing, Tried, WorkerFailure
from jobrunner.records.events import Loss, RejectedEvent, Series
from jobrunner.records.items import ItemCountRow, ItemErrorRow, Unprocessed
from jobrunner.records.jobs import HistoryLine, Job, Link, Trunk
from jobrunner.records.messages import HeldMessage, Letter
from jobrunner.records.plans import Addition, Block, Children, Creator, Gone
from jobrunner.records.tasks import Failed, NamedTask, Origin, Task
from jobrunner.records.values import Delivered, Keep, Producer

__all__ = [
    "Addition",
    "Attempt",
    "AttemptKey",
    "Block",
    "Children",
    "Creator",
    "Delivered",
    "Failed",
    "Gone",
    "HeldMessage",
    "HistoryLine",
    "ItemCountRow",
    "ItemErrorRow",
    "Job",
    "Keep",
    "Letter",
    "Link",
    "Loss",
    "NamedTask",
    "Origin",
    "Producer",
    "RejectedEvent",
    "Series",
    "Standing",
    "Task",
    "Tried",
    "Trunk",
    "Unprocessed",
    "WorkerFailure",
]
