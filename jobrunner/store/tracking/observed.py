"""Jobs and tasks that nobody has submitted: rows made out of what Celery tells of them.

Tasks are *adopted* if their job has a plan, which does not know them.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, literal_column, select

from jobrunner.records import Origin, Task, Trunk
from jobrunner.states import JobState
from jobrunner.store.bulk import Update, insert_rows
from jobrunner.store.schema import COUNTERS, attempt, job, task
from jobrunner.store.tracking.rows import NEXT_ARRIVAL, PLANNED, IsOneOf, rows_of

#: Levels of tasks below one whose own level became known late: more than that only a circle of creators has.
_LEVELS = 100

_TRUNK = [job.c[name] for name in Trunk.__slots__ if name != "arrival"]
_TRUNKS = select(*_TRUNK, NEXT_ARRIVAL).where(IsOneOf(job.c.id))


def trunks(connection: Connection, job_ids: Collection[str]) -> dict[str, Trunk]:
    """Return those of these jobs that there are, planned ones as well, as far as a task needs to know that joins."""
    rows = rows_of(connection, _TRUNKS, job_ids)
    return {values["id"]: Trunk(**values | {"state": JobState(values["state"])}) for values in rows}


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
    fixed = {"position": 0, "opens_block": "", "opens_at": 0, "queued_at": now}
    names = [name for name in Task.__slots__ if name in task.c and name not in fixed]
    rows = [
        {name: getattr(one, name) for name in names}
        | {name: getattr(origin, name) for name in Origin.__slots__}
        | {"arrival": arrival, **fixed}
        for one, arrival, origin in tasks
    ]
    insert_rows(connection, task, rows)


_ORIGINS = select(task.c.id, *(task.c[name] for name in Origin.__slots__)).where(IsOneOf(task.c.id))


def origins(connection: Connection, task_ids: Collection[str]) -> dict[str, Origin]:
    """Return what is known of where these tasks come from."""
    return {values.pop("id"): Origin(**values) for values in rows_of(connection, _ORIGINS, task_ids)}


_UPDATE_ORIGIN = Update(task, ["id"], Origin.__slots__)


def update_origins(connection: Connection, known: Mapping[str, Origin]) -> None:
    """Write what became known of where these tasks come from."""
    rows = [{"id": id_} | {name: getattr(one, name) for name in Origin.__slots__} for id_, one in known.items()]
    _UPDATE_ORIGIN.run(connection, rows)


_CREATORS = select(task.c.id.label("told"), task.c.id, task.c.sequence).where(IsOneOf(task.c.id))
_CREATORS_OF_LATER = (
    select(attempt.c.celery_id.label("told"), task.c.id, task.c.sequence)
    .join_from(attempt, task, task.c.id == attempt.c.task_id)
    .where(IsOneOf(attempt.c.celery_id), attempt.c.delivery > literal_column("1"))
)


def senders(connection: Connection, celery_ids: Collection[str]) -> dict[str, tuple[str, int]]:
    """Return id and sequence of the tasks that ran under these Celery ids, as far as they are known."""
    found = {one["told"]: (one["id"], one["sequence"]) for one in rows_of(connection, _CREATORS, celery_ids)}
    later = rows_of(connection, _CREATORS_OF_LATER, [one for one in celery_ids if one not in found])
    return found | {one["told"]: (one["id"], one["sequence"]) for one in later}


_creator = task.alias("creator")
_MISPLACED = (
    select(task.c.id, (_creator.c.sequence + 1).label("sequence"))
    .join_from(_creator, task, task.c.created_by == _creator.c.id)
    .where(IsOneOf(_creator.c.id), ~PLANNED, task.c.sequence != _creator.c.sequence + 1)
)
_PLACE = Update(task, ["id"], ["sequence"])


def place_adopted(connection: Connection, creator_ids: Collection[str]) -> None:
    """Give the tasks that these have sent, and what those have sent, the sequence after their creator's.

    Events come in any order: a task may be known before the one that has sent it.
    """
    for _ in range(_LEVELS):
        rows = list(rows_of(connection, _MISPLACED, creator_ids))
        if not rows:
            return
        _PLACE.run(connection, rows)
        creator_ids = [one["id"] for one in rows]
