"""Jobs as the tracker moves them, what they wait for, and what was decided about them."""

from dataclasses import dataclass, field
from datetime import datetime

from jobrunner.states import FailureRule, JobState, PartialRule, TaskState


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
