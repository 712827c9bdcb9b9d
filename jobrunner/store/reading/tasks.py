"""Tasks as people see them, each with the execution that decides its state, and their messages."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, case, func, select

from jobrunner.event_types import EVENT_TYPES
from jobrunner.records import Standing
from jobrunner.statements import ItemCounts
from jobrunner.states import ENDED_TASK, TaskState
from jobrunner.store.schema import attempt, item_count, message, task


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """A task as people see it, with its latest attempt; `last_event` is Celery's name for what was told of it last.

    `created_by` is the task that has added it to the job, or has sent it; none if it was submitted. `name` is empty as
    long as it was not told. How far that attempt is, from 0.0 to 1.0, and what it `said` with that, is what its body
    has reported; None if it has not. `runtime` is in seconds. `items` counts those of a task that says so, once it has
    ended well.
    """

    id: str
    job_id: str
    celery_id: str
    created_by: str | None
    name: str
    state: TaskState
    reason: str | None
    note: str | None
    queue: str
    arrival: int
    sequence: int
    delivery: int
    retries: int | None
    last_event: str | None
    worker: str | None
    sent_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    progress: float | None
    said: str | None
    runtime: float | None
    result: str | None
    exception: str | None
    traceback: str | None
    items: ItemCounts | None = None

    @property
    def more_to_come(self) -> bool | None:
        """Whether its last event leaves something to be told (H4); None while nothing was told of it at all."""
        if self.last_event is None:
            return None
        return self.state not in ENDED_TASK and EVENT_TYPES[self.last_event].more_to_come is True


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageView:
    """The message of a task, of which only what it was submitted with is for people; see `jobrunner.parameters`."""

    task_id: str
    body: bytes
    content_type: str
    headers: str
    takes_value: bool


#: The execution that decides comes first, as in `tracker.fold.deciding`.
_DECIDING = (
    attempt.c.delivery.desc(),
    case((attempt.c.standing == Standing.SUCCEEDED, 0), else_=1),
    attempt.c.retries.desc(),
    attempt.c.standing.desc(),
    attempt.c.process.desc(),
)


_ITEMS = [item_count.c[name].label(f"{name}_items") for name in ItemCounts.__slots__]


def list_tasks(connection: Connection, job_id: str) -> list[TaskView]:
    """Return a job's tasks in order of arrival, each with the execution that decides its state."""
    query = (
        select(
            task.c.id,
            task.c.job_id,
            task.c.celery_id,
            task.c.created_by,
            task.c.name,
            task.c.state,
            task.c.reason,
            task.c.note,
            task.c.queue,
            task.c.arrival,
            task.c.sequence,
            task.c.delivery,
            attempt.c.retries,
            # The tracker tells of the sending to monitors alone: it knows by itself.
            func.coalesce(attempt.c.last_event, case((task.c.sent_at.is_not(None), "task-sent"))).label("last_event"),
            attempt.c.worker,
            task.c.sent_at,
            task.c.started_at,
            task.c.ended_at,
            task.c.progress,
            attempt.c.said,
            attempt.c.runtime,
            attempt.c.result,
            attempt.c.exception,
            attempt.c.traceback,
            *_ITEMS,
        )
        .join_from(task, attempt, attempt.c.task_id == task.c.id, isouter=True)
        .join(item_count, item_count.c.task_id == task.c.id, isouter=True)
        .where(task.c.job_id == job_id)
        .order_by(task.c.arrival, *_DECIDING)
    )
    # The one that decides is chosen here: for a window function PostgreSQL takes a minute with 20,000 tasks that it has
    # not counted yet.
    deciding: dict[str, Row[*tuple[Any, ...]]] = {}
    for row in connection.execute(query):
        deciding.setdefault(row.id, row)
    return [_task_view(row) for row in deciding.values()]


def _task_view(row: Row[*tuple[Any, ...]]) -> TaskView:
    values = row._asdict()
    values["state"] = TaskState(values["state"])
    numbers = {name: values.pop(f"{name}_items") for name in ItemCounts.__slots__}
    return TaskView(**values, items=None if numbers["failed"] is None else ItemCounts(**numbers))


def list_messages(connection: Connection, job_id: str) -> Iterator[MessageView]:
    """Yield the messages of a job's tasks, in order of arrival; an observed task has none."""
    query = (
        select(
            message.c.task_id,
            message.c.body,
            message.c.content_type,
            message.c.headers,
            (task.c.takes_task.is_not(None) | task.c.takes_group.is_not(None)).label("takes_value"),
        )
        .join_from(task, message, message.c.task_id == task.c.id)
        .where(task.c.job_id == job_id)
        .order_by(task.c.arrival)
    )
    return (MessageView(**row._asdict()) for row in connection.execute(query))
