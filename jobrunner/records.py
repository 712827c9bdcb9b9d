"""Rows of the database as plain values: what the store hands out and takes back, and what fold and advance work on."""

from dataclasses import dataclass, field
from datetime import datetime

from jobrunner.states import JobState, TaskState


@dataclass(slots=True, kw_only=True)
class Task:
    """A task as the tracker moves it; one row of the table `task`, without what only submission and dispatch need."""

    id: str
    job_id: str
    celery_id: str
    block_id: str
    position: int
    state: TaskState
    note: str | None
    delivery: int
    first_retries: int
    sent_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One execution of a task: a delivery and Celery's retries within it."""

    task_id: str
    delivery: int
    retries: int
    celery_id: str
    rank: int = 0
    last_event: str | None = None
    outcome: str | None = None
    worker: str | None = None
    source: str | None = None
    pid: int | None = None
    received_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    runtime: float | None = None
    result: str | None = None
    exception: str | None = None
    traceback: str | None = None


@dataclass(slots=True, kw_only=True)
class Block:
    """A chain or group, and how many of its children have not ended well yet."""

    id: str
    job_id: str
    kind: str
    parent_id: str | None
    position: int
    size: int
    remaining: int


@dataclass(slots=True, kw_only=True)
class Job:
    """A job as the tracker moves it, with its tasks counted by state."""

    id: str
    name: str
    state: JobState
    reason: str | None
    note: str | None
    total: int
    started_at: datetime | None
    ended_at: datetime | None
    counts: dict[TaskState, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A task message as stored at submission, with what its next delivery needs.

    `delivery` is the next one; `taken_delivery` the one under which the task `takes_task` succeeded.
    """

    task_id: str
    job_id: str
    queue: str
    run: int
    delivery: int
    first_retries: int
    takes_task: str | None
    taken_delivery: int | None
    takes_group: str | None
    body: bytes
    content_type: str
    content_encoding: str
    headers: str
    properties: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedEvent:
    """An event that cannot be folded, or an entry of the event log that cannot be read, and why."""

    source: str | None
    worker: str | None
    type: str | None
    uuid: str | None
    reason: str
    detail: str | None
    event: str
