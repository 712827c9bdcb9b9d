"""What five older systems call our states, events and words, as data.

The requirements were taken from their documents (`seed` is the number of the sentence), and people who come from them
look for their own words. `docs/states.md` shows the table; tests in `tests/seeds` hold our moves against their arrows.
Nothing at run time depends on it.
"""

from dataclasses import dataclass
from typing import Literal

from jobrunner.states import JobState, TaskState, success

System = Literal["Arvados", "Flamenco", "CAF", "Ngenea Hub", "HySDS"]
Kind = Literal["job", "task", "event", "word"]


@dataclass(frozen=True, slots=True)
class Term:
    """One name in one system.

    `ours` holds job states if `kind` is job, task states if it is task or event (a Celery event tells that a task
    entered the state), and a word of ours if it is word. Where it holds several, the system does not tell them apart.
    """

    system: System
    kind: Kind
    name: str
    ours: tuple[str, ...]
    seed: str
    note: str = ""


def _tasks_with_success(value: bool | None) -> tuple[TaskState, ...]:
    return tuple(state for state in TaskState if success(state) is value)


FOREIGN: tuple[Term, ...] = (
    Term("Arvados", "task", "success = null", _tasks_with_success(None), "A9", "neither completed nor failed for good"),
    Term("Arvados", "task", "success = true", _tasks_with_success(True), "A9"),
    Term("Arvados", "task", "success = false", _tasks_with_success(False), "A9"),
    Term("Arvados", "task", "complete", (TaskState.COMPLETED,), "A6", "success true, and progress 1.0 if required"),
    Term("Arvados", "task", "temporary failure", (TaskState.SOFT_FAILED,), "A7", "the process ended without a verdict"),
    Term("Arvados", "word", "job task", ("task",), "A1"),
    Term("Arvados", "word", "job manager", ("tracker",), "A5"),
    Term("Arvados", "word", "parameters", ("arguments",), "A2"),
    Term("Arvados", "word", "step", ("level",), "A8", "the tasks with the same sequence number"),
    Term("Arvados", "word", "deleted", ("deleted",), "A4", "what a task has added that did not succeed"),
    Term("Arvados", "word", "progress", ("progress",), "A5", "a number from 0 to 1, told by the worker"),
    Term("Arvados", "word", "success", ("success",), "A9", "follows from the task's state"),
    Term("Arvados", "word", "sequence", ("sequence",), "A8", "orders whole levels with `barrier=True` only"),
    Term("Arvados", "word", "qsequence", ("arrival",), "A10"),
    Term("Arvados", "word", "created_by_job_task_uuid", ("creator",), "A10"),
    Term("Flamenco", "job", "under-construction", (JobState.UNDER_CONSTRUCTION,), "F1"),
    Term("Flamenco", "job", "preparing", (JobState.UNDER_CONSTRUCTION,), "F1", "what under-construction means"),
    Term("Flamenco", "job", "queued", (JobState.QUEUED,), "F1"),
    Term("Flamenco", "job", "active", (JobState.ACTIVE,), "F1"),
    Term("Flamenco", "job", "completed", (JobState.COMPLETED,), "F1", "requeued by way of requeueing"),
    Term("Flamenco", "job", "failed", (JobState.FAILED,), "F1"),
    Term("Flamenco", "job", "cancel-requested", (JobState.CANCEL_REQUESTED,), "F1", "on the way of every cancel order"),
    Term("Flamenco", "job", "canceled", (JobState.CANCELED,), "F1"),
    Term("Flamenco", "job", "requeueing", (JobState.REQUEUEING,), "F1"),
    Term("Flamenco", "job", "paused", (JobState.PAUSED,), "F1"),
    Term("Flamenco", "task", "queued", (TaskState.READY, TaskState.QUEUED), "F4", "we tell what is sent from the rest"),
    Term("Flamenco", "task", "active", (TaskState.ACTIVE,), "F4"),
    Term("Flamenco", "task", "completed", (TaskState.COMPLETED,), "F4"),
    Term("Flamenco", "task", "soft-failed", (TaskState.SOFT_FAILED,), "F4"),
    Term("Flamenco", "task", "failed", (TaskState.FAILED,), "F4"),
    Term("Flamenco", "task", "canceled", (TaskState.CANCELED,), "F4"),
    Term("Flamenco", "task", "paused", (TaskState.READY,), "F4", "it stays ready, and its job holds it"),
    Term("CAF", "job", "completed", (JobState.COMPLETED,), "C4"),
    Term("CAF", "job", "cancellation", (JobState.CANCEL_REQUESTED, JobState.CANCELED), "C3", "the gate checks for it"),
    Term("CAF", "job", "failed", (JobState.FAILED,), "C5", "reason upstream for those after the first"),
    Term("CAF", "task", "forwarded", (TaskState.QUEUED,), "C1", "to the queue of its worker, after it was reported"),
    Term("CAF", "task", "cancellation", (TaskState.CANCELED,), "C3", "the gate checks for it"),
    Term("CAF", "task", "failed", (TaskState.FAILED,), "C5", "reason upstream for those after the first"),
    Term("CAF", "word", "job tracking worker", ("tracker",), "C1"),
    Term("CAF", "word", "progress", ("events",), "C1", "reported to the job database"),
    Term("CAF", "word", "progress messages", ("events",), "C2", "sent explicitly by workers"),
    Term("CAF", "word", "job database", ("database",), "C1"),
    Term("CAF", "word", "task messages", ("messages",), "C1"),
    Term("CAF", "word", "tracking pipe", ("gate",), "C3", "the tracker forwards what the gate held back"),
    Term("CAF", "word", "dependencies", ("prerequisites",), "C4"),
    Term("CAF", "word", "dependents", ("successors",), "C5"),
    Term("CAF", "word", "PROPAGATE_FAILURES", ("propagation",), "C5", "`JOBRUNNER_PROPAGATE_FAILURES`"),
    Term("Ngenea Hub", "job", "Pending", (JobState.UNDER_CONSTRUCTION,), "N1", "its discovery task is adding tasks"),
    Term("Ngenea Hub", "job", "Started", (JobState.ACTIVE,), "N1"),
    Term("Ngenea Hub", "job", "Success", (JobState.COMPLETED,), "N1"),
    Term("Ngenea Hub", "job", "Failure", (JobState.FAILED,), "N1"),
    Term("Ngenea Hub", "job", "Pausing", (JobState.PAUSING,), "N1"),
    Term("Ngenea Hub", "job", "Paused", (JobState.PAUSED,), "N1"),
    Term("Ngenea Hub", "job", "Cancelled", (JobState.CANCELED,), "N1"),
    Term("Ngenea Hub", "job", "Dequeuing", (JobState.CANCEL_REQUESTED,), "N1"),
    Term(
        "Ngenea Hub", "task", "Pending", (TaskState.PENDING, TaskState.READY, TaskState.QUEUED), "N2", "not picked up"
    ),
    Term("Ngenea Hub", "task", "Started", (TaskState.ACTIVE,), "N2"),
    Term("Ngenea Hub", "task", "Success", (TaskState.COMPLETED,), "N2"),
    Term("Ngenea Hub", "task", "Failure", (TaskState.FAILED,), "N2", "no structured output"),
    Term("Ngenea Hub", "task", "Error", (TaskState.PARTIAL,), "N2", "structured output; the survivors go on"),
    Term("Ngenea Hub", "task", "Skipped", (TaskState.SKIPPED,), "N2"),
    Term("Ngenea Hub", "task", "Cancelled", (TaskState.CANCELED,), "N2"),
    Term("Ngenea Hub", "word", "discovery task", ("discovers=True",), "N1", "a task that makes the job known"),
    Term("Ngenea Hub", "word", "resumed", ("resume",), "N1", "an order"),
    Term("Ngenea Hub", "word", "structured output", ("output",), "N2", "of a partial task"),
    Term("HySDS", "word", "task", ("task",), "H1"),
    Term("HySDS", "word", "active", ("more to come",), "H4", "after sent, received, started"),
    Term("HySDS", "word", "inactive", ("nothing more of this attempt",), "H4", "after any other event"),
    Term("HySDS", "word", "job", ("command task",), "H2", "a task that runs an executable"),
    Term("HySDS", "event", "sent", (TaskState.QUEUED,), "H3"),
    Term("HySDS", "event", "received", (TaskState.QUEUED,), "H3", "only a time is added"),
    Term("HySDS", "event", "started", (TaskState.ACTIVE,), "H3"),
    Term(
        "HySDS",
        "event",
        "succeeded",
        (TaskState.COMPLETED, TaskState.PARTIAL, TaskState.SKIPPED),
        "H3",
        "our `task-outcome` says which",
    ),
    Term("HySDS", "event", "failed", (TaskState.FAILED,), "H3"),
    Term("HySDS", "event", "revoked", (TaskState.CANCELED,), "H3", "once, however many workers report it"),
    Term("HySDS", "event", "retried", (TaskState.SOFT_FAILED,), "H3"),
    Term("HySDS", "event", "retired", (TaskState.SOFT_FAILED,), "H4", "the same as retried"),
)


def ours(system: System, kind: Kind, name: str) -> tuple[str, ...]:
    """Return what we call a name of theirs; empty if the system has no such name."""
    return next((term.ours for term in FOREIGN if (term.system, term.kind, term.name) == (system, kind, name)), ())


def theirs(system: System, state: JobState | TaskState) -> tuple[str, ...]:
    """Return what a system calls a state of ours; empty if it does not know such a state."""
    # The kind must be compared: a job's "queued" equals a task's.
    kinds = {"job"} if isinstance(state, JobState) else {"task", "event"}
    return tuple(term.name for term in FOREIGN if term.system == system and term.kind in kinds and state in term.ours)
