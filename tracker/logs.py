"""What tasks log is written as it is told: it moves no task, and no task or attempt is read or written for it.

A worker that has handed a message back may execute it once more, as the same attempt; then the log is that of the last
time. Each begins with a part 0, whose time tells which one is later: both are of one machine.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
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
        first = {_execution_of(row): row["at"] for row in sorted(rows, key=_at) if row["number"] == 0}
        tracking.forget_earlier_parts(connection, first)
        rows = [row for row in rows if row["at"] >= first.get(_execution_of(row), row["at"])]
        tracking.insert_log_parts(connection, rows)


def _at(row: Mapping[str, Any]) -> datetime:
    at: datetime = row["at"]
    return at


def _execution_of(row: Mapping[str, Any]) -> tuple[str, int, int, str]:
    return row["task_id"], row["delivery"], row["retries"], row["process"]


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
