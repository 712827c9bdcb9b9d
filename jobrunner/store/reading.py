"""Questions that clients ask: handles, CLI, later API and pages. Nothing here writes."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, case, func, literal_column, select

from jobrunner.event_types import EVENT_TYPES
from jobrunner.records import HistoryLine, Standing
from jobrunner.statements import ItemCounts
from jobrunner.states import ENDED_TASK, JobOutcome, JobState, TaskState, WorkerState
from jobrunner.store.schema import (
    COUNTERS,
    attempt,
    history,
    item_count,
    job,
    message,
    rejected_event,
    task,
    worker,
    worker_failure,
)

#: Ids per `IN (…)`: what every database takes at once.
CHUNK = 500
#: States of a task that an attempt may be about.
IN_HAND = (TaskState.QUEUED, TaskState.ACTIVE, TaskState.SOFT_FAILED)
#: Executions in the hands of their process; numbers as they stand in the partial index.
OPEN = attempt.c.standing.in_([literal_column(str(int(one))) for one in (Standing.RECEIVED, Standing.STARTED)])
#: Executions that another process has received since; should its gate refuse them, they count as received again.
PASSED_ON = (attempt.c.standing == literal_column(str(int(Standing.NONE)))) & attempt.c.received_at.is_not(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job as people see it; `counts` has how many of its tasks are in each state, without the zeros.

    Of those that discover work, `discovering` are at it, and `discovered` have tried to; who was canceled has not.
    `intent` is what an operator wants of it, until he says otherwise; `annotation` his note. `hold_version` is that of
    the snapshot that tells workers how it is held. `failure_rule`, `threshold` (percent) and `propagate` say what a
    failure means for it (C5), and `partial_rule` what a partial task does; `will_fail` is the reason for which it fails
    as soon as what runs has ended. Of the jobs that it waits for, `unmet` have not completed (C4).
    """

    id: str
    name: str
    key: str | None
    observed: bool
    barrier: bool
    state: JobState
    reason: str | None
    outcome: str | None
    note: str | None
    intent: str | None
    hold_version: int | None
    priority: int
    annotation: str | None
    labels: dict[str, str]
    failure_rule: str
    threshold: int | None
    propagate: bool | None
    partial_rule: str
    will_fail: str | None
    unmet: int
    run: int
    total: int
    counts: dict[TaskState, int]
    discovering: int
    discovered: int
    submitted_at: datetime
    applied_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    value_task: str | None
    value_group: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """A task as people see it, with its latest attempt; `last_event` is Celery's name for what was told of it last.

    `created_by` is the task that has added it to the job, or has sent it; none if it was submitted. `name` is empty as
    long as it was not told. How far that attempt is, from 0.0 to 1.0, and what it `said` with that, is what its body
    has reported; None if it has not. `items` counts those of a task that says so, once it has ended well.
    """

    id: str
    job_id: str
    celery_id: str
    created_by: str | None
    name: str
    state: TaskState
    reason: str | None
    note: str | None
    queue: str
    arrival: int
    sequence: int
    delivery: int
    retries: int | None
    last_event: str | None
    worker: str | None
    sent_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    progress: float | None
    said: str | None
    runtime: float | None
    result: str | None
    exception: str | None
    traceback: str | None
    items: ItemCounts | None = None

    @property
    def more_to_come(self) -> bool | None:
        """Whether its last event leaves something to be told (H4); None while nothing was told of it at all."""
        if self.last_event is None:
            return None
        return self.state not in ENDED_TASK and EVENT_TYPES[self.last_event].more_to_come is True


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageView:
    """The message of a task, of which only what it was submitted with is for people; see `jobrunner.parameters`."""

    task_id: str
    body: bytes
    content_type: str
    headers: str
    takes_value: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerBlockView:
    """A worker that gets no more tasks of one name in an unfinished job, since when, and the last one that failed."""

    worker: str
    task_name: str
    job_id: str
    job_name: str
    blocked_at: datetime
    last_task: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """A worker as people see it, and how many tasks it has in its hands: running, and received but not started.

    `seen_at` is when it was last heard, to within 5 s; `online_at` when its present process came. What its processes
    have dropped, and what of theirs never arrived, adds up over all that have borne the name. `snapshot` is the version
    of the snapshot that the present one has acknowledged; `queues` are where it takes tasks from, if it has said so.
    """

    name: str
    state: WorkerState
    lossy: bool
    pid: int | None
    online_at: datetime
    seen_at: datetime
    snapshot: int | None
    queues: list[str] | None
    active: int
    received: int
    events_dropped: int
    batches_missed: int


