"""The outbox: what may be sent, what is about to be, and what was."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, bindparam, exists, literal_column, or_, select, text

from jobrunner.records import Letter, Task
from jobrunner.states import TaskState
from jobrunner.store.bulk import Update
from jobrunner.store.schema import job, message, orders, task
from jobrunner.store.tracking.held import FORWARDABLE, REST
from jobrunner.store.tracking.rows import NOW, PLANNED, TASK, as_task

_READY = (
    text("task.state = 'ready' AND NOT task.held"),  # as it stands in the partial index
    task.c.not_before.is_(None) | (task.c.not_before <= NOW),
)


_WORK_WAITING = select(
    or_(
        exists().where(job.c.applied_at.is_(None)),
        exists().where(*_READY),
        exists().where(*FORWARDABLE),
        exists().where(orders.c.applied_at.is_(None)),
        exists(select(job.c.id).where(text("job.chore"))),  # as it stands in the partial index
    )
)


def work_waiting(connection: Connection, now: datetime) -> bool:
    """Whether a turn would find anything besides events: a new job or order, a task or a message that may be sent."""
    return bool(connection.execute(_WORK_WAITING, {"moment": now, "rested": now - REST}).scalar())


_LETTERS = (
    select(
        message,
        task.c.job_id,
        task.c.queue,
        job.c.run,
        job.c.held,
        task.c.ordered,
        task.c.handed_back,
        task.c.only_items,
        (task.c.delivery + 1).label("delivery"),
        task.c.first_retries,
        task.c.takes_task,
        task.c.takes_group,
        # One that takes only some items has what it works on, whatever lies before it.
        (task.c.skip_empty & task.c.only_items.is_(None)).label("skip_empty"),
    )
    .join_from(task, message, message.c.task_id == task.c.id)
    .join(job, job.c.id == task.c.job_id)
    .where(*_READY)
    .limit(bindparam("number"))
)
_TAKE_READY = _LETTERS.order_by(task.c.id)
_BY_PRIORITY = _LETTERS.order_by(job.c.priority.desc(), task.c.id)
_PRIORITIES = select(exists().where(job.c.ended_at.is_(None), job.c.priority != literal_column("0")))


def take_ready(connection: Connection, now: datetime, limit: int) -> list[Letter]:
    """Return the messages of up to `limit` tasks that are ready: by their jobs' priority, then the oldest first."""
    ordered = connection.execute(_PRIORITIES).scalar()  # rarely: it has all that is ready sorted
    rows = connection.execute(_BY_PRIORITY if ordered else _TAKE_READY, {"moment": now, "number": limit})
    return [Letter(**row._asdict()) for row in rows]


_QUEUE = Update(task, ["id"], ["state", "delivery", "celery_id", "queued_at", "sent_at"])


def queue_tasks(connection: Connection, deliveries: Sequence[tuple[str, int, str]], now: datetime) -> None:
    """Note the next delivery of tasks: (task, delivery, Celery id). They are in the outbox until marked as sent."""
    fixed = {"state": TaskState.QUEUED, "queued_at": now, "sent_at": None}
    _QUEUE.run(
        connection, [{"id": id_, "delivery": n, "celery_id": celery_id, **fixed} for id_, n, celery_id in deliveries]
    )


_MARK_SENT = Update(task, ["id", "delivery"], ["sent_at"], task.c.sent_at.is_(None))


def mark_sent(connection: Connection, deliveries: Sequence[tuple[str, int]], now: datetime) -> None:
    """Take (task, delivery) out of the outbox: the broker has its message."""
    _MARK_SENT.run(connection, [{"id": id_, "delivery": n, "sent_at": now} for id_, n in deliveries])


_UNSENT = task.c.state == literal_column("'queued'"), task.c.sent_at.is_(None), PLANNED


def unsent_batches(connection: Connection) -> list[datetime]:
    """Return when what is in the outbox was put there."""
    query = select(task.c.queued_at).distinct().where(*_UNSENT)
    return sorted(connection.execute(query).scalars())


def unsent_tasks(connection: Connection, until: datetime) -> list[Task]:
    """Return tasks left in the outbox by a tracker that died, or whose broker did, between commit and note.

    They are those that were put there by a moment: of what was since, the present leader knows.
    """
    query = select(*TASK).where(*_UNSENT, task.c.queued_at <= until).order_by(task.c.id)
    return [as_task(row._asdict()) for row in connection.execute(query)]
