"""What the tracker reads and changes, within the one transaction of a turn.

Each statement works on many rows at once; none is issued per row. Rows come and go as `jobrunner.records`.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BindParameter,
    Connection,
    Select,
    bindparam,
    exists,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    update,
)

from jobrunner.records import Attempt, Block, Job, Letter, Task
from jobrunner.states import JobState, TaskState
from jobrunner.store.reading import CHUNK
from jobrunner.store.schema import COUNTERS, Moment, attempt, block, job, message, task, worker

# Statements are built once, at import: building one costs more than running it.

_IDS: BindParameter[str] = bindparam("ids", expanding=True)
_NOW = bindparam("moment", type_=Moment)

_TASK = [task.c[name] for name in Task.__slots__]
_ATTEMPT = [attempt.c[name] for name in Attempt.__slots__]
_BLOCK = [block.c[name] for name in Block.__slots__]
_JOB = [job.c[name] for name in ("id", "name", "state", "reason", "note", "total", "started_at", "ended_at")]

_READY = (
    task.c.state == literal_column("'ready'"),  # a literal, for the partial index
    task.c.not_before.is_(None) | (task.c.not_before <= _NOW),
)


def _chunks(keys: Iterable[str]) -> Iterator[dict[str, list[str]]]:
    ordered = sorted(set(keys))
    for start in range(0, len(ordered), CHUNK):
        yield {"ids": ordered[start : start + CHUNK]}


def _rows(connection: Connection, statement: Select[Any], keys: Iterable[str]) -> Iterator[dict[str, Any]]:
    for chunk in _chunks(keys):
        for row in connection.execute(statement, chunk):
            yield row._asdict()


def _task(values: dict[str, Any]) -> Task:
    values["state"] = TaskState(values["state"])
    return Task(**values)


def _values(one: Attempt) -> dict[str, Any]:
    return {name: getattr(one, name) for name in Attempt.__slots__}


# ---- what there is to do -----------------------------------------------------------------------------------

_WORK_WAITING = select(or_(exists().where(job.c.applied_at.is_(None)), exists().where(*_READY)))


def work_waiting(connection: Connection, now: datetime) -> bool:
    """Whether a turn would find anything besides events: a new job, or a task that may be sent."""
    return bool(connection.execute(_WORK_WAITING, {"moment": now}).scalar())


_NEW_JOBS = select(job.c.id).where(job.c.applied_at.is_(None)).order_by(job.c.id).limit(bindparam("number"))


def new_jobs(connection: Connection, limit: int) -> list[str]:
    """Return ids of submitted jobs that no turn has taken up yet, found by a flag and never by a cursor."""
    return list(connection.execute(_NEW_JOBS, {"number": limit}).scalars())


_MARK_APPLIED = update(job).where(job.c.id.in_(_IDS)).values(applied_at=_NOW)


def mark_applied(connection: Connection, job_ids: Collection[str], now: datetime) -> None:
    """Note that these jobs have been taken up."""
    for chunk in _chunks(job_ids):
        connection.execute(_MARK_APPLIED, {**chunk, "moment": now})


# ---- tasks and attempts ------------------------------------------------------------------------------------

_TASKS = select(task.c.celery_id.label("told"), *_TASK).where(task.c.celery_id.in_(_IDS))
_TASKS_OF_FIRST = select(task.c.id.label("told"), *_TASK).where(task.c.id.in_(_IDS))
_TASKS_OF_LATER = (
    select(attempt.c.celery_id.label("told"), *_TASK)
    .join_from(attempt, task, task.c.id == attempt.c.task_id)
    .where(attempt.c.celery_id.in_(_IDS), attempt.c.delivery > literal_column("1"))
)


def tasks_by_celery_id(connection: Connection, celery_ids: Collection[str]) -> dict[str, Task]:
    """Return the tasks that events speak of, by the Celery id they use, of the present delivery or an earlier one."""
    found: dict[str, Task] = {}
    for statement in (_TASKS, _TASKS_OF_FIRST, _TASKS_OF_LATER):
        missing = [one for one in celery_ids if one not in found]
        for values in _rows(connection, statement, missing):
            celery_id = values.pop("told")
            found[celery_id] = _task(values)
    return found


_ATTEMPTS = select(*_ATTEMPT).where(attempt.c.task_id.in_(_IDS))


def attempts_of(connection: Connection, task_ids: Collection[str]) -> dict[tuple[str, int, int], Attempt]:
    """Return all attempts of these tasks by (task, delivery, retries)."""
    attempts = (Attempt(**values) for values in _rows(connection, _ATTEMPTS, task_ids))
    return {(one.task_id, one.delivery, one.retries): one for one in attempts}


def insert_attempts(connection: Connection, attempts: Sequence[Attempt]) -> None:
    """Write attempts that had no row yet."""
    if attempts:
        connection.execute(insert(attempt), [_values(one) for one in attempts])


_ATTEMPT_KEY = ("task_id", "delivery", "retries")
_UPDATE_ATTEMPT = (
    update(attempt)
    .where(*(attempt.c[name] == bindparam(f"key_{name}") for name in _ATTEMPT_KEY))
    .values({column: bindparam(column.name) for column in attempt.columns if column.name not in _ATTEMPT_KEY})
)


def update_attempts(connection: Connection, attempts: Sequence[Attempt]) -> None:
    """Write attempts that changed."""
    rows = []
    for one in attempts:
        row = _values(one)
        rows.append(row | {f"key_{name}": row.pop(name) for name in _ATTEMPT_KEY})
    if rows:
        connection.execute(_UPDATE_ATTEMPT, rows)


_TASK_CHANGES = ("state", "note", "delivery", "celery_id", "first_retries", "sent_at", "started_at", "ended_at")
_UPDATE_TASK = (
    update(task)
    .where(task.c.id == bindparam("row_id"))
    .values({task.c[name]: bindparam(name) for name in _TASK_CHANGES})
)


def update_tasks(connection: Connection, tasks: Collection[Task]) -> None:
    """Write tasks that changed."""
    rows = [{"row_id": one.id} | {name: getattr(one, name) for name in _TASK_CHANGES} for one in tasks]
    if rows:
        connection.execute(_UPDATE_TASK, rows)


_MARK_SENT = (
    update(task)
    .where(task.c.id == bindparam("row_id"), task.c.delivery == bindparam("sent_delivery"), task.c.sent_at.is_(None))
    .values(sent_at=bindparam("moment"))
)


def mark_sent(connection: Connection, deliveries: Sequence[tuple[str, int]], now: datetime) -> None:
    """Take (task, delivery) out of the outbox: the broker has its message."""
    if deliveries:
        connection.execute(_MARK_SENT, [{"row_id": id_, "sent_delivery": n, "moment": now} for id_, n in deliveries])


# ---- the plan ----------------------------------------------------------------------------------------------


_here = select(*_BLOCK).where(block.c.id.in_(_IDS)).cte("upward", recursive=True)
_UPWARD = select(_here.union(select(*_BLOCK).join(_here, block.c.id == _here.c.parent_id)))


def blocks_upward(connection: Connection, block_ids: Collection[str]) -> dict[str, Block]:
    """Return these blocks and all blocks around them."""
    return {values["id"]: Block(**values) for values in _rows(connection, _UPWARD, block_ids)}


_UPDATE_BLOCK = update(block).where(block.c.id == bindparam("row_id")).values(remaining=bindparam("left"))


def update_blocks(connection: Connection, blocks: Collection[Block]) -> None:
    """Write how many children of each block have not ended well yet."""
    if blocks:
        connection.execute(_UPDATE_BLOCK, [{"row_id": one.id, "left": one.remaining} for one in blocks])


_PLACE = task.c.opens_block == bindparam("block_id_"), task.c.opens_at == bindparam("position_")
_OPEN = update(task).where(*_PLACE, task.c.state == TaskState.PENDING).values(state=TaskState.READY, note=None)
_DELAYED = select(task.c.id, task.c.countdown).where(
    *_PLACE, task.c.state == TaskState.READY, task.c.countdown.is_not(None), task.c.not_before.is_(None)
)
_DELAY = update(task).where(task.c.id == bindparam("row_id")).values(not_before=bindparam("moment"))


def open_place(connection: Connection, block_id: str, position: int, now: datetime) -> int:
    """Make the tasks that wait for this place ready, and return how many: one statement, however they are nested."""
    place = {"block_id_": block_id, "position_": position}
    number = connection.execute(_OPEN, place).rowcount
    delayed = connection.execute(_DELAYED, place).all()
    if delayed:
        moments = [{"row_id": row.id, "moment": now + timedelta(seconds=row.countdown)} for row in delayed]
        connection.execute(_DELAY, moments)
    return number


def cancel_pending(connection: Connection, job_id: str, note: str, now: datetime) -> int:
    """End the tasks that can never run any more, and return how many."""
    pending = task.c.job_id == job_id, task.c.state == TaskState.PENDING
    return connection.execute(
        update(task).where(*pending).values(state=TaskState.CANCELED, note=note, ended_at=now)
    ).rowcount


def failed_task(connection: Connection, job_id: str) -> tuple[str, str, str | None] | None:
    """Return id, name and exception of the first task of a job that failed, in order of arrival."""
    query = (
        select(task.c.id, task.c.name, attempt.c.exception)
        .join_from(
            task,
            attempt,
            (attempt.c.task_id == task.c.id)
            & (attempt.c.delivery == task.c.delivery)
            & (attempt.c.outcome == "failed"),
            isouter=True,
        )
        .where(task.c.job_id == job_id, task.c.state == TaskState.FAILED)
        .order_by(task.c.arrival)
    )
    row = connection.execute(query).first()
    return row and (row[0], row[1], row[2])


# ---- jobs --------------------------------------------------------------------------------------------------


_JOBS = select(*_JOB, *(job.c[name] for name in COUNTERS.values())).where(job.c.id.in_(_IDS))


def jobs_by_id(connection: Connection, job_ids: Collection[str]) -> dict[str, Job]:
    """Return these jobs with their counters."""
    found: dict[str, Job] = {}
    for values in _rows(connection, _JOBS, job_ids):
        counts = {state: values.pop(column) for state, column in COUNTERS.items()}
        values["state"] = JobState(values["state"])
        found[values["id"]] = Job(**values, counts=counts)
    return found


_UPDATE_JOB = (
    update(job)
    .where(job.c.id == bindparam("row_id"))
    .values(
        {job.c[name]: bindparam(name) for name in ("state", "reason", "note", "started_at", "ended_at")}
        | {job.c[name]: bindparam(name) for name in COUNTERS.values()}
    )
)


def update_jobs(connection: Connection, jobs: Collection[Job]) -> None:
    """Write jobs that changed."""
    rows = [
        {
            "row_id": one.id,
            "state": one.state,
            "reason": one.reason,
            "note": one.note,
            "started_at": one.started_at,
            "ended_at": one.ended_at,
        }
        | {column: one.counts[state] for state, column in COUNTERS.items()}
        for one in jobs
    ]
    if rows:
        connection.execute(_UPDATE_JOB, rows)


# ---- dispatch ----------------------------------------------------------------------------------------------

_taken = task.alias("taken")
_LETTERS = (
    select(
        message,
        task.c.job_id,
        task.c.name,
        job.c.run,
        (task.c.delivery + 1).label("delivery"),
        task.c.first_retries,
        task.c.takes_task,
        task.c.takes_group,
        _taken.c.delivery.label("taken_delivery"),
    )
    .join_from(task, message, message.c.task_id == task.c.id)
    .join(job, job.c.id == task.c.job_id)
    .join(_taken, _taken.c.id == task.c.takes_task, isouter=True)
    .order_by(task.c.id)
)


_TAKE_READY = _LETTERS.where(*_READY).limit(bindparam("number"))


def take_ready(connection: Connection, now: datetime, limit: int) -> list[Letter]:
    """Return the messages of up to `limit` tasks that may be sent, oldest first."""
    rows = connection.execute(_TAKE_READY, {"moment": now, "number": limit})
    return [Letter(**row._asdict()) for row in rows]


_QUEUE = (
    update(task)
    .where(task.c.id == bindparam("row_id"))
    .values(
        state=TaskState.QUEUED,
        note=None,
        delivery=bindparam("number"),
        celery_id=bindparam("delivery_id"),
        queued_at=bindparam("moment"),
        sent_at=None,
    )
)


def queue_tasks(connection: Connection, deliveries: Sequence[tuple[str, int, str]], now: datetime) -> None:
    """Note the next delivery of tasks: (task, delivery, Celery id). They are in the outbox until marked as sent."""
    if deliveries:
        rows = [
            {"row_id": id_, "number": n, "delivery_id": celery_id, "moment": now} for id_, n, celery_id in deliveries
        ]
        connection.execute(_QUEUE, rows)


# ---- recovery ----------------------------------------------------------------------------------------------


def unsent_tasks(connection: Connection) -> list[Task]:
    """Return tasks left in the outbox by a tracker that died, or whose broker did, between commit and note."""
    query = (
        select(*_TASK).where(task.c.state == literal_column("'queued'"), task.c.sent_at.is_(None)).order_by(task.c.id)
    )
    return [_task(row._asdict()) for row in connection.execute(query)]


def unheard_tasks(connection: Connection, sent_before: datetime) -> list[tuple[str, Task]]:
    """Return (queue, task) of what was sent before a moment and is in no worker's hands, as far as they have said."""
    online = select(worker.c.name).where(worker.c.online.is_(True))
    held = exists().where(
        attempt.c.task_id == task.c.id,
        attempt.c.delivery == task.c.delivery,
        attempt.c.outcome.is_(None),
        attempt.c.started_at.is_not(None) | (attempt.c.received_at.is_not(None) & attempt.c.worker.in_(online)),
    )
    query = (
        select(task.c.queue, *_TASK)
        .where(task.c.state.in_((TaskState.QUEUED, TaskState.SOFT_FAILED)), task.c.sent_at < sent_before, ~held)
        .order_by(task.c.id)
    )
    rows = [row._asdict() for row in connection.execute(query)]
    return [(row.pop("queue"), _task(row)) for row in rows]


