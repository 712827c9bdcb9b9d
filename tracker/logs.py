"""What tasks log is written as it is told: it moves no task, and no task or attempt is read or written for it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from jobrunner.log_lines import LONGEST_PART
from jobrunner.records import Task
from jobrunner.store import tracking
from jobrunner.text import bounded
from jobrunner.wire import TASK_LOGGED
from tracker.fold import Event, delivery_of

if TYPE_CHECKING:
    from sqlalchemy import Connection


def keep_logs(connection: "Connection", events: Iterable[Event]) -> None:
    """Write what tasks have logged; of a task that nobody knows nothing is kept."""
    told = [event for event in events if event.type == TASK_LOGGED]
    if told:
        tasks = tracking.tasks_by_celery_id(connection, {event.uuid for event in told})
        rows = [_part(tasks[event.uuid], event) for event in told if event.uuid in tasks]
        tracking.insert_log_parts(connection, rows)


def _part(task: Task, event: Event) -> dict[str, Any]:
    return {
        "task_id": task.id,
        "delivery": delivery_of(task, event.uuid),
        "retries": event.retries or 0,
        "process": event.process,
        "number": event.fields["number"],
        "at": event.at,
        "text": bounded(event.fields["text"], LONGEST_PART),
    }