def _job_view(row: Row[*tuple[Any, ...]]) -> JobView:
    values = row._asdict()
    counts = {state: values.pop(column) for state, column in COUNTERS.items()}
    for name in ("digest", "keeps_values", "held", "chore", "requeue", "kept"):
        del values[name]
    values["state"] = JobState(values["state"])
    values["labels"] = json.loads(values["labels"] or "{}")
    return JobView(**values, counts={state: count for state, count in counts.items() if count})


def find_jobs(connection: Connection, reference: str) -> list[JobView]:
    """Return the jobs that a person may mean: by id, by key, or by the beginning or end of an id (at most 3)."""
    exact = connection.execute(select(job).where((job.c.id == reference) | (job.c.key == reference))).first()
    if exact is not None:
        return [_job_view(exact)]
    like = select(job).where(
        job.c.id.startswith(reference, autoescape=True) | job.c.id.endswith(reference, autoescape=True)
    )
    return [_job_view(row) for row in connection.execute(like.limit(3))]


def get_job(connection: Connection, job_id: str) -> JobView | None:
    """Return a job by its id."""
    row = connection.execute(select(job).where(job.c.id == job_id)).first()
    return None if row is None else _job_view(row)


def list_jobs(connection: Connection, since: datetime | None, limit: int, *, noop: bool = True) -> list[JobView]:
    """Return the newest jobs first: the unfinished, and those that ended after `since` (all of them if None).

    Without `noop`, none of those that had nothing to do.
    """
    query = select(job).order_by(job.c.submitted_at.desc()).limit(limit)
    if since is not None:
        query = query.where(job.c.ended_at.is_(None) | (job.c.ended_at >= since))
    if not noop:
        query = query.where(job.c.outcome.is_distinct_from(JobOutcome.NOOP))
    return [_job_view(row) for row in connection.execute(query)]


#: The execution that decides comes first, as in `tracker.fold.deciding`.
_DECIDING = (
    attempt.c.delivery.desc(),
    case((attempt.c.standing == Standing.SUCCEEDED, 0), else_=1),
    attempt.c.retries.desc(),
    attempt.c.standing.desc(),
    attempt.c.process.desc(),
)


_ITEMS = [item_count.c[name].label(f"{name}_items") for name in ItemCounts.__slots__]


def list_tasks(connection: Connection, job_id: str) -> list[TaskView]:
    """Return a job's tasks in order of arrival, each with the execution that decides its state."""
    query = (
        select(
            task.c.id,
            task.c.job_id,
            task.c.celery_id,
            task.c.created_by,
            task.c.name,
            task.c.state,
            task.c.reason,
            task.c.note,
            task.c.queue,
            task.c.arrival,
            task.c.sequence,
            task.c.delivery,
            attempt.c.retries,
            # The tracker tells of the sending to monitors alone: it knows by itself.
            func.coalesce(attempt.c.last_event, case((task.c.sent_at.is_not(None), "task-sent"))).label("last_event"),
            attempt.c.worker,
            task.c.sent_at,
            task.c.started_at,
            task.c.ended_at,
            task.c.progress,
            attempt.c.said,
            attempt.c.runtime,
            attempt.c.result,
            attempt.c.exception,
            attempt.c.traceback,
            *_ITEMS,
        )
        .join_from(task, attempt, attempt.c.task_id == task.c.id, isouter=True)
        .join(item_count, item_count.c.task_id == task.c.id, isouter=True)
        .where(task.c.job_id == job_id)
        .order_by(task.c.arrival, *_DECIDING)
    )
    # The one that decides is chosen here: for a window function PostgreSQL takes a minute with 20,000 tasks that it has
    # not counted yet.
    deciding: dict[str, Row[*tuple[Any, ...]]] = {}
    for row in connection.execute(query):
        deciding.setdefault(row.id, row)
    return [_task_view(row) for row in deciding.values()]


