"""Questions about the attempts of a job's tasks: who had them, and which have failed. Nothing here writes."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Connection, exists, func, select

from jobrunner.records import Standing
from jobrunner.states import TaskState
from jobrunner.store.in_hand import OPEN
from jobrunner.store.schema import attempt, task

#: Ends by which an attempt has failed: for good if the task had no retry left, and else softly.
FAILED_FOR_GOOD: Final = frozenset({"failed", "input-lost"})
FAILED_SOFTLY: Final = frozenset({"retried", "lost", "unknown"})


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptView:
    """One execution of a task by one worker, as people see it.

    `outcome` is how it ended, None if that was not told; `last_event` Celery's name for what was told of it last.
    `foreign` is one of a process that did not have the task (A5); `fatal` the last one of a task that has failed.
    `runtime` is in seconds.
    """

    task_id: str
    name: str
    celery_id: str
    delivery: int
    retries: int
    worker: str | None
    pid: int | None
    process: str
    last_event: str | None
    outcome: str | None
    foreign: bool
    fatal: bool
    received_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    progress: float | None
    said: str | None
    touched_at: datetime | None
    runtime: float | None
    result: str | None
    exception: str | None
    traceback: str | None

    @property
    def key(self) -> tuple[str, int, int, str]:
        """What tells it from all others."""
        return self.task_id, self.delivery, self.retries, self.process

    @property
    def why(self) -> str:
        """Why it has failed, in words."""
        return self.exception or {"lost": "its worker was lost"}.get(self.outcome or "", "failed without an exception")


@dataclass(frozen=True, slots=True, kw_only=True)
class EndView:
    """A task that has ended well, and not simply completed: partial or skipped, and why."""

    task_id: str
    name: str
    state: TaskState
    note: str | None
    delivery: int
    ended_at: datetime | None

    @property
    def key(self) -> tuple[str, int, str]:
        """What tells it from all others."""
        return self.task_id, self.delivery, self.state


_OF_ATTEMPT = [attempt.c[name] for name in AttemptView.__slots__ if name not in {"name", "foreign", "fatal"}]
_later = attempt.alias("later")
_is_last = ~exists().where(
    _later.c.task_id == task.c.id,
    _later.c.delivery == task.c.delivery,
    (_later.c.retries > attempt.c.retries)
    | ((_later.c.retries == attempt.c.retries) & (_later.c.ended_at > attempt.c.ended_at)),
)
#: What an operator has failed had not failed by that, nor has what waits anew since it was requeued.
_FATAL = (
    (task.c.state == TaskState.FAILED)
    & task.c.ordered.is_(None)
    & (attempt.c.delivery == task.c.delivery)
    & (attempt.c.delivery > task.c.earlier)
    & (attempt.c.standing != Standing.NONE)
    & _is_last
)


def list_attempts(connection: Connection, job_id: str, task_id: str | None = None) -> list[AttemptView]:
    """Return all executions of a job's tasks that somebody has told of, by task in order of arrival, oldest first.

    Or those of one task alone.
    """
    told = attempt.c.last_event.is_not(None) | attempt.c.outcome.is_not(None)
    if task_id is not None:
        told &= attempt.c.task_id == task_id
    since = func.coalesce(attempt.c.received_at, attempt.c.started_at, attempt.c.ended_at)
    return _select(connection, job_id, told, task.c.arrival, attempt.c.delivery, attempt.c.retries, since)


def failed_attempts(connection: Connection, job_id: str) -> list[AttemptView]:
    """Return the executions of a job's tasks that have failed, for good or softly, in the order of their ends."""
    failed = attempt.c.outcome.in_(sorted(FAILED_FOR_GOOD | FAILED_SOFTLY)) & (attempt.c.standing != Standing.NONE)
    return _select(connection, job_id, failed, attempt.c.ended_at, task.c.arrival, attempt.c.retries)


def unusual_ends(connection: Connection, job_id: str) -> list[EndView]:
    """Return the tasks of a job that were skipped or ended partial, in the order of their ends."""
    columns = task.c.id.label("task_id"), *(task.c[name] for name in EndView.__slots__ if name != "task_id")
    states = TaskState.PARTIAL, TaskState.SKIPPED
    query = select(*columns).where(task.c.job_id == job_id, task.c.state.in_(states)).order_by(task.c.ended_at)
    return [EndView(**row._asdict() | {"state": TaskState(row.state)}) for row in connection.execute(query)]


def running_reports(connection: Connection, job_id: str, limit: int | None = None) -> list[AttemptView]:
    """Return the executions of a job that run and have said how far they are, those that did so last first."""
    running = OPEN & (task.c.delivery == attempt.c.delivery) & (task.c.state == TaskState.ACTIVE)
    condition = running & attempt.c.progress.is_not(None)
    return _select(connection, job_id, condition, attempt.c.touched_at.desc(), task.c.arrival, limit=limit)


def _select(
    connection: Connection,
    job_id: str,
    condition: ColumnElement[bool],
    *order: ColumnElement[object],
    limit: int | None = None,
) -> list[AttemptView]:
    query = (
        select(*_OF_ATTEMPT, task.c.name, attempt.c.standing, _FATAL.label("fatal"))
        .join_from(task, attempt, attempt.c.task_id == task.c.id)
        .where(task.c.job_id == job_id, condition)
        .order_by(*order)
        .limit(limit)
    )
    views = []
    for row in connection.execute(query):
        values = row._asdict()
        standing = values.pop("standing")
        values["fatal"] = bool(values["fatal"])
        views.append(AttemptView(**values, foreign=standing == Standing.NONE and values["outcome"] is not None))
    return views
