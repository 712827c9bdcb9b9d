"""What may be ordered, as data: which orders there are, and in which states a job or task takes each of them.

The tracker applies orders (`tracker.orders`); the table of `docs/states.md` is generated from here.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from jobrunner.states import JobState, TaskState


class OrderKind(StrEnum):
    """What an operator, or a program, can ask for."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    REQUEUE = "requeue"
    SKIP = "skip"
    FAIL = "fail"
    SET = "set"


class Intent(StrEnum):
    """What an operator wants of a job until he says otherwise."""

    PAUSE = "pause"
    CANCEL = "cancel"


class Scope(StrEnum):
    """How much of a job is requeued."""

    #: Every task that is not completed or skipped, and what depends on it (F3).
    INCOMPLETE = "incomplete"
    #: Every task (F2).
    ALL = "all"


def _jobs(words: str) -> frozenset[JobState]:
    return frozenset(JobState(word) for word in words.split())


def _tasks(words: str) -> frozenset[TaskState]:
    return frozenset(TaskState(word) for word in words.split())


JOB_ORDERS: Mapping[OrderKind, frozenset[JobState]] = MappingProxyType(
    {
        OrderKind.PAUSE: _jobs("under-construction waiting queued active pausing paused requeueing"),
        OrderKind.RESUME: _jobs("under-construction waiting queued active pausing paused requeueing"),
        OrderKind.CANCEL: _jobs(
            "under-construction waiting queued active pausing paused requeueing cancel-requested canceled failed"
        ),
        OrderKind.REQUEUE: _jobs("paused requeueing completed failed canceled"),
        OrderKind.SET: frozenset(JobState),
    }
)
"""The states in which a job takes an order. Where what was ordered is so already, nothing changes, and that is well."""

TASK_ORDERS: Mapping[OrderKind, frozenset[TaskState]] = MappingProxyType(
    {
        OrderKind.CANCEL: _tasks("pending ready queued active soft-failed failed canceled"),
        OrderKind.REQUEUE: _tasks("completed partial skipped failed canceled"),
        OrderKind.SKIP: _tasks("pending ready queued active soft-failed failed skipped"),
        OrderKind.FAIL: _tasks("pending ready queued active soft-failed failed"),
    }
)
"""The states in which a task takes an order, likewise."""
