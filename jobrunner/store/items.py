"""Questions about the items of tasks: how many were processed, and which were not, and why. Nothing here writes."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, and_, exists, func, select

from jobrunner.records import Standing
from jobrunner.statements import ItemCounts
from jobrunner.states import TaskState
from jobrunner.store.schema import attempt, item_count, item_error, task

_EXECUTION = ("task_id", "delivery", "retries", "process")
_NUMBERS = ("processed", "skipped", "failed", "aborted")
#: Rows that are in memory at once.
_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemErrorView:
    """Why a task that ended partial has not processed one of its items, the errors of a task numbered from 0.

    `item` is None if it was too long to be kept, or no JSON; `label` is what people see in its place, cut.
    """

    task_id: str
    name: str
    number: int
    item: Any
    label: str
    type: str | None
    message: str
    details: dict[str, Any]

    @property
    def error(self) -> str:
        """What was wrong, in words."""
        return f"{self.type}: {self.message}" if self.type else self.message


def items_of_job(connection: Connection, job_id: str) -> ItemCounts | None:
    """Return how many items the tasks of a job have processed, of those that say so; None if none does."""
    sums = (func.sum(item_count.c[name]).label(name) for name in _NUMBERS)
    query = select(func.count().label("tasks"), *sums).where(item_count.c.job_id == job_id)
    row = connection.execute(query).one()
    return ItemCounts(**{name: int(getattr(row, name)) for name in _NUMBERS}) if row.tasks else None


def count_item_errors(connection: Connection, job_id: str) -> int:
    """Return how many item errors of a job are kept, of the executions that count."""
    query = _of_partial_tasks().with_only_columns(func.count()).where(task.c.job_id == job_id)
    return connection.execute(query).scalar_one()


def list_item_errors(connection: Connection, job_id: str, *, limit: int, offset: int = 0) -> list[ItemErrorView]:
    """Return a page of the item errors of a job, by task in order of arrival."""
    query = _of_partial_tasks().where(task.c.job_id == job_id).order_by(task.c.arrival, item_error.c.number)
    return [_view(row._asdict()) for row in connection.execute(query.limit(limit).offset(offset))]


def all_item_errors(connection: Connection, job_id: str) -> Iterator[ItemErrorView]:
    """Yield all item errors of a job, never more than some of them in memory."""
    query = _of_partial_tasks().where(task.c.job_id == job_id).execution_options(yield_per=_AT_ONCE)
    return (_view(row._asdict()) for row in connection.execute(query))


def item_errors_of_task(
    connection: Connection, task_id: str, *, limit: int | None = None, after: int | None = None
) -> list[ItemErrorView]:
    """Return the item errors of a task, from the one behind number `after`."""
    query = _of_partial_tasks().where(task.c.id == task_id).order_by(item_error.c.number).limit(limit)
    if after is not None:
        query = query.where(item_error.c.number > after)
    return [_view(row._asdict()) for row in connection.execute(query)]


def _of_partial_tasks() -> Select[Any]:
    """Ask for the errors of tasks that ended partial: those of the execution that decides, as in `tracker.fold`."""
    other = attempt.alias("other")
    same = other.c.task_id == attempt.c.task_id, other.c.delivery == attempt.c.delivery
    later = (other.c.retries > attempt.c.retries) | (
        (other.c.retries == attempt.c.retries) & (other.c.process > attempt.c.process)
    )
    return (
        select(
            item_error.c.task_id,
            task.c.name,
            *(item_error.c[name] for name in ("number", "item", "label", "type", "message", "details")),
        )
        .join_from(task, attempt, (attempt.c.task_id == task.c.id) & (attempt.c.delivery == task.c.delivery))
        .join(item_error, and_(*(item_error.c[name] == attempt.c[name] for name in _EXECUTION)))
        .where(
            task.c.state == TaskState.PARTIAL,
            attempt.c.standing == Standing.SUCCEEDED,
            ~exists().where(*same, other.c.standing == Standing.SUCCEEDED, later),
        )
    )


def _view(values: dict[str, Any]) -> ItemErrorView:
    told = {name: None if values[name] is None else json.loads(values[name]) for name in ("item", "details")}
    return ItemErrorView(**values | told | {"details": told["details"] or {}})
