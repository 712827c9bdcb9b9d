"""Plans as advance works on them, what tasks add to them, and what is deleted with that."""

from dataclasses import dataclass

from jobrunner.records.attempts import AttemptKey
from jobrunner.states import TaskState


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Children:
    """The tasks that are directly in a block; positions are None if there is no such task."""

    tasks: int
    unfinished: int
    first_unfinished: int | None
    last_well: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Creator:
    """A task that adds tasks to its job, as far as these need to know it."""

    id: str
    job_id: str
    name: str
    sequence: int
    barrier: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """What one attempt of a task has added to its job at once, see the table; `kept` is None until that has ended."""

    id: str
    job_id: str
    task_id: str
    delivery: int
    retries: int
    process: str
    chain_id: str
    group_id: str
    tasks: int
    told: int | None
    expands: bool
    value_task: str | None
    value_group: str | None
    kept: bool | None = None

    @property
    def attempt(self) -> AttemptKey:
        """The attempt of the creator that made it."""
        return self.delivery, self.retries, self.process

    @property
    def is_whole(self) -> bool:
        """Whether nothing of it is missing or deleted."""
        return self.kept is not False and self.told == self.tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """So many tasks of a job that were in one state, and all discover work or all do not: their rows are deleted."""

    job_id: str
    state: TaskState
    discovers: bool
    number: int
