"""The states of jobs and tasks, and the moves between them, as data.

Whatever changes a state asks `check_job_move` or `check_task_move` first, and `docs/states.md` is generated from the
same tables. This module decides nothing: which move comes next follows from events, orders and plans, and is worked
out elsewhere. It knows no clock, database or broker.

A member's `__doc__` says what the state means and who moves it on. Only the tracker writes states; "an operator moves
it on" means that the tracker does so on an operator's order.

A `JobState` and a `TaskState` with the same value are equal, being strings: tell them apart by type, never by value.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

from jobrunner.documented import Documented
from jobrunner.errors import IllegalMoveError


class JobState(Documented):
    """Where a job stands; a function of the operator's intent, its holds, its tasks and its failure policy."""

    UNDER_CONSTRUCTION = (
        "under-construction",
        "Only tasks that discover work have started, and they are still adding to the job.",
        "The tracker moves it on when another task starts or the discovery ends.",
    )
    WAITING = (
        "waiting",
        "Fully described, but held by prerequisites or a delay.",
        "The tracker moves it on when these are over; an operator may pause or cancel it.",
    )
    QUEUED = (
        "queued",
        "May run, but nothing has started in this run.",
        "The first task to start moves it on; an operator may pause or cancel it.",
    )
    ACTIVE = (
        "active",
        "Something has started and work is left.",
        "The tracker moves it on when the last task ends; an operator may pause or cancel it.",
    )
    PAUSING = (
        "pausing",
        "An operator paused it: nothing new starts, running tasks end.",
        "The tracker moves it on when no attempt is open and every live worker knows.",
        "An operator may resume or cancel it.",
    )
    PAUSED = (
        "paused",
        "Nothing runs: an operator holds it, or it was submitted paused.",
        "An operator moves it on by resuming, requeueing or canceling; the tracker only for an event that comes late.",
    )
    CANCEL_REQUESTED = (
        "cancel-requested",
        "An operator canceled it: nothing new starts, running tasks are being stopped.",
        "The tracker moves it on when the last of them has stopped.",
    )
    CANCELED = (
        "canceled",
        "Ended by an operator or by propagation. It stays so until an operator requeues it.",
    )
    REQUEUEING = (
        "requeueing",
        "An operator requeued it: its tasks are reset in batches, nothing starts meanwhile.",
        "The tracker moves it on after the last batch; an operator may cancel it.",
    )
    COMPLETED = (
        "completed",
        "Every task is completed or skipped, or partial where that is tolerated.",
        "It stays so until an operator requeues it, or a task that it adopts late makes it active again.",
    )
    FAILED = (
        "failed",
        "The failure rule was met, and a reason says how. It stays so until an operator requeues or cancels it.",
    )


class TaskState(Documented):
    """Where a task stands, all its attempts considered."""

    PENDING = (
        "pending",
        "Something before it has not ended, or the task that has added it; a sentence says which.",
        "The tracker moves it on when that is over, or can never be.",
    )
    READY = (
        "ready",
        "May be sent; waits for room in its queue's window, for its `not_before`, or until its job is no longer held.",
        "The tracker moves it on by sending it. In a job that is held it stays ready: what is paused is the job.",
    )
    QUEUED = (
        "queued",
        "Sent, or committed and about to be sent.",
        "A worker moves it on by starting it; the tracker takes it back when the job is held or the message is lost.",
    )
    ACTIVE = (
        "active",
        "Started and not ended: an attempt is open.",
        "The worker that runs it moves it on; the tracker does when that worker is lost.",
    )
    SOFT_FAILED = (
        "soft-failed",
        "Same as queued, but an earlier attempt failed in a way worth another try.",
        "Celery moves it on by sending the retry, or the tracker by sending the next delivery.",
    )
    COMPLETED = (
        "completed",
        "Ended with success.",
        "It stays so until an operator requeues it, or the tracker does: it is replayable and its value is lost.",
    )
    PARTIAL = (
        "partial",
        "Ended with a captured error: structured output says what was processed, and that went on.",
        "It stays so until an operator requeues it.",
    )
    SKIPPED = (
        "skipped",
        "Ended well with no work to perform, or a failure that an operator accepted.",
        "It stays so until an operator requeues it.",
    )
    FAILED = (
        "failed",
        "Ended by an unexpected error, by used-up retries, or because something before it failed.",
        "It stays so until an operator requeues, skips or cancels it.",
    )
    CANCELED = (
        "canceled",
        "Will not run: by an operator or with its job, revoked, terminated, expired, or blocked by a failure upstream.",
        "It stays so until an operator requeues it.",
    )


