"""A backlog: what workers have told of a job while no tracker read it; and how to see that all of it has arrived.

The history is that of `benchmarks.told`, told by several worker processes, with failures and retries among it.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain, zip_longest
from typing import Any

from celery import group
from sqlalchemy import delete, func, select

from benchmarks.told import EventFields, Teller, batches_of, events_of
from jobrunner.event_log import WrittenBatch, open_writer
from jobrunner.handle import Job
from jobrunner.store import leases, tracking
from jobrunner.store.bulk import insert_rows
from jobrunner.store.database import Database
from jobrunner.store.schema import attempt, metadata, task
from tests.house import House
from tests.waiting import until
from tracker.sending import take_ready
from tracker.turn import Turn

#: The workers that tell, each of its own tasks.
TELLERS = [Teller(worker=f"w{number}@house", source=f"process-{number}", pid=100 + number) for number in range(4)]
#: Of so many tasks one has failed, and another one was retried once.
_OFTEN = 20
#: Tables that say how far the log has been read, by whom, and through which states jobs went, which depends on what is
#: read at once: not what was read.
_PLACE = {"lease", "log_position", "history"}
#: Columns that say when a tracker has come to know something.
_WHEN_READ = {"job": {"started_at", "ended_at"}, "worker": {"online_at", "seen_at"}}

#: What a whole history says of an attempt.
_ENDS = ("runtime", "result", "exception", "traceback")
_TOLD = ("worker", "process", "pid", "received_at", "started_at", "ended_at", "outcome", "last_event", *_ENDS)

_Known = dict[str, Any]
Rows = dict[str, list[_Known]]


# ---- the job and its events ----------------------------------------------------------------------------


def sent_job(house: House, tasks: int) -> Job:
    """Submit tasks side by side, and note all of them as sent; no message goes out, since the history is told here."""
    add = house.proj.add
    job = house.jobs.submit(group([add.s(number, 1) for number in range(tasks)]))
    while _send(house.jobs.database):
        pass
    return job


def _send(database: Database) -> int:
    now = datetime.now(UTC)
    with database.write() as connection:
        turn = Turn(connection, now)
        turn.take_up()
        outgoing = take_ready(turn)
        turn.settle()
        tracking.mark_sent(connection, [(one.letter.task_id, one.letter.delivery) for one in outgoing], now)
    return len(outgoing)


def history(job: Job) -> list[list[EventFields]]:
    """Return the events of each of `TELLERS`, in its order."""
    ids = [one.id for one in job.tasks()]
    told = []
    for first, teller in enumerate(TELLERS):
        own = ids[first :: len(TELLERS)]
        fates = {task_id: number % _OFTEN for number, task_id in enumerate(own)}
        told.append(list(_with_failures(events_of(job.id, own, teller), fates)))
    return told


def _with_failures(told: Iterable[EventFields], fates: dict[str, int]) -> Iterator[EventFields]:
    for event in told:
        fate = fates[event["uuid"]] if event["type"] == "task-succeeded" else None
        if fate not in {0, 1}:
            yield event
            continue
        failure = {"exception": "ValueError('no')", "traceback": "Traceback …"}
        ended = {name: value for name, value in event.items() if name not in {"result", "runtime"}} | failure
        yield ended | {"type": "task-failed" if fate else "task-retried"}
        if not fate:
            for seconds, type_ in enumerate(("task-received", "task-started", "task-succeeded"), start=1):
                yield event | {"type": type_, "retries": 1, "timestamp": event["timestamp"] + seconds}


def entries(told: Sequence[Sequence[EventFields]], length: int = 200) -> list[WrittenBatch]:
    """Return the batches of all workers, of so many events, in turn."""
    each = [batches_of(events, teller, length=length) for events, teller in zip(told, TELLERS, strict=True)]
    return [batch for batch in chain.from_iterable(zip_longest(*each)) if batch is not None]


def write(house: House, batches: Iterable[WrittenBatch]) -> None:
    """Append batches to the event log as a worker's flusher does."""
    with house.app.connection_for_write() as connection:
        writer = open_writer(connection)
        for batch in batches:
            writer.append(batch)


def until_read(house: House, *, timeout: float) -> None:
    """Wait until the tracker has committed all that the event log held at the time of the call."""
    asked = time.monotonic()

    def read_since() -> bool:
        with house.jobs.database.read() as connection:
            status = leases.tracker_status(connection)
        return status is not None and (status.behind_seconds or float("inf")) < time.monotonic() - asked

    until(read_since, timeout=timeout, what="the event log to be read to its end")


# ---- what has arrived ----------------------------------------------------------------------------------


def told_attempts(told: Sequence[Sequence[EventFields]]) -> dict[tuple[str, int], _Known]:
    """Return what a whole history says of each attempt, by task and Celery's number of retries."""
    found: dict[tuple[str, int], _Known] = {}
    for teller, events in zip(TELLERS, told, strict=True):
        for event in events:
            holder = {"worker": teller.worker, "process": teller.source, "pid": teller.pid}
            known = found.setdefault((event["uuid"], event["retries"]), holder)
            known |= _said_by(event)
    return found


def _said_by(event: EventFields) -> _Known:
    at, type_ = datetime.fromtimestamp(event["timestamp"], UTC), event["type"].removeprefix("task-")
    if type_ in {"received", "started"}:
        return {f"{type_}_at": at}
    ends = {name: event.get(name) for name in _ENDS}
    return {"ended_at": at, "outcome": type_, "last_event": event["type"]} | ends


def known_attempts(house: House, job: Job) -> dict[tuple[str, int], _Known]:
    """Return the same of the attempts that the database has."""
    query = select(attempt).join(task, task.c.id == attempt.c.task_id).where(task.c.job_id == job.id)
    with house.jobs.database.read() as connection:
        found = connection.execute(query).all()
    assert {row.delivery for row in found} == {1}
    return {(row.task_id, row.retries): {name: getattr(row, name) for name in _TOLD} for row in found}


def ended(house: House) -> int:
    """Return how many attempts are known to have ended."""
    with house.jobs.database.read() as connection:
        return connection.execute(select(func.count()).where(attempt.c.ended_at.is_not(None))).scalar_one()


def rows(database: Database, *, without: dict[str, set[str]] = _WHEN_READ) -> Rows:
    """Return all rows but those of the place in the log, and all columns but those that say when it was read."""
    found = {}
    with database.read() as connection:
        for table in metadata.sorted_tables:
            if table.name not in _PLACE:
                columns = [column for column in table.columns if column.name not in without.get(table.name, ())]
                query = select(*columns).order_by(*table.primary_key)
                found[table.name] = [row._asdict() for row in connection.execute(query)]
    return found


def put_back(database: Database, before: Rows) -> None:
    """Make the rows what they were; the place in the log stays."""
    with database.write() as connection:
        for name, ones in before.items():
            connection.execute(delete(metadata.tables[name]))
            insert_rows(connection, metadata.tables[name], ones)


def differing(known: dict[Any, Any], expected: dict[Any, Any]) -> list[tuple[Any, Any, Any]]:
    """Return the first few keys under which two sides have different values: pytest would compare all for minutes."""
    keys = [key for key in known.keys() | expected.keys() if known.get(key) != expected.get(key)]
    return [(key, known.get(key), expected.get(key)) for key in keys[:3]]
