"""Attempts: what is known of each execution of a task, and how workers fare with tasks of one name."""

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import TypeAlias


class Standing(IntEnum):
    """How much an execution says about its task, beside others of the same attempt: the greatest one decides."""

    #: Nothing was told of it, another process has the message since, or its report is foreign.
    NONE = 0
    LOST = 1
    #: The broker has the message again.
    HANDED_BACK = 2
    #: Nobody has the message: the worker's code lacks the task, or its gate refused it.
    DROPPED = 3
    RECEIVED = 4
    RETRIED = 5
    REVOKED = 6
    FAILED = 7
    STARTED = 8
    SUCCEEDED = 9


AttemptKey: TypeAlias = tuple[int, int, str]
"""What tells an execution from others of its task: delivery, retries, process."""


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One execution of a task: a delivery, Celery's retries within it, and the worker process.

    `process` is the id of that process's batches of events; empty in the row of a delivery that nobody has spoken of.
    """

    task_id: str
    delivery: int
    retries: int
    process: str = ""
    celery_id: str
    standing: int = Standing.NONE
    last_event: str | None = None
    outcome: str | None = None
    worker: str | None = None
    pid: int | None = None
    received_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    runtime: float | None = None
    result: str | None = None
    exception: str | None = None
    traceback: str | None = None
    progress: float | None = None
    said: str | None = None
    touched_at: datetime | None = None
    statement: str | None = None

    @property
    def key(self) -> AttemptKey:
        """What tells it from other executions of its task."""
        return self.delivery, self.retries, self.process


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """An execution of a task that has not ended well, as far as it says whom to avoid."""

    delivery: int
    retries: int
    outcome: str
    worker: str | None


@dataclass(slots=True, kw_only=True)
class WorkerFailure:
    """How a worker fares with the tasks of one name in a job: so many have failed there in a row, the last one last."""

    job_id: str
    name: str
    worker: str
    failures: int = 0
    last_task: str | None = None
    blocked_at: datetime | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from others."""
        return self.job_id, self.name, self.worker