class WorkerState(Documented):
    """What the tracker knows of a worker."""

    ONLINE = ("online", "The tracker hears it, or has not been without it for 30 s.")
    OFFLINE = ("offline", "It has said goodbye.")
    LOST = ("lost", "It was silent for 30 s. What it had in its hands of jobs was sent again, unless it is lossy.")


class FailureReason(Documented):
    """Why a job, or a task of it, failed."""

    TASK = ("task", "A task raised an error that its retry policy does not cover.")
    RETRIES = ("retries", "A task failed in every attempt that its retry policy allows.")
    TIMEOUT = ("timeout", "A task ran into its time limit, or was silent for longer than it may be.")
    UPSTREAM = ("upstream", "Something before it failed, and failures propagate.")
    PARTIAL = ("partial", "A task ended partial, and the policy does not tolerate that.")
    LOST = ("lost", "A worker was lost with a task that has no attempt left.")
    POISON = ("poison", "A task killed every worker that it met.")
    NO_WORKERS = ("no-workers", "Workers are alive, but none of them is able or allowed to run a task.")
    THRESHOLD = ("threshold", "The share of its tasks that failed has reached its threshold.")
    EXPIRED = ("expired", "A task's `expires` passed before a worker started it.")
    INPUT_LOST = ("input-lost", "A value that a task takes as input is no longer in the result backend.")
    CONSTRUCTION = ("construction", "A task that discovers work failed before the job was fully described.")
    ORDER = ("order", "An operator has failed it.")


class FailureRule(Documented):
    """What the failure of a task means for its job."""

    CONTINUE = ("continue", "What does not depend on it goes on; the job fails when nothing of it can run any more.")
    CANCEL = ("cancel", "Nothing more of the job starts, and it fails when what runs has ended.")
    THRESHOLD = ("threshold", "The same, as soon as the share of its tasks that failed has reached its threshold.")


class PartialRule(Documented):
    """What a task that ended partial means for its job."""

    FAIL = ("fail", "The job fails in the end, with the reason `partial`.")
    TOLERATE = ("tolerate", "The job completes, with the outcome `with-errors`.")


class CancelReason(Documented):
    """Why a task was canceled."""

    ORDER = ("order", "An operator has canceled it, or its job.")
    UPSTREAM = ("upstream", "Its job has ended, and something before it had not ended well.")
    RULE = ("rule", "Its job's failure rule was met, and it had not started.")
    REVOKED = ("revoked", "It was revoked by Celery's own command, such as in Flower, before it started.")
    TERMINATED = ("terminated", "It was ended while it ran, by Celery's own command or a signal.")
    EXPIRED = ("expired", "Its `expires` passed before a worker started it.")


class SkipReason(Documented):
    """Why a task was skipped that has not said so itself."""

    ORDER = ("order", "An operator has skipped it, or has accepted its failure.")
    SAID = ("said", "The task before it has said so, by `current.skip_next`.")
    EMPTY = ("empty", "What it takes is empty, and it is declared with `skip_empty=True`.")


class JobOutcome(Documented):
    """How a job completed."""

    OK = ("ok", "Every task did its work.")
    NOOP = (
        "noop",
        "There was nothing to do: it has no tasks, those that discover work found none, or all were skipped.",
        "Of these do not count those that discover work, or had what comes next skipped.",
        "What an operator has skipped was something to do.",
    )
    WITH_ERRORS = ("with-errors", "Some tasks ended partial, and the policy tolerates that.")


def _jobs(words: str) -> frozenset[JobState]:
    return frozenset(JobState(word) for word in words.split())


def _tasks(words: str) -> frozenset[TaskState]:
    return frozenset(TaskState(word) for word in words.split())


JOB_MOVES: Mapping[JobState, frozenset[JobState]] = MappingProxyType(
    {
        JobState.UNDER_CONSTRUCTION: _jobs("queued active pausing paused completed failed cancel-requested"),
        JobState.WAITING: _jobs("queued paused failed cancel-requested"),
        JobState.QUEUED: _jobs("under-construction active pausing paused completed failed cancel-requested"),
        # Straight to canceled: its last task that could still run was canceled by itself.
        JobState.ACTIVE: _jobs("completed failed canceled pausing cancel-requested"),
        JobState.PAUSING: _jobs("paused active queued completed failed canceled cancel-requested"),
        # Back to pausing: a worker reported a start after the pause had taken hold.
        JobState.PAUSED: _jobs(
            "queued active waiting under-construction pausing requeueing cancel-requested completed failed canceled"
        ),
        JobState.CANCEL_REQUESTED: _jobs("canceled"),
        JobState.CANCELED: _jobs("requeueing"),
        JobState.REQUEUEING: _jobs("queued waiting paused cancel-requested"),
        # Active again: a body called a subtask, and its events came after the end of all that was planned.
        JobState.COMPLETED: _jobs("requeueing active"),
        JobState.FAILED: _jobs("requeueing canceled"),
    }
)

