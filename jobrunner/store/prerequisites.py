"""What jobs wait for, as clients write and read it: the jobs that are named, and that none waits for itself.

Those who submit write rows; only the tracker says when they are met (`jobrunner.store.tracking.prerequisites`).
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, func, literal, select

from jobrunner.states import JobState
from jobrunner.store.bulk import portions
from jobrunner.store.schema import job, prerequisite

#: The lock that submissions of jobs with prerequisites hold on PostgreSQL until they are written; the number is free
#: to choose. On SQLite there is one writer at a time.
_LOCK = 0x6A6F6272


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A job that another one names, by its id or key."""

    wanted: str
    id: str
    name: str
    state: JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class PrerequisiteView:
    """A job that another one waits for, as it was named: `wanted`; without an id there is none of that id or key yet.

    Since `met_at` it does not wait for that any more.
    """

    wanted: str
    id: str | None
    name: str | None
    state: JobState | None
    met_at: datetime | None


def lock(connection: Connection) -> None:
    """Let nobody else submit a job with prerequisites until the end of the transaction.

    Two of them might each wait for the other, which neither could see.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(literal(_LOCK))))


def find_named(connection: Connection, wanted: Sequence[str]) -> dict[str, Wanted]:
    """Return the jobs that have one of these ids or keys, by that; an id comes before a key."""
    found: dict[str, Wanted] = {}
    for column in (job.c.key, job.c.id):
        named = select(column.label("wanted"), job.c.id, job.c.name, job.c.state)
        for some in portions(wanted):
            rows = connection.execute(named.where(column.in_(some)))
            found |= {row.wanted: Wanted(**row._asdict() | {"state": JobState(row.state)}) for row in rows}
    return found


def on_job(row: FromClause = prerequisite) -> ColumnElement[str]:
    """Return the job that a row is about, also if the tracker has not noted yet that it exists."""
    named = job.alias("named")
    by_id, by_key = (select(named.c.id).where(named.c[one] == row.c.wanted).scalar_subquery() for one in ("id", "key"))
    return func.coalesce(row.c.on_job, by_id, by_key)


def waits_for_itself(connection: Connection, names: Collection[str], wanted: Collection[str]) -> Wanted | None:
    """Return a job that waits for the one with these names, a new one, and for which that one is to wait.

    `wanted` are the ids of the jobs for which it is to wait at once. Only what nobody knew yet can wait for a new one.
    """
    waiting = select(prerequisite.c.job_id).where(prerequisite.c.on_job.is_(None), prerequisite.c.wanted.in_(names))
    waiting = waiting.where(prerequisite.c.met_at.is_(None))
    later = set(connection.execute(waiting).scalars())
    return next((one for one in _before(connection, wanted) if one.id in later), None) if later else None


def _before(connection: Connection, job_ids: Collection[str]) -> Iterator[Wanted]:
    """Yield these jobs and all that they wait for, in their turn."""
    seen: set[str] = set()
    for some in portions(job_ids):
        before = select(job.c.id).where(job.c.id.in_(some)).cte("before", recursive=True)
        step = select(on_job()).join_from(prerequisite, before, before.c.id == prerequisite.c.job_id)
        before = before.union(step.where(prerequisite.c.met_at.is_(None)))
        for row in connection.execute(select(job.c.id, job.c.name, job.c.state).join(before, before.c.id == job.c.id)):
            if row.id not in seen:
                seen.add(row.id)
                yield Wanted(wanted=row.id, id=row.id, name=row.name, state=JobState(row.state))


def list_prerequisites(connection: Connection, job_ids: Sequence[str]) -> dict[str, list[PrerequisiteView]]:
    """Return what jobs wait for or have waited for, as it was named, by their ids."""
    found: dict[str, list[PrerequisiteView]] = defaultdict(list)
    query = (
        select(prerequisite.c.job_id, prerequisite.c.wanted, job.c.id, job.c.name, job.c.state, prerequisite.c.met_at)
        .join_from(prerequisite, job, job.c.id == on_job(), isouter=True)
        .order_by(prerequisite.c.wanted)
    )
    for some in portions(job_ids):
        for row in connection.execute(query.where(prerequisite.c.job_id.in_(some))):
            values: dict[str, Any] = row._asdict()
            values["state"] = values["state"] and JobState(values["state"])
            found[values.pop("job_id")].append(PrerequisiteView(**values))
    return found