def tasks_held_by(connection: Connection, worker_name: str, except_source: str | None) -> list[tuple[Task, Attempt]]:
    """Return tasks whose present attempt is open on a worker, apart from those of one living process of that name."""
    query = (
        select(*_ATTEMPT)
        .join_from(attempt, task, (task.c.id == attempt.c.task_id) & (task.c.delivery == attempt.c.delivery))
        .where(
            attempt.c.worker == worker_name,
            attempt.c.outcome.is_(None),
            func.coalesce(attempt.c.source, "") != literal(except_source or ""),
            task.c.state.in_((TaskState.QUEUED, TaskState.ACTIVE, TaskState.SOFT_FAILED)),
        )
        .order_by(attempt.c.task_id)
    )
    open_attempts = [Attempt(**row._asdict()) for row in connection.execute(query)]
    tasks = {one.id: one for one in tasks_by_celery_id(connection, {one.celery_id for one in open_attempts}).values()}
    return [(tasks[one.task_id], one) for one in open_attempts]


# ---- workers -----------------------------------------------------------------------------------------------


def worker_sources(connection: Connection) -> dict[str, tuple[str, bool]]:
    """Return each known worker's process and whether it is online."""
    return {row.name: (row.source, row.online) for row in connection.execute(select(worker))}


def save_worker(
    connection: Connection, name: str, source: str, pid: int | None, *, online: bool, now: datetime
) -> None:
    """Note that a worker came, went, or was replaced by another process of the same name."""
    values = {"source": source, "pid": pid, "online": online, "seen_at": now}
    known = update(worker).where(worker.c.name == name)
    same = connection.execute(known.where(worker.c.source == source).values(values))
    if not same.rowcount and not connection.execute(known.values(values | {"online_at": now})).rowcount:
        connection.execute(insert(worker).values(values | {"name": name, "online_at": now}))