def list_messages(connection: Connection, job_id: str) -> Iterator[MessageView]:
    """Yield the messages of a job's tasks, in order of arrival; an observed task has none."""
    query = (
        select(
            message.c.task_id,
            message.c.body,
            message.c.content_type,
            message.c.headers,
            (task.c.takes_task.is_not(None) | task.c.takes_group.is_not(None)).label("takes_value"),
        )
        .join_from(task, message, message.c.task_id == task.c.id)
        .where(task.c.job_id == job_id)
        .order_by(task.c.arrival)
    )
    return (MessageView(**row._asdict()) for row in connection.execute(query))


def _task_view(row: Row[*tuple[Any, ...]]) -> TaskView:
    values = row._asdict()
    values["state"] = TaskState(values["state"])
    numbers = {name: values.pop(f"{name}_items") for name in ItemCounts.__slots__}
    return TaskView(**values, items=None if numbers["failed"] is None else ItemCounts(**numbers))


def workers_online(connection: Connection) -> int:
    """Return how many workers are known to be online."""
    query = select(func.count()).select_from(worker).where(worker.c.online.is_(True))
    return connection.execute(query).scalar_one()


def rejected_number(connection: Connection) -> int:
    """Return how many rows tell of events that could not be folded."""
    return connection.execute(select(func.count()).select_from(rejected_event)).scalar_one()


def foreign_number(connection: Connection) -> int:
    """Return how many executions tell of an end that their process had nothing to do with (A5)."""
    foreign = attempt.c.standing == literal_column("0"), attempt.c.outcome.is_not(None)
    return connection.execute(select(func.count()).select_from(attempt).where(*foreign)).scalar_one()


def list_workers(connection: Connection, since: datetime | None) -> list[WorkerView]:
    """Return workers by name: those online, and those gone that were heard after `since` (all of them if None)."""
    present = (task.c.id == attempt.c.task_id) & (task.c.delivery == attempt.c.delivery)
    held = (
        select(
            attempt.c.worker,
            func.count(attempt.c.started_at).label("active"),
            func.sum(case((attempt.c.started_at.is_(None), 1), else_=0)).label("received"),
        )
        .join_from(attempt, task, present)
        .where(OPEN, task.c.state.in_(IN_HAND))
        .group_by(attempt.c.worker)
        .subquery()
    )
    query = (
        select(
            worker, func.coalesce(held.c.active, 0).label("active"), func.coalesce(held.c.received, 0).label("received")
        )
        .join_from(worker, held, held.c.worker == worker.c.name, isouter=True)
        .order_by(worker.c.name)
    )
    if since is not None:
        query = query.where(worker.c.online.is_(True) | (worker.c.seen_at >= since))
    return [_worker_view(row) for row in connection.execute(query)]


def list_worker_blocks(connection: Connection) -> list[WorkerBlockView]:
    """Return who is blocked for what in unfinished jobs."""
    columns = worker_failure.c.worker, worker_failure.c.name, worker_failure.c.job_id
    query = (
        select(
            worker_failure.c.worker,
            worker_failure.c.name.label("task_name"),
            worker_failure.c.job_id,
            job.c.name.label("job_name"),
            worker_failure.c.blocked_at,
            worker_failure.c.last_task,
        )
        .join_from(worker_failure, job, job.c.id == worker_failure.c.job_id)
        .where(worker_failure.c.blocked_at.is_not(None), job.c.ended_at.is_(None))
        .order_by(*columns)
    )
    return [WorkerBlockView(**row._asdict()) for row in connection.execute(query)]


def _worker_view(row: Row[*tuple[Any, ...]]) -> WorkerView:
    values = row._asdict()
    source, online = values.pop("source"), values.pop("online")
    values["queues"] = None if values["queues"] is None else json.loads(values["queues"])
    gone = WorkerState.OFFLINE if source else WorkerState.LOST
    return WorkerView(**values, state=WorkerState.ONLINE if online else gone)


def list_history(connection: Connection, job_id: str, *, limit: int | None, moves: bool = False) -> list[HistoryLine]:
    """Return what was decided last about a job and its tasks, in order; with `moves`, also what only moved the job."""
    columns = [history.c[name] for name in HistoryLine.__slots__]
    query = select(*columns).where(history.c.job_id == job_id).order_by(history.c.id.desc()).limit(limit)
    if not moves:
        query = query.where(history.c.new.is_(None))
    return [HistoryLine(**row._asdict()) for row in reversed(connection.execute(query).all())]
