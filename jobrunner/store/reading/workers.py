"""Workers as people see them, and what they get no more of."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, case, func, select

from jobrunner.states import WorkerState
from jobrunner.store.in_hand import IN_HAND, OPEN
from jobrunner.store.schema import attempt, job, task, worker, worker_failure


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


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerBlockView:
    """A worker that gets no more tasks of one name in an unfinished job, since when, and the last one that failed."""

    worker: str
    task_name: str
    job_id: str
    job_name: str
    blocked_at: datetime
    last_task: str


def workers_online(connection: Connection) -> int:
    """Return how many workers are known to be online."""
    query = select(func.count()).select_from(worker).where(worker.c.online.is_(True))
    return connection.execute(query).scalar_one()


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


def _worker_view(row: Row[*tuple[Any, ...]]) -> WorkerView:
    values = row._asdict()
    source, online = values.pop("source"), values.pop("online")
    values["queues"] = None if values["queues"] is None else json.loads(values["queues"])
    gone = WorkerState.OFFLINE if source else WorkerState.LOST
    return WorkerView(**values, state=WorkerState.ONLINE if online else gone)


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
