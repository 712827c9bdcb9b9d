"""Rows of the database as plain values: what the store hands out and takes back, and what fold and advance work on."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import TypeAlias

from jobrunner.states import FailureRule, JobState, PartialRule, TaskState


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
class Tried:
    """An execution of a task that has not ended well, as far as it says whom to avoid."""

    delivery: int
    retries: int
    outcome: str
    worker: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedTask:
    """A task as people know it, and the queue where it waits; empty if nobody has said."""

    id: str
    job_id: str
    name: str
    queue: str


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


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryLine:
    """What was decided about a job, or a task of it, and why: a sentence for people.

    If it moved, `old` and `new` are its states; `trigger` is the kind of the order that `who` gave for the reason
    `why`, or what the tracker has seen.
    """

    job_id: str
    task_id: str | None
    at: datetime
    line: str
    old: str | None = None
    new: str | None = None
    trigger: str | None = None
    who: str | None = None
    why: str | None = None


@dataclass(slots=True, kw_only=True)
class Job:
    """A job as the tracker moves it, with its tasks counted by state."""

    id: str
    name: str
    observed: bool
    state: JobState
    reason: str | None
    outcome: str | None = None
    note: str | None
    intent: str | None = None
    held: bool = False
    chore: bool = False
    hold_version: int | None = None
    requeue: str | None = None
    run: int = 1
    kept: int = 0
    failure_rule: str = FailureRule.CONTINUE
    threshold: int | None = None
    propagate: bool | None = None
    partial_rule: str = PartialRule.FAIL
    will_fail: str | None = None
    unmet: int = 0
    total: int
    discovering: int = 0
    discovered: int = 0
    started_at: datetime | None
    ended_at: datetime | None
    counts: dict[TaskState, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A job that waits for another one, `on_job`, as it was `wanted`; name, state, reason and note are that one's."""

    job_id: str
    wanted: str
    on_job: str
    name: str
    state: JobState
    reason: str | None
    note: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A task that has failed, for people: `reason` as far as the tracker knows, `why` in words."""

    id: str
    name: str
    reason: str | None
    discovers: bool
    why: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Producer:
    """A task whose value others take; `grew` tells whether it has added tasks to its job."""

    task: Task
    name: str
    replayable: bool
    grew: bool


@dataclass(slots=True, kw_only=True)
class Trunk:
    """A job as a task finds it that was only heard of: it joins as one more of `total`, with the number `arrival`."""

    id: str
    observed: bool
    name: str
    state: JobState
    intent: str | None = None
    total: int
    arrival: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a task comes from that no plan knows, as far as it was told: texts are empty until then.

    `sequence` is one more than that of its creator; of a job that is only observed, nobody knows the levels.
    """

    name: str = ""
    queue: str = ""
    created_by: str | None = None
    sequence: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A task message as stored at submission, with what its next delivery needs; `delivery` is that one's number.

    It is not sent if its job is `held`, or the task's end is `ordered`, nor with `skip_empty` if what it takes is
    empty. With `only_items` it takes the items that failed in that delivery, in the place of what it takes else.
    """

    task_id: str
    job_id: str
    queue: str
    run: int
    delivery: int
    first_retries: int
    takes_task: str | None
    takes_group: str | None
    skip_empty: bool = False
    held: bool = False
    ordered: str | None = None
    handed_back: int = 0
    only_items: int | None = None
    body: bytes
    content_type: str
    content_encoding: str
    headers: str
    properties: str


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


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldMessage:
    """A message that the tracker has not made and a gate has handed back whole, to be forwarded as it is (C3).

    `headers` and `properties` are JSON.
    """

    id: str
    job_id: str
    task_id: str
    celery_id: str
    retries: int
    queue: str
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """How far the batches of one process of a worker were read: the last number, and what it had dropped by then."""

    id: str
    worker: str
    number: int
    dropped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What is known to be lost of a series: events that its worker dropped, numbers of batches that never arrived."""

    worker: str
    series: str
    events: int
    missed: range


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
