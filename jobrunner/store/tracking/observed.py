"""Jobs and tasks that nobody has submitted: rows made out of what Celery tells of them."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, select

from jobrunner.records import Origin, Task, Trunk
from jobrunner.states import JobState
from jobrunner.store.bulk import Update, insert_rows
from jobrunner.store.schema import COUNTERS, job, task
from jobrunner.store.tracking.rows import IsOneOf, rows_of

_TRUNKS = select(job.c.id, job.c.observed, job.c.name, job.c.total).where(IsOneOf(job.c.id))


def trunks(connection: Connection, job_ids: Collection[str]) -> dict[str, Trunk]:
    """Return those of these jobs that there are, planned ones as well, as far as a task needs to know that joins."""
    return {values["id"]: Trunk(**values) for values in rows_of(connection, _TRUNKS, job_ids)}


def insert_observed_jobs(connection: Connection, jobs: Sequence[Trunk], now: datetime) -> None:
    """Write jobs that were just heard of. They are taken up already: no plan of theirs is to be opened."""
    fixed = {
        "digest": "", "state": JobState.QUEUED, "run": 1, "submitted_at": now, "applied_at": now,
        **dict.fromkeys(COUNTERS.values(), 0),
    }  # fmt: skip
    rows = [{"id": one.id, "observed": True, "name": one.name, "total": one.total, **fixed} for one in jobs]
    insert_rows(connection, job, rows)


_UPDATE_JOB = Update(job, ["id"], ["name", "total"])


def update_observed_jobs(connection: Connection, jobs: Collection[Trunk]) -> None:
    """Write how many tasks these jobs have, and what they are called."""
    _UPDATE_JOB.run(connection, [{"id": one.id, "name": one.name, "total": one.total} for one in jobs])


def insert_observed_tasks(connection: Connection, tasks: Sequence[tuple[Task, int, Origin]], now: datetime) -> None:
    """Write (task, arrival, origin): with no place in a block, which is what tells them from tasks of a plan."""
    fixed = {"sequence": 0, "position": 0, "opens_block": "", "opens_at": 0, "queued_at": now}
    names = [name for name in Task.__slots__ if name in task.c and name not in fixed]
    rows = [
        {name: getattr(one, name) for name in names}
        | {"arrival": arrival, "name": origin.name, "queue": origin.queue, "created_by": origin.created_by, **fixed}
        for one, arrival, origin in tasks
    ]
    insert_rows(connection, task, rows)


_ORIGINS = select(task.c.id, task.c.name, task.c.queue, task.c.created_by).where(IsOneOf(task.c.id))


def origins(connection: Connection, task_ids: Collection[str]) -> dict[str, Origin]:
    """Return what is known of where these tasks come from."""
    return {values.pop("id"): Origin(**values) for values in rows_of(connection, _ORIGINS, task_ids)}


_UPDATE_ORIGIN = Update(task, ["id"], ["name", "queue", "created_by"])


def update_origins(connection: Connection, known: Mapping[str, Origin]) -> None:
    """Write what became known of where these tasks come from."""
    rows = [
        {"id": task_id, "name": one.name, "queue": one.queue, "created_by": one.created_by}
        for task_id, one in known.items()
    ]
    _UPDATE_ORIGIN.run(connection, rows)
