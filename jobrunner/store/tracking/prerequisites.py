"""What jobs wait for: noticing that it exists, that it has completed, that it will not (C4, C5).

A row is asked for by the job that it is about, when that has ended, or by the one that waits, when it is taken up. So
jobs that wait cost nothing as long as nothing happens to what they wait for.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Connection, bindparam, func, literal_column, or_, select, union_all, update

from jobrunner.records import Link
from jobrunner.states import FailureReason, JobState, TaskState
from jobrunner.store.bulk import Update
from jobrunner.store.prerequisites import on_job
from jobrunner.store.schema import job, prerequisite, task
from jobrunner.store.tracking.rows import NOW, IsOneOf, rows_of

_UNKNOWN = prerequisite.c.on_job.is_(None)
_THEIRS = update(prerequisite).where(IsOneOf(prerequisite.c.job_id), _UNKNOWN).values(on_job=on_job())
_names = union_all(
    select(job.c.id.label("name"), job.c.id).where(IsOneOf(job.c.id)),
    select(job.c.key, job.c.id).where(IsOneOf(job.c.id), job.c.key.is_not(None)),
).subquery()
_named = select(_names.c.id).where(_names.c.name == prerequisite.c.wanted).limit(literal_column("1")).scalar_subquery()
_THEM = update(prerequisite).where(prerequisite.c.wanted.in_(select(_names.c.name)), _UNKNOWN).values(on_job=_named)
_WAITING = select(job.c.id).where(IsOneOf(job.c.id), job.c.unmet > literal_column("0"))


def find_prerequisites(connection: Connection, job_ids: Collection[str]) -> list[str]:
    """Note for whom these new jobs wait, and who waits for them; return those that wait."""
    ids = {"ids": list(job_ids)}
    connection.execute(_THEM, ids)
    waiting = list(connection.execute(_WAITING, ids).scalars())
    if waiting:
        connection.execute(_THEIRS, {"ids": waiting})
    return waiting


_PROPAGATES = bindparam("propagates", type_=Boolean)
_waiter = job.alias("waiter")
_FAILS = (
    job.c.state.in_((JobState.FAILED, JobState.CANCELED))
    & _waiter.c.state.in_((JobState.WAITING, JobState.PAUSED))
    & ~prerequisite.c.accepted
    & func.coalesce(_waiter.c.propagate, _PROPAGATES)
)
_LINKS = (
    select(
        prerequisite.c.job_id, prerequisite.c.wanted, prerequisite.c.on_job, job.c.name, job.c.state, job.c.reason,
        job.c.note,
    )
    .join_from(prerequisite, job, job.c.id == prerequisite.c.on_job)
    .join(_waiter, _waiter.c.id == prerequisite.c.job_id)
    .where(prerequisite.c.met_at.is_(None), or_(job.c.state == JobState.COMPLETED, _FAILS))
)  # fmt: skip
_ON = _LINKS.where(IsOneOf(prerequisite.c.on_job)).limit(bindparam("number"))
_OF = _LINKS.where(IsOneOf(prerequisite.c.job_id))


def links_on(connection: Connection, job_ids: Collection[str], limit: int, *, propagates: bool) -> list[Link]:
    """Return up to `limit` jobs that wait for these and need not, or will in vain; `propagates` if they do not say."""
    ids = {"ids": list(job_ids), "number": limit, "propagates": propagates}
    return [_link(row._asdict()) for row in connection.execute(_ON, ids)]


def links_of(connection: Connection, job_ids: Collection[str], *, propagates: bool) -> list[Link]:
    """Return what these jobs need not wait for, or would in vain."""
    ids = {"ids": list(job_ids), "propagates": propagates}
    return [_link(row._asdict()) for row in connection.execute(_OF, ids)]


def _link(values: dict[str, Any]) -> Link:
    values["state"] = JobState(values["state"])
    return Link(**values)


_MEET = Update(prerequisite, ["job_id", "wanted"], ["met_at"])


def meet(connection: Connection, links: Sequence[Link], now: datetime) -> None:
    """Note that what jobs wait for has completed."""
    _MEET.run(connection, [{"job_id": one.job_id, "wanted": one.wanted, "met_at": now} for one in links])


_pending = IsOneOf(task.c.job_id), task.c.state == TaskState.PENDING
_COUNT = select(task.c.job_id, task.c.discovers, func.count().label("number")).where(*_pending)
_COUNT = _COUNT.group_by(task.c.job_id, task.c.discovers)
_FAIL = (
    update(task)
    .where(*_pending)
    .values(state=TaskState.FAILED, reason=FailureReason.UPSTREAM, note=bindparam("note_"), ended_at=NOW)
)


def fail_pending(
    connection: Connection, job_ids: Collection[str], note: str, now: datetime
) -> list[tuple[str, bool, int]]:
    """Fail the tasks of jobs that can never run; return how many: (job, whether they discover work, number)."""
    found = [(one["job_id"], one["discovers"], one["number"]) for one in rows_of(connection, _COUNT, job_ids)]
    if found:
        connection.execute(_FAIL, {"ids": list(job_ids), "note_": note, "moment": now})
    return found
