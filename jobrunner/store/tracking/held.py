"""Messages that gates have handed back whole, until they are forwarded (C3)."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, delete, exists, select, update

from jobrunner.records import HeldMessage, Standing
from jobrunner.states import TaskState
from jobrunner.store.bulk import Update, insert_rows
from jobrunner.store.schema import Moment, attempt, held_message, job, task
from jobrunner.store.tracking.rows import IsOneOf, rows_of

_NAMES = HeldMessage.__slots__
#: How long a message rests before it is forwarded: workers may not know yet that they may take it.
REST = timedelta(seconds=1)

_ID = IsOneOf(held_message.c.id)

_ENDED = [int(one) for one in (Standing.RETRIED, Standing.REVOKED, Standing.FAILED, Standing.SUCCEEDED)]
#: Some process has the message, or has been further with it, or with a later try of the task.
_elsewhere = exists().where(
    attempt.c.task_id == held_message.c.task_id,
    attempt.c.celery_id == held_message.c.celery_id,
    (attempt.c.retries > held_message.c.retries)
    | ((attempt.c.retries == held_message.c.retries) & (attempt.c.standing > int(Standing.DROPPED))),
)
_of_present = exists().where(
    task.c.id == held_message.c.task_id,
    task.c.celery_id == held_message.c.celery_id,
    task.c.state.in_((TaskState.QUEUED, TaskState.SOFT_FAILED)),
)
_of_running_job = exists().where(job.c.id == held_message.c.job_id, job.c.held.is_(False), job.c.ended_at.is_(None))
#: What is to be forwarded, having been held since before `rested`.
FORWARDABLE = (
    held_message.c.forwarded_at.is_(None),
    held_message.c.held_at <= bindparam("rested", type_=Moment),
    _of_running_job,
    _of_present,
    ~_elsewhere,
)

_KNOWN = select(held_message.c.id).where(_ID)
_HOLD_AGAIN = Update(held_message, ["id"], ["headers", "held_at", "forwarded_at"])


def hold_messages(
    connection: Connection, messages: Sequence[HeldMessage], now: datetime, rests: Mapping[str, timedelta]
) -> None:
    """Write messages to forward. One that was forwarded, and comes back, is held again, as it is now.

    `rests` tells of those that rest for longer than others: by id, how long. They count as held so much later.
    """
    rows = [
        {name: getattr(one, name) for name in _NAMES}
        | {"held_at": now + max(rests.get(one.id, REST) - REST, timedelta()), "forwarded_at": None}
        for one in messages
    ]
    known = {values["id"] for values in rows_of(connection, _KNOWN, [one.id for one in messages])}
    _HOLD_AGAIN.run(connection, [row for row in rows if row["id"] in known])
    insert_rows(connection, held_message, [row for row in rows if row["id"] not in known])


def held_ids(connection: Connection, task_ids: Collection[str]) -> set[tuple[str, int]]:
    """Return of which tries of these tasks there is the message: (Celery id, retries)."""
    query = select(held_message.c.celery_id, held_message.c.retries).where(IsOneOf(held_message.c.task_id))
    return {(one["celery_id"], one["retries"]) for one in rows_of(connection, query, task_ids)}


def has_held_messages(connection: Connection) -> bool:
    """Whether there are any."""
    return connection.execute(select(held_message.c.id).limit(1)).first() is not None


_TAKE = (
    select(*(held_message.c[name] for name in _NAMES))
    .where(*FORWARDABLE)
    .order_by(held_message.c.held_at, held_message.c.id)
    .limit(bindparam("number"))
)
_FORWARDED = Update(held_message, ["id"], ["forwarded_at"])


def take_held(connection: Connection, now: datetime, limit: int) -> list[HeldMessage]:
    """Return up to `limit` messages that may run now, and note that they are about to be forwarded."""
    rows = connection.execute(_TAKE, {"rested": now - REST, "number": limit})
    taken = [HeldMessage(**row._asdict()) for row in rows]
    _FORWARDED.run(connection, [{"id": one.id, "forwarded_at": now} for one in taken])
    return taken


def forget_held(connection: Connection, ids: Collection[str]) -> None:
    """Remove messages that the broker has; one that has come back since is held again."""
    if ids:
        connection.execute(
            delete(held_message).where(_ID, held_message.c.forwarded_at.is_not(None)), {"ids": list(ids)}
        )


def hold_in_doubt(connection: Connection) -> int:
    """Hold again what a tracker, or its broker, may not have forwarded; what a worker has spoken of since stays."""
    doubtful = held_message.c.forwarded_at.is_not(None)
    return connection.execute(update(held_message).where(doubtful).values(forwarded_at=None)).rowcount


def drop_obsolete(connection: Connection) -> int:
    """Remove messages that nobody will ever need: their task was sent anew, is further or has ended.

    Whether their job has ended says nothing: one that turns up makes it go on, as soon as the turn is settled.
    """
    needed = exists().where(
        task.c.id == held_message.c.task_id,
        task.c.celery_id == held_message.c.celery_id,
        task.c.state.in_((TaskState.QUEUED, TaskState.SOFT_FAILED, TaskState.ACTIVE)),
    )
    further = exists().where(
        attempt.c.task_id == held_message.c.task_id,
        attempt.c.celery_id == held_message.c.celery_id,
        (attempt.c.retries > held_message.c.retries)
        | ((attempt.c.retries == held_message.c.retries) & attempt.c.standing.in_(_ENDED)),
    )
    return connection.execute(delete(held_message).where(~needed | further)).rowcount
