"""Items: what executions say of the single things that a task works through."""

from dataclasses import dataclass

from jobrunner.states import TaskState


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemErrorRow:
    """Why an execution has not processed one item; `item`, and an object of `details`, are JSON."""

    task_id: str
    delivery: int
    retries: int
    process: str
    number: int
    item: str | None
    label: str
    type: str | None
    message: str
    details: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemCountRow:
    """How many items a task has processed, by the execution that counts."""

    task_id: str
    job_id: str
    processed: int
    skipped: int
    failed: int
    aborted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unprocessed:
    """A task with items that were not processed, in the last of its deliveries that has told of such.

    `statement` is what that has said, as JSON. So many of the items are `kept`, and so many of these `usable`: they can
    be processed by themselves. One `takes_nothing` that has no first argument.
    """

    id: str
    name: str
    state: TaskState
    block_id: str
    position: int
    delivery: int
    statement: str | None
    kept: int
    usable: int
    takes_nothing: bool
