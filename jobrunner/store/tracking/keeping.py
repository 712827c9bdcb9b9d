"""Jobs whose values in the result backend are to be let go, or to be kept again; and which tasks have any.

A job keeps its values until it has ended. One that goes on after that, and one of before values were kept, has not
ended and does not keep them yet.
"""

from collections.abc import Collection

from sqlalchemy import Connection, bindparam, select, text, tuple_, union_all, update

from jobrunner.records import Delivered, Keep
from jobrunner.store.bulk import Update
from jobrunner.store.schema import job, task
from jobrunner.store.tracking.rows import PLANNED, IsOneOf

#: As it stands in the partial index: SQLite would compare it with 1 otherwise, and search all jobs.
_ENDED = text("keeps_values"), job.c.ended_at.is_not(None)
_GOING_ON = ~job.c.keeps_values, job.c.ended_at.is_(None), ~job.c.observed
_KEEP = job.c.id.label("job_id"), job.c.ended_at
_WAITING = union_all(select(*_KEEP).where(*_ENDED), select(*_KEEP).where(*_GOING_ON)).limit(bindparam("number"))


def keeps_waiting(connection: Connection, limit: int) -> list[Keep]:
    """Return jobs whose values are to be let go or kept again."""
    return [Keep(**row._asdict()) for row in connection.execute(_WAITING, {"number": limit})]


_STILL = union_all(
    select(*_KEEP).where(*_ENDED, IsOneOf(job.c.id)), select(*_KEEP).where(*_GOING_ON, IsOneOf(job.c.id))
)


def keeps_still_waiting(connection: Connection, keeps: Collection[Keep]) -> list[Keep]:
    """Return those of which that is still true: their job was neither ended nor begun again since."""
    if not keeps:
        return []
    rows = connection.execute(_STILL, {"ids": [one.job_id for one in keeps]})
    return [one for one in (Keep(**row._asdict()) for row in rows) if one in keeps]


_DELIVERED = (
    select(task.c.job_id, task.c.arrival, task.c.id.label("task_id"), task.c.delivery, task.c.takes_group)
    .where(
        IsOneOf(task.c.job_id),
        tuple_(task.c.job_id, task.c.arrival) > tuple_(bindparam("job_id_"), bindparam("arrival_")),
        task.c.delivery > 0,
        PLANNED,
    )
    .order_by(task.c.job_id, task.c.arrival)
    .limit(bindparam("number"))
)


def delivered_tasks(
    connection: Connection, job_ids: Collection[str], after: tuple[str, int], limit: int
) -> list[Delivered]:
    """Return up to `limit` tasks of these jobs that were sent, by job and arrival, from the one behind `after`."""
    place = {"job_id_": after[0], "arrival_": after[1], "number": limit}
    rows = connection.execute(_DELIVERED, {"ids": list(job_ids), **place})
    return [Delivered(**row._asdict()) for row in rows]


_LET_GO = Update(job, ["id", "ended_at"], ["keeps_values"], job.c.keeps_values)
_KEPT = update(job).where(IsOneOf(job.c.id), *_GOING_ON).values(keeps_values=True)


def mark_kept(connection: Connection, keeps: Collection[Keep]) -> None:
    """Note that the values of these jobs were let go or are kept again, but of those that ended or went on since."""
    ended = [
        {"id": one.job_id, "ended_at": one.ended_at, "keeps_values": False} for one in keeps if one.ended_at is not None
    ]
    _LET_GO.run(connection, ended)
    going_on = [one.job_id for one in keeps if one.ended_at is None]
    if going_on:
        connection.execute(_KEPT, {"ids": going_on})


_DOUBT = update(job).where(IsOneOf(job.c.id), ~job.c.observed).values(keeps_values=False)


def doubt_values(connection: Connection, job_ids: Collection[str]) -> None:
    """Note of jobs that go on again that their values may have been let go, all of them or some."""
    if job_ids:
        connection.execute(_DOUBT, {"ids": list(job_ids)})


_LATE = update(job).where(IsOneOf(job.c.id), job.c.ended_at.is_not(None), ~job.c.observed).values(keeps_values=True)


def keep_late_values(connection: Connection, job_ids: Collection[str]) -> None:
    """Note of jobs that a value came late: if they have ended, all of them is let go once more."""
    if job_ids:
        connection.execute(_LATE, {"ids": list(job_ids)})
