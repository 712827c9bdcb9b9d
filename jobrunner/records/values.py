"""Values in the result backend: whose they are, and until when they are kept."""

from dataclasses import dataclass
from datetime import datetime

from jobrunner.records.tasks import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Producer:
    """A task whose value others take; `grew` tells whether it has added tasks to its job."""

    task: Task
    name: str
    replayable: bool
    grew: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """A job whose values are to be let go, because it has ended, or if it goes on again, to be kept again."""

    job_id: str
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """A task of which something may lie in the result backend: values, and lists of what it `takes_group`."""

    job_id: str
    arrival: int
    task_id: str
    delivery: int
    takes_group: str | None
