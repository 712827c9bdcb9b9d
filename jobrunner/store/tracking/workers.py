"""Workers, and what is in their hands."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, exists, insert, literal_column, or_, select, update

from jobrunner.records import Attempt, Standing, Task
from jobrunner.states import TaskState
from jobrunner.store.in_hand import IN_HAND, OPEN, PASSED_ON
from jobrunner.store.schema import attempt, held_message, job, task, worker
from jobrunner.store.tracking.rows import ATTEMPT, NOW, PLANNED, TASK, IsOneOf, as_task
from jobrunner.store.tracking.snapshot import next_version
from jobrunner.store.tracking.tasks import tasks_by_celery_id


def workers_to_hear(connection: Connection) -> dict[str, str]:
    """Return the workers that are online, or said goodbye with tasks in their hands, each with its process."""
    holds = [
        exists().where(
            attempt.c.worker == worker.c.name,
            which,
            task.c.id == attempt.c.task_id,
            task.c.delivery == attempt.c.delivery,
            task.c.state.in_(IN_HAND),
        )
        for which in (OPEN, PASSED_ON)
    ]
    known = select(worker.c.name, worker.c.source).where(
        worker.c.lossy.is_(False), worker.c.online.is_(True) | ((worker.c.source != "") & or_(*holds))
    )
    return {row.name: row.source for row in connection.execute(known)}


def lossy_workers(connection: Connection) -> list[str]:
    """Return the workers without jobrunner that are online."""
    query = select(worker.c.name).where(worker.c.lossy.is_(True), worker.c.online.is_(True))
    return list(connection.execute(query).scalars())


def save_worker(
    connection: Connection,
    name: str,
    source: str,
    pid: int | None,
    *,
    online: bool,
    now: datetime,
    lossy: bool = False,
) -> None:
    """Note that a worker came, went, or was replaced by another process of the same name; gates must know who lives."""
    lived = connection.execute(select(worker.c.online).where(worker.c.name == name)).scalar()
    if bool(lived) is not online and not lossy:
        next_version(connection)
    values = {"source": source, "pid": pid, "online": online, "lossy": lossy, "seen_at": now}
    known = update(worker).where(worker.c.name == name)
    same = connection.execute(known.where(worker.c.source == source).values(values))
    if (
        not same.rowcount
        and not connection.execute(known.values(values | {"online_at": now, "snapshot": None, "queues": None})).rowcount
    ):
        connection.execute(insert(worker).values(values | {"name": name, "online_at": now}))


def lose_worker(connection: Connection, name: str) -> None:
    """Note that a worker is gone without a word: no process bears the name. When it was heard last stays.

    One that has said goodbye stays as it is.
    """
    heard = update(worker).where(worker.c.name == name, worker.c.online.is_(True))
    if connection.execute(heard.values(source="", online=False)).rowcount:
        next_version(connection)


_HEARD = update(worker).where(IsOneOf(worker.c.name), worker.c.online.is_(True)).values(seen_at=NOW)


def note_heard(connection: Connection, names: Collection[str], now: datetime) -> None:
    """Note that these workers live."""
    if names:
        connection.execute(_HEARD, {"ids": list(names), "moment": now})


def unheard_queues(connection: Connection, sent_before: datetime) -> list[str]:
    """Return the queues of what `unheard_tasks` would find: few, where the tasks may be a great many."""
    return list(connection.execute(select(task.c.queue).distinct().where(*_unheard(sent_before))).scalars())


def unheard_tasks(connection: Connection, sent_before: datetime, queues: Collection[str]) -> list[Task]:
    """Return what was sent to these queues before a moment and is in no worker's hands, as far as they have said."""
    query = select(*TASK).where(task.c.queue.in_(list(queues)), *_unheard(sent_before)).order_by(task.c.id)
    return [as_task(row._asdict()) for row in connection.execute(query)]


def _unheard(sent_before: datetime) -> tuple[ColumnElement[bool], ...]:
    """What was sent before a moment and is in no worker's hands.

    Of adopted tasks only those of which no worker has ever said anything: the broker keeps the others.
    """
    online = select(worker.c.name).where(worker.c.online.is_(True))
    held = exists().where(
        attempt.c.task_id == task.c.id,
        attempt.c.delivery == task.c.delivery,
        OPEN,
        attempt.c.started_at.is_not(None) | (attempt.c.received_at.is_not(None) & attempt.c.worker.in_(online)),
    )
    of_a_plan = exists().where(job.c.id == task.c.job_id, job.c.observed.is_(False))
    heard = exists().where(attempt.c.task_id == task.c.id)
    # By job, for the index: the tracker has the message itself.
    ours = exists().where(held_message.c.job_id == task.c.job_id, held_message.c.task_id == task.c.id)
    return (
        task.c.state.in_((TaskState.QUEUED, TaskState.SOFT_FAILED)),
        task.c.sent_at < sent_before,
        ~held,
        ~ours,
        PLANNED | (of_a_plan & ~heard & (task.c.queue != literal_column("''"))),
    )


def tasks_held_by(connection: Connection, worker_name: str, except_source: str | None) -> list[tuple[Task, Attempt]]:
    """Return tasks whose present attempt is open on a worker, apart from those of one living process.

    Also those that another process has received since: if its gate refuses them, the worker has them again. Left out
    are those of jobs that are only observed: nothing is decided about them.
    """
    query = (
        select(*ATTEMPT)
        .join_from(attempt, task, (task.c.id == attempt.c.task_id) & (task.c.delivery == attempt.c.delivery))
        .join(job, job.c.id == task.c.job_id)
        .where(
            attempt.c.worker == worker_name,
            attempt.c.process != (except_source or ""),
            task.c.state.in_(IN_HAND),
            job.c.observed.is_(False),
        )
        .order_by(attempt.c.task_id, attempt.c.retries)
    )
    # One by one: each has an index of its own.
    rows = [row for which in (OPEN, PASSED_ON) for row in connection.execute(query.where(which))]
    attempts = [Attempt(**row._asdict()) for row in rows]
    tasks = {one.id: one for one in tasks_by_celery_id(connection, {one.celery_id for one in attempts}).values()}
    return [(tasks[one.task_id], one) for one in attempts]


_WATCHED = (
    select(*ATTEMPT, task.c.untouched_timeout)
    .join_from(attempt, task, (task.c.id == attempt.c.task_id) & (task.c.delivery == attempt.c.delivery))
    .where(
        OPEN,
        attempt.c.standing == literal_column(str(int(Standing.STARTED))),
        task.c.state == literal_column(f"'{TaskState.ACTIVE}'"),
        task.c.untouched_timeout.is_not(None),
    )
)


def watched_attempts(connection: Connection) -> list[tuple[Attempt, float]]:
    """Return what runs of tasks that may not be silent for longer than so many seconds."""
    rows = [row._asdict() for row in connection.execute(_WATCHED)]
    return [(Attempt(**values), seconds) for values in rows for seconds in [values.pop("untouched_timeout")]]
