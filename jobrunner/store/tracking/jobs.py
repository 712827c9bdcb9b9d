"""Jobs: new ones, and those whose tasks have moved."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, bindparam, case, func, select, update

from jobrunner.records import Failed, Job
from jobrunner.states import FailureReason, JobState, TaskState
from jobrunner.store.bulk import Update
from jobrunner.store.schema import COUNTERS, attempt, job, task
from jobrunner.store.tracking.rows import NOW, IsOneOf, rows_of

_NAMES = [name for name in Job.__slots__ if name != "counts"]
_JOB = [job.c[name] for name in _NAMES]


_NEW_JOBS = select(job.c.id).where(job.c.applied_at.is_(None)).order_by(job.c.id).limit(bindparam("number"))


def new_jobs(connection: Connection, limit: int) -> list[str]:
    """Return ids of submitted jobs that no turn has taken up yet, found by a flag and never by a cursor."""
    return list(connection.execute(_NEW_JOBS, {"number": limit}).scalars())


_MARK_APPLIED = update(job).where(IsOneOf(job.c.id)).values(applied_at=NOW)


def mark_applied(connection: Connection, job_ids: Collection[str], now: datetime) -> None:
    """Note that these jobs have been taken up."""
    if job_ids:
        connection.execute(_MARK_APPLIED, {"ids": list(job_ids), "moment": now})


_FAILED = (
    select(
        task.c.id,
        task.c.name,
        task.c.reason,
        task.c.discovers,
        # What a task's own row says of it tells more than the exception, where the tracker knows more than the worker.
        case((task.c.reason.is_not(None), task.c.note), else_=func.coalesce(attempt.c.exception, task.c.note)).label(
            "why"
        ),
    )
    .join_from(
        task,
        attempt,
        (attempt.c.task_id == task.c.id) & (attempt.c.delivery == task.c.delivery) & (attempt.c.outcome == "failed"),
        isouter=True,
    )
    .where(task.c.job_id == bindparam("job_id_"), task.c.state == TaskState.FAILED)
    # That nobody is left to run it says more than how the first of those failed who had them all. What has failed
    # because of another task may have arrived before it, as what comes after a creator of tasks has.
    .order_by(
        case((task.c.reason == FailureReason.NO_WORKERS, 0), (task.c.reason == FailureReason.UPSTREAM, 2), else_=1),
        task.c.arrival,
    )
    .limit(1)
)


def first_failed(connection: Connection, job_id: str) -> Failed | None:
    """Return the first task of a job that failed, in order of arrival: of those that did by themselves, if any has."""
    row = connection.execute(_FAILED, {"job_id_": job_id}).first()
    return row and Failed(**row._asdict())


_PARTIAL = (
    select(task.c.id, task.c.name, task.c.note.label("why"))
    .where(task.c.job_id == bindparam("job_id_"), task.c.state == TaskState.PARTIAL)
    .order_by(task.c.arrival)
    .limit(1)
)


def first_partial(connection: Connection, job_id: str) -> Failed | None:
    """Return the first task of a job that ended partial, in order of arrival."""
    row = connection.execute(_PARTIAL, {"job_id_": job_id}).first()
    return None if row is None else Failed(**row._asdict(), reason=None, discovers=False)


_JOBS = select(*_JOB, *(job.c[name] for name in COUNTERS.values())).where(IsOneOf(job.c.id))


def jobs_by_id(connection: Connection, job_ids: Collection[str]) -> dict[str, Job]:
    """Return these jobs with their counters."""
    found: dict[str, Job] = {}
    for values in rows_of(connection, _JOBS, job_ids):
        counts = {state: values.pop(column) for state, column in COUNTERS.items()}
        values["state"] = JobState(values["state"])
        found[values["id"]] = Job(**values, counts=counts)
    return found


_CHANGES = (
    "state",
    "reason",
    "outcome",
    "note",
    "total",
    "discovering",
    "discovered",
    "held",
    "chore",
    "will_fail",
    "unmet",
    "started_at",
    "ended_at",
)
_UPDATE = Update(job, ["id"], [*_CHANGES, *COUNTERS.values()])


def update_jobs(connection: Connection, jobs: Collection[Job]) -> None:
    """Write jobs that changed."""
    rows = [
        {"id": one.id}
        | {name: getattr(one, name) for name in _CHANGES}
        | {column: one.counts[state] for state, column in COUNTERS.items()}
        for one in jobs
    ]
    _UPDATE.run(connection, rows)
