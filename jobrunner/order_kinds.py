"""What may be ordered, as data: which orders there are, and in which states a job or task takes each of them.

The tracker applies orders (`tracker.orders`); help texts and the tables of the docs come from here. Pure.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from jobrunner.documented import Documented
from jobrunner.states import ENDED_TASK, JobState, TaskState


class OrderKind(Documented):
    """What an operator, or a program, can ask for; a member's `__doc__` says what that does."""

    PAUSE = (
        "pause",
        "Start nothing more of a job.",
        "What runs, ends; messages on the broker come back. It holds until the job is resumed.",
    )
    RESUME = (
        "resume",
        "Let a paused job go on.",
        "What was held is sent, each task once.",
    )
    CANCEL = (
        "cancel",
        "End a job, or one task of it.",
        "What does not run is canceled at once; what runs is terminated, after a grace killed, or left to finish.",
    )
    REQUEUE = (
        "requeue",
        "Run a job again, or one task of it with all that comes after it.",
        "Of a job: what has not ended well and what depends on it, or everything; of a completed one, everything.",
        "Arguments and earlier attempts stay. Or tasks that ended partial run with only the items that failed.",
    )
    SKIP = (
        "skip",
        "Count a task as ended well, without a value: what comes after it may run.",
    )
    FAIL = (
        "fail",
        "Count a task as failed, whatever becomes of what it runs.",
    )
    SET = (
        "set",
        "Change a job's priority, note or labels.",
        "Of what is ready, tasks of jobs with a higher priority are sent first; nothing that has been sent changes.",
    )
    UNBLOCK = (
        "unblock",
        "Let a worker get again what it is blocked for in a job.",
        "All of that, or tasks of one name. It is blocked once more when three of them in a row fail there.",
    )


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


class Items(StrEnum):
    """Which items of a task are requeued, where it is not all of them."""

    #: Those that its body has named when it ended partial (N2 Error).
    FAILED = "failed"


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
        OrderKind.UNBLOCK: _jobs("under-construction waiting queued active pausing paused requeueing"),
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

OBSERVED_ORDERS: frozenset[OrderKind] = frozenset({OrderKind.CANCEL, OrderKind.SET})
"""What can be ordered of a job that is only observed, and nothing of its tasks: the tracker has no message of it."""

_DONE: Mapping[OrderKind, str] = MappingProxyType(
    {
        OrderKind.PAUSE: "paused",
        OrderKind.RESUME: "resumed",
        OrderKind.CANCEL: "canceled",
        OrderKind.REQUEUE: "requeued",
        OrderKind.SKIP: "skipped",
        OrderKind.FAIL: "failed",
        OrderKind.SET: "changed",
        OrderKind.UNBLOCK: "unblocked",
    }
)


def orders_taken(state: JobState | TaskState, *, observed: bool = False) -> list[OrderKind]:
    """Return what can be ordered of a job or task in this state; `observed` tells of a job without a plan."""
    taken = [kind for kind in OrderKind if state in _table(state).get(kind, ())]
    if not observed:
        return taken
    return [kind for kind in taken if kind in OBSERVED_ORDERS] if isinstance(state, JobState) else []


def refusal(kind: OrderKind, state: JobState | TaskState, *, observed: bool = False) -> str | None:
    """Return why an order is not taken in this state, what is, and what to do; None if it is taken."""
    taken = orders_taken(state, observed=observed)
    if kind in taken:
        return None
    what = "job" if isinstance(state, JobState) else "task"
    if observed and what == "task":
        return "A task of a job that is only observed takes no orders. Cancel the whole job."
    if observed:
        return f"A job that is only observed and {state} cannot be {_DONE[kind]}; it takes: {', '.join(taken)}."
    problem = f"A {what} that is {state} cannot be {_DONE[kind]}; it takes: {', '.join(taken)}."
    remedy = _remedy_of_job(kind, state) if isinstance(state, JobState) else _remedy_of_task(kind, state)
    return f"{problem} {remedy}".strip()


def _table(
    state: JobState | TaskState,
) -> Mapping[OrderKind, frozenset[JobState]] | Mapping[OrderKind, frozenset[TaskState]]:
    return JOB_ORDERS if isinstance(state, JobState) else TASK_ORDERS


def _remedy_of_job(kind: OrderKind, state: JobState) -> str:
    if kind not in JOB_ORDERS:
        return "Name tasks of it."
    if state is JobState.CANCEL_REQUESTED:
        return "Wait until it is canceled, then requeue it."
    if kind is OrderKind.REQUEUE:
        return (
            "Wait until it is paused."
            if state is JobState.PAUSING
            else "Pause or cancel it first, or wait for its end."
        )
    return "Requeue it to run it again." if kind is not OrderKind.CANCEL else ""


def _remedy_of_task(kind: OrderKind, state: TaskState) -> str:
    if kind not in TASK_ORDERS:
        return "Name its job."
    if state not in ENDED_TASK:
        return "Cancel it first, or wait for its end."
    return "Requeue it first." if state is TaskState.CANCELED else ""
