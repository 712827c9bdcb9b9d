"""What workers must know of jobs: the rows of the snapshot, its version, and who has acknowledged which."""

import json
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, exists, insert, select, update

from jobrunner.snapshot import Hold, Kind, Snapshot
from jobrunner.store.bulk import insert_rows
from jobrunner.store.schema import gate_entry, job, snapshot, worker
from jobrunner.store.tracking.worker_failures import blocked_workers

#: The one row of table `snapshot`.
_NAME = "workers"


_VERSION = select(snapshot.c.version).where(snapshot.c.name == _NAME)  # once: every turn asks


def snapshot_version(connection: Connection) -> int:
    """Return the version of the snapshot that the rows make up; 0 as long as there never was an entry."""
    return connection.execute(_VERSION).scalar() or 0


def next_version(connection: Connection) -> int:
    """Begin a new version of the snapshot and return its number."""
    known = update(snapshot).where(snapshot.c.name == _NAME).values(version=snapshot.c.version + 1)
    if not connection.execute(known).rowcount:
        connection.execute(insert(snapshot).values(name=_NAME, version=1))
    return snapshot_version(connection)


def add_entries(
    connection: Connection, kind: Kind, entries: Iterable[tuple[str, str, float | None]], version: int, now: datetime
) -> None:
    """Write entries of one kind: (job, subject, number). Those that there are already become these."""
    rows = {(job_id, subject): number for job_id, subject, number in entries}
    for job_id, subject in rows:
        remove_entries(connection, job_id, [kind], subject)
    fixed = {"kind": kind, "version": version, "made_at": now}
    insert_rows(
        connection,
        gate_entry,
        [{"job_id": one, "subject": subject, "number": number, **fixed} for (one, subject), number in rows.items()],
    )


def remove_entries(connection: Connection, job_id: str, kinds: Collection[Kind], subject: str = "") -> int:
    """Remove entries of a job and return how many there were."""
    of_job = gate_entry.c.job_id == job_id, gate_entry.c.kind.in_(list(kinds)), gate_entry.c.subject == subject
    return connection.execute(delete(gate_entry).where(*of_job)).rowcount


_HAS_ENTRY = select(
    exists().where(gate_entry.c.job_id == bindparam("job_id_"), gate_entry.c.kind == bindparam("kind_"))
)


def has_entry(connection: Connection, job_id: str, kind: Kind) -> bool:
    """Whether the snapshot has an entry of this kind of a job."""
    return bool(connection.execute(_HAS_ENTRY, {"job_id_": job_id, "kind_": kind}).scalar())


def retire_entries(connection: Connection, before: datetime, limit: int) -> int:
    """Remove up to so many old entries of jobs that ended before a moment: no broker has their messages any more.

    A batch is of no job. What is removed makes a new version; returns how many they were.
    """
    wanted = exists().where(job.c.id == gate_entry.c.job_id, job.c.ended_at.is_(None) | (job.c.ended_at >= before))
    key = gate_entry.c.job_id, gate_entry.c.kind, gate_entry.c.subject
    old = connection.execute(select(*key).where(gate_entry.c.made_at < before, ~wanted).limit(limit)).all()
    for job_id, kind, subject in old:
        remove_entries(connection, job_id, [kind], subject)
    if old:
        next_version(connection)
    return len(old)


def load_snapshot(connection: Connection) -> Snapshot:
    """Return what workers are to know now."""
    jobs: dict[str, Hold] = {}
    void: dict[str, float | None] = {}
    for row in connection.execute(select(gate_entry)):
        hold = jobs.get(row.job_id, Hold())
        match Kind(row.kind):
            case Kind.VOID:
                void[row.subject] = row.number
            case Kind.RUN:
                jobs[row.job_id] = Hold(held=hold.held, grace=hold.grace, run=int(row.number))
            case Kind.CANCELED:
                jobs[row.job_id] = Hold(held=Kind.CANCELED, grace=row.number, run=hold.run)
            case Kind.PAUSED:  # who is canceled is not paused
                jobs[row.job_id] = Hold(held=hold.held or Kind.PAUSED, grace=hold.grace, run=hold.run)
    return Snapshot(
        version=snapshot_version(connection),
        jobs=jobs,
        void=void,
        workers=live_workers(connection),
        blocked=blocked_workers(connection),
    )


_LIVE = select(worker.c.name, worker.c.queues).where(worker.c.online.is_(True), worker.c.lossy.is_(False))


def live_workers(connection: Connection) -> dict[str, list[str] | None]:
    """Return the workers with a gate that live, with their queues; None if one has not said."""
    rows = connection.execute(_LIVE.order_by(worker.c.name))
    return {row.name: None if row.queues is None else json.loads(row.queues) for row in rows}


def note_snapshot(
    connection: Connection, name: str, source: str, version: int, queues: Sequence[str] | None = None
) -> None:
    """Note the version that a worker's present process goes by, and its queues: others learn those by a new version."""
    ours = worker.c.name == name, worker.c.source == source
    connection.execute(update(worker).where(*ours).values(snapshot=version))
    told = None if queues is None else json.dumps(sorted(queues))
    if connection.execute(
        update(worker).where(*ours, worker.c.queues.is_distinct_from(told)).values(queues=told)
    ).rowcount:
        next_version(connection)


def unacknowledged(connection: Connection, version: int) -> list[str]:
    """Return the workers that live and have not said that they go by this version or a later one."""
    query = select(worker.c.name).where(
        worker.c.online.is_(True),
        worker.c.lossy.is_(False),
        worker.c.snapshot.is_(None) | (worker.c.snapshot < version),
    )
    return list(connection.execute(query.order_by(worker.c.name)).scalars())
