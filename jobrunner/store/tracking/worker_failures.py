"""How workers fare with the tasks of one name in a job, and which get none of them any more."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, delete, exists, false, select

from jobrunner.records import NamedTask, WorkerFailure
from jobrunner.store.bulk import Update, insert_rows
from jobrunner.store.schema import attempt, job, task, worker_failure
from jobrunner.store.tracking.rows import IsOneOf, rows_of

_NAMES = WorkerFailure.__slots__
_COLUMNS = [worker_failure.c[name] for name in _NAMES]
_OF_JOBS = select(*_COLUMNS).where(IsOneOf(worker_failure.c.job_id))


def worker_failures(connection: Connection, job_ids: Collection[str]) -> dict[tuple[str, str, str], WorkerFailure]:
    """Return what is known of workers in these jobs: by job, name of the tasks, and worker."""
    found = (WorkerFailure(**values) for values in rows_of(connection, _OF_JOBS, job_ids))
    return {one.key: one for one in found}


def has_worker_failures(connection: Connection) -> bool:
    """Whether any worker has failed a task of a job that is not forgotten yet."""
    return connection.execute(select(worker_failure.c.worker).limit(1)).first() is not None


_SAVE = Update(worker_failure, ["job_id", "name", "worker"], ["failures", "last_task", "blocked_at"])


def save_worker_failures(connection: Connection, rows: Sequence[WorkerFailure], new: Collection[WorkerFailure]) -> None:
    """Write what has changed, and what is new."""
    _SAVE.run(connection, [{name: getattr(one, name) for name in _NAMES} for one in rows])
    insert_rows(connection, worker_failure, [{name: getattr(one, name) for name in _NAMES} for one in new])


_NAMED = (
    select(task.c.id, task.c.job_id, task.c.name, task.c.queue)
    .join_from(task, job, job.c.id == task.c.job_id)
    .where(IsOneOf(task.c.id), job.c.observed == false())
)


def named_tasks(connection: Connection, task_ids: Collection[str]) -> dict[str, NamedTask]:
    """Return what these tasks are called, and where they wait; without those of jobs that are only observed."""
    return {values["id"]: NamedTask(**values) for values in rows_of(connection, _NAMED, task_ids)}


def has_succeeded(connection: Connection, one: WorkerFailure) -> bool:
    """Whether a worker has succeeded with tasks of that name in that job."""
    query = (
        select(attempt.c.task_id)
        .join_from(task, attempt, attempt.c.task_id == task.c.id)
        .where(task.c.job_id == one.job_id, task.c.name == one.name)
        .where(attempt.c.worker == one.worker, attempt.c.outcome == "succeeded")
    )
    return connection.execute(query.limit(1)).first() is not None


_BLOCKED = select(*_COLUMNS).where(worker_failure.c.blocked_at.is_not(None))


def blocked_workers(connection: Connection) -> dict[str, dict[str, list[str]]]:
    """Return who is blocked: by job, and by the name of the tasks."""
    found: dict[str, dict[str, list[str]]] = {}
    for row in connection.execute(_BLOCKED.order_by(worker_failure.c.worker)):
        found.setdefault(row.job_id, {}).setdefault(row.name, []).append(row.worker)
    return found


def lift_worker_blocks(connection: Connection, job_id: str, only: Mapping[str, str | None]) -> list[WorkerFailure]:
    """Forget what is known of workers in a job, and return which blocks that lifts; `only` has a worker, a name."""
    wanted = [worker_failure.c[column] == value for column, value in only.items() if value is not None]
    where = (worker_failure.c.job_id == job_id, *wanted)
    rows = [WorkerFailure(**row._asdict()) for row in connection.execute(select(*_COLUMNS).where(*where))]
    if rows:
        connection.execute(delete(worker_failure).where(*where))
    return [one for one in rows if one.blocked_at is not None]


def forget_failures(connection: Connection, before: datetime) -> bool:
    """Forget how workers fared in jobs that have ended; blocks stay until they ended before a moment.

    Return whether gates must learn of it.
    """
    ended = job.c.id == worker_failure.c.job_id, job.c.ended_at.is_not(None)
    blocked = worker_failure.c.blocked_at.is_not(None)
    connection.execute(delete(worker_failure).where(~blocked, exists().where(*ended)))
    old = delete(worker_failure).where(blocked, exists().where(*ended, job.c.ended_at < before))
    return bool(connection.execute(old).rowcount)
