"""Tasks and their attempts, as events change them."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, literal_column, select

from jobrunner.records import Attempt, Task, Tried
from jobrunner.store.bulk import Update, insert_rows
from jobrunner.store.schema import attempt, task
from jobrunner.store.tracking.rows import ATTEMPT, TASK, IsOneOf, as_task, rows_of

_TASKS_OF_FIRST = select(task.c.id.label("told"), *TASK).where(IsOneOf(task.c.id))
_TASKS_OF_LATER = (
    select(attempt.c.celery_id.label("told"), *TASK)
    .join_from(attempt, task, task.c.id == attempt.c.task_id)
    .where(IsOneOf(attempt.c.celery_id), attempt.c.delivery > literal_column("1"))
)


def tasks_by_celery_id(connection: Connection, celery_ids: Collection[str]) -> dict[str, Task]:
    """Return the tasks that events speak of, by the Celery id they use: the task's own, or that of a later delivery."""
    found: dict[str, Task] = {}
    for statement in (_TASKS_OF_FIRST, _TASKS_OF_LATER):
        missing = [one for one in celery_ids if one not in found]
        for values in rows_of(connection, statement, missing):
            celery_id = values.pop("told")
            found[celery_id] = as_task(values)
    return found


_ATTEMPTS = select(*ATTEMPT).where(IsOneOf(attempt.c.task_id))


def attempts_of(connection: Connection, task_ids: Collection[str]) -> list[Attempt]:
    """Return all executions of these tasks."""
    return [Attempt(**values) for values in rows_of(connection, _ATTEMPTS, task_ids)]


def histories_of(connection: Connection, task_ids: Collection[str]) -> defaultdict[str, list[Attempt]]:
    """Return all executions of tasks, by task."""
    histories: defaultdict[str, list[Attempt]] = defaultdict(list)
    for one in attempts_of(connection, task_ids):
        histories[one.task_id].append(one)
    return histories


_TRIED = (
    select(attempt.c.task_id, attempt.c.delivery, attempt.c.retries, attempt.c.outcome, attempt.c.worker)
    .where(IsOneOf(attempt.c.task_id), attempt.c.outcome.in_(("retried", "failed", "lost", "unknown")))
    .order_by(attempt.c.task_id, attempt.c.delivery.desc(), attempt.c.retries.desc(), attempt.c.process)
)


def failed_tries(connection: Connection, task_ids: Collection[str]) -> dict[str, list[Tried]]:
    """Return the executions of tasks that have not ended well, by task, the last ones first."""
    found: dict[str, list[Tried]] = {}
    for values in rows_of(connection, _TRIED, task_ids):
        found.setdefault(values.pop("task_id"), []).append(Tried(**values))
    return found


def insert_attempts(connection: Connection, attempts: Sequence[Attempt]) -> None:
    """Write attempts that had no row yet."""
    insert_rows(connection, attempt, [_values(one, Attempt.__slots__) for one in attempts])


_KEY = ("task_id", "delivery", "retries", "process")
_UPDATE_ATTEMPT = Update(attempt, _KEY, [name for name in Attempt.__slots__ if name not in _KEY])


def update_attempts(connection: Connection, attempts: Sequence[Attempt]) -> None:
    """Write attempts that changed."""
    _UPDATE_ATTEMPT.run(connection, [_values(one, Attempt.__slots__) for one in attempts])


_CHANGES = (
    *("state", "reason", "note", "ordered", "handed_back", "progress", "first_retries"),
    *("sent_at", "started_at", "ended_at"),
)
_UPDATE_TASK = Update(task, ["id"], _CHANGES)


def update_tasks(connection: Connection, tasks: Collection[Task]) -> None:
    """Write tasks that changed."""
    _UPDATE_TASK.run(connection, [_values(one, ("id", *_CHANGES)) for one in tasks])


def _values(one: Attempt | Task, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(one, name) for name in names}
