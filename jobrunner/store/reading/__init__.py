"""Questions that clients ask: handles, CLI, later API and pages. Nothing here writes."""

from jobrunner.store.reading.events import foreign_number, rejected_number
from jobrunner.store.reading.jobs import JobView, find_jobs, get_job, list_history, list_jobs, names_something
from jobrunner.store.reading.tasks import MessageView, TaskView, list_messages, list_tasks
from jobrunner.store.reading.workers import (
    WorkerBlockView,
    WorkerView,
    list_worker_blocks,
    list_workers,
    workers_online,
)

__all__ = [
    "JobView",
    "MessageView",
    "TaskView",
    "WorkerBlockView",
    "WorkerView",
    "find_jobs",
    "foreign_number",
    "get_job",
    "list_history",
    "list_jobs",
    "list_messages",
    "list_tasks",
    "list_worker_blocks",
    "list_workers",
    "names_something",
    "rejected_number",
    "workers_online",
]