TASK_MOVES: Mapping[TaskState, frozenset[TaskState]] = MappingProxyType(
    {
        # Failed without having been sent: by propagation.
        TaskState.PENDING: _tasks("ready skipped failed canceled"),
        TaskState.READY: _tasks("queued pending skipped failed canceled"),
        # Events may be lost or late, so an end need not have seen a start.
        TaskState.QUEUED: _tasks("active completed partial skipped soft-failed failed canceled ready pending"),
        TaskState.ACTIVE: _tasks("completed partial skipped soft-failed failed canceled ready pending"),
        TaskState.SOFT_FAILED: _tasks("queued ready active completed partial skipped failed canceled pending"),
        # To run again: an operator requeues it, or its value is lost.
        TaskState.COMPLETED: _tasks("pending"),
        TaskState.PARTIAL: _tasks("pending"),
        TaskState.SKIPPED: _tasks("pending"),
        # Skipped: an operator accepts the failure, and what comes after may run. Pending: an operator requeues it, or
        # its input was lost and is made again.
        TaskState.FAILED: _tasks("pending skipped canceled"),
        TaskState.CANCELED: _tasks("pending"),
    }
)

JOB_CORRECTIONS: Mapping[JobState, frozenset[JobState]] = MappingProxyType(
    {JobState.FAILED: _jobs("active"), JobState.CANCELED: _jobs("active")}
)
"""What a job does when an end of one of its tasks is corrected."""

TASK_CORRECTIONS: Mapping[TaskState, frozenset[TaskState]] = MappingProxyType(
    {
        # Queued: a message turned up that had been taken for lost.
        TaskState.FAILED: _tasks("queued active soft-failed completed partial"),
        TaskState.CANCELED: _tasks("active soft-failed completed partial skipped failed"),
        # What its body has stated was told late, or another execution has succeeded as well, and decides.
        TaskState.COMPLETED: _tasks("partial skipped"),
        TaskState.PARTIAL: _tasks("completed skipped"),
        TaskState.SKIPPED: _tasks("completed partial"),
    }
)
"""Where an end that events have told leads when another execution, of which was told late, runs or has ended stronger.

No moves: the task had never been there, had the events come in time."""

ENDED_JOB: frozenset[JobState] = _jobs("completed failed canceled")
"""Nothing more happens to the job unless somebody orders it."""

ENDED_TASK: frozenset[TaskState] = _tasks("completed partial skipped failed canceled")
"""Nothing more happens to the task unless somebody orders it."""

WELL: frozenset[TaskState] = _tasks("completed partial skipped")
"""Ended well: what lets the next task start."""

DISCOVERING: frozenset[TaskState] = _tasks("active soft-failed")
"""Of a task that discovers work: it may still add to its job."""

DISCOVERED: frozenset[TaskState] = WELL | _tasks("failed")
"""Of a task that discovers work: it has tried to. One that was canceled has not."""

OPEN_TASK: frozenset[TaskState] = _tasks("ready queued active soft-failed")
"""Something can still happen without anything else of the job ending first."""

_State = TypeVar("_State", JobState, TaskState)


def check_job_move(old: JobState, new: JobState, *, corrects: bool = False) -> None:
    """Refuse a move of a job that `JOB_MOVES`, or if an event `corrects` it, `JOB_CORRECTIONS` does not list.

    Staying in a state is no move.

    Raises:
        IllegalMoveError: names the move and the states that `old` leads to.
    """
    if not (corrects and new in JOB_CORRECTIONS.get(old, ())):
        _check("job", JOB_MOVES, old, new)


def check_task_move(old: TaskState, new: TaskState, *, corrects: bool = False) -> None:
    """Refuse a move of a task that `TASK_MOVES`, or if an event `corrects` it, `TASK_CORRECTIONS` does not list.

    Staying in a state is no move.

    Raises:
        IllegalMoveError: names the move and the states that `old` leads to.
    """
    if not (corrects and new in TASK_CORRECTIONS.get(old, ())):
        _check("task", TASK_MOVES, old, new)


def success(state: TaskState) -> bool | None:
    """Return Arvados' view of a task (A9): None while it has neither ended well nor failed for good.

    A canceled task is None as well: nobody knows how it would have ended.
    """
    if state in WELL:
        return True
    return False if state is TaskState.FAILED else None


def _check(kind: str, moves: Mapping[_State, frozenset[_State]], old: _State, new: _State) -> None:
    if new == old or new in moves[old]:
        return
    problem = f"A {kind} cannot move from {old} to {new}."
    raise IllegalMoveError(problem, f"From {old} it may move to: {', '.join(sorted(moves[old]))}.")
