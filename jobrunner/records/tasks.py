"""Tasks as the tracker moves them, and what others need to know of them."""

from dataclasses import dataclass
from datetime import datetime

from jobrunner.states import TaskState


@dataclass(slots=True, kw_only=True)
class Task:
    """A task as the tracker moves it; one row of the table `task`, without what only submission and dispatch need."""

    id: str
    job_id: str
    celery_id: str
    block_id: str
    position: int
    discovers: bool = False
    state: TaskState
    reason: str | None = None
    note: str | None
    ordered: str | None = None
    max_retries: int | None = None
    handed_back: int = 0
    progress: float | None = None
    delivery: int
    earlier: int = 0
    first_retries: int
    sent_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedTask:
    """A task as people know it, and the queue where it waits; empty if nobody has said."""

    id: str
    job_id: str
    name: str
    queue: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A task that has failed, for people: `reason` as far as the tracker knows, `why` in words."""

    id: str
    name: str
    reason: str | None
    discovers: bool
    why: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a task comes from that no plan knows, as far as it was told: texts are empty until then.

    `sequence` is one more than that of its creator; of a job that is only observed, nobody knows the levels.
    """

    name: str = ""
    queue: str = ""
    created_by: str | None = None
    sequence: int = 0
