"""Orders, and the jobs that are not where their orders want them yet."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Executable, Row, bindparam, case, func, literal_column, select, text, update

from jobrunner.order_kinds import OrderKind
from jobrunner.order_records import Answer, Order
from jobrunner.records import Job, Standing, Task
from jobrunner.states import CancelReason, TaskState
from jobrunner.store.bulk import Update
from jobrunner.store.schema import attempt, job, orders, task, worker
from jobrunner.store.tracking.jobs import jobs_by_id
from jobrunner.store.tracking.rows import NOW, TASK, IsOneOf, as_task, rows_of
from jobrunner.store.tracking.upstream import FAILED_BEFORE, IN_VAIN

_ORDER = [orders.c[name] for name in Order.__slots__]
_NEW = select(*_ORDER).where(orders.c.applied_at.is_(None)).order_by(orders.c.id).limit(bindparam("number"))


def _order(values: dict[str, Any]) -> Order:
    values["kind"], values["arguments"] = OrderKind(values["kind"]), json.loads(values["arguments"])
    return Order(**values)


def new_orders(connection: Connection, limit: int) -> list[Order]:
    """Return orders that no turn has taken yet, in the order in which they were given."""
    return [_order(row._asdict()) for row in connection.execute(_NEW, {"number": limit})]


_TAKEN = update(orders).where(IsOneOf(orders.c.id)).values(applied_at=NOW)


def mark_orders(connection: Connection, order_ids: Collection[str], now: datetime) -> None:
    """Note that these orders have been taken."""
    connection.execute(_TAKEN, {"ids": list(order_ids), "moment": now})


_ANSWER = Update(orders, ["id"], ["answer", "answered_at"])


def answer_orders(connection: Connection, answers: Mapping[str, Answer], now: datetime) -> None:
    """Write what became of orders, for those who wait for it."""
    rows = [{"id": id_, "answer": json.dumps(asdict(one)), "answered_at": now} for id_, one in answers.items()]
    _ANSWER.run(connection, rows)


_OPEN = (
    select(*_ORDER)
    .where(orders.c.job_id == bindparam("job_id_"), orders.c.answered_at.is_(None), orders.c.applied_at.is_not(None))
    .order_by(orders.c.id)
)


def open_orders(connection: Connection, job_id: str) -> list[Order]:
    """Return the orders of a job that were taken and are not answered yet."""
    return [_order(row._asdict()) for row in connection.execute(_OPEN, {"job_id_": job_id})]


_CHORES = select(job.c.id).where(text("job.chore")).order_by(func.random()).limit(bindparam("number"))


def chore_jobs(connection: Connection, limit: int) -> list[Job]:
    """Return some jobs for which there is something left to do that was ordered."""
    found = list(connection.execute(_CHORES, {"number": limit}).scalars())
    return list(jobs_by_id(connection, found).values())


_ORDERED = ("intent", "held", "chore", "hold_version", "requeue", "run", "kept")
_SAVE = Update(job, ["id"], _ORDERED)


def save_orders(connection: Connection, jobs: Collection[Job]) -> None:
    """Write what orders have changed in jobs, apart from their states."""
    _SAVE.run(connection, [{"id": one.id} | {name: getattr(one, name) for name in _ORDERED} for one in jobs])


_BEGIN = update(job).where(IsOneOf(job.c.id)).values(chore=True)


def begin_chores(connection: Connection, job_ids: Collection[str]) -> None:
    """Note that something is left to do about these jobs."""
    if job_ids:
        connection.execute(_BEGIN, {"ids": list(job_ids)})


def end_chore(connection: Connection, job_id: str) -> None:
    """Note that nothing more is done for a job by itself."""
    connection.execute(update(job).where(job.c.id == job_id).values(chore=False))


def change_job(connection: Connection, job_id: str, changes: Mapping[str, object]) -> dict[str, str]:
    """Set the priority, annotation or labels of a job; return what was there, as text."""
    before = connection.execute(select(*(job.c[name] for name in changes)).where(job.c.id == job_id)).one()._asdict()
    connection.execute(update(job).where(job.c.id == job_id).values(**changes))
    return {name: str(value) for name, value in before.items()}


def labels_of(connection: Connection, job_id: str) -> dict[str, str]:
    """Return the labels of a job."""
    labels: dict[str, str] = json.loads(
        connection.execute(select(job.c.labels).where(job.c.id == job_id)).scalar() or "{}"
    )
    return labels


_RUNNING = (
    select(task.c.id)
    .join_from(attempt, task, task.c.id == attempt.c.task_id)
    .join(worker, (worker.c.name == attempt.c.worker) & (worker.c.source == attempt.c.process))
    .where(
        task.c.job_id == bindparam("job_id_"),
        attempt.c.standing == literal_column(str(int(Standing.STARTED))),
        (task.c.state == TaskState.ACTIVE) | task.c.ordered.is_not(None),
        worker.c.online.is_(True),
    )
    .limit(1)
)


def is_running(connection: Connection, job_id: str) -> bool:
    """Whether a living worker runs a task of a job; one that was ended by order counts."""
    return connection.execute(_RUNNING, {"job_id_": job_id}).first() is not None


_SOME = (
    select(task.c.id, task.c.state, task.c.discovers)
    .where(task.c.job_id == bindparam("job_id_"), task.c.state.in_(bindparam("states", expanding=True)))
    .limit(bindparam("number"))
)
#: To be skipped when its turn comes, which it has not: nobody has it, and it is to be skipped still when that comes.
_TO_BE_SKIPPED = (
    (task.c.ordered == TaskState.SKIPPED)
    & task.c.state.in_((TaskState.PENDING, TaskState.READY))
    & (task.c.delivery == task.c.earlier)
)
_CANCEL = (
    update(task)
    .where(IsOneOf(task.c.id))
    .values(
        state=TaskState.CANCELED,
        ordered=case((_TO_BE_SKIPPED, task.c.ordered), else_=TaskState.CANCELED),
        held=False,
        reason=CancelReason.ORDER,
        note=case((IN_VAIN, None), else_=task.c.note),
        ended_at=NOW,
    )
)


def cancel_some(
    connection: Connection, job_id: str, states: Sequence[TaskState], limit: int, now: datetime
) -> list[tuple[TaskState, bool]]:
    """Cancel up to `limit` tasks that are in these states, by order, and return what each was: (state, discovers)."""
    rows = connection.execute(_SOME, {"job_id_": job_id, "states": list(states), "number": limit}).all()
    return _cancel(connection, _CANCEL, rows, now)


_CANCEL_BY_RULE = (
    update(task)
    .where(IsOneOf(task.c.id))
    .values(
        state=TaskState.CANCELED,
        held=False,
        ended_at=NOW,
        # Messages of what had been sent may still be out; what waited in vain was not.
        ordered=case((IN_VAIN | _TO_BE_SKIPPED, task.c.ordered), else_=TaskState.CANCELED),
        reason=case((IN_VAIN, CancelReason.UPSTREAM), else_=CancelReason.RULE),
        note=case((IN_VAIN, FAILED_BEFORE), else_=task.c.note),
    )
)


def cancel_by_rule(
    connection: Connection, job_id: str, states: Sequence[TaskState], limit: int, now: datetime
) -> list[tuple[TaskState, bool]]:
    """Cancel up to `limit` tasks that are in these states because their job's failure rule is met; returns likewise."""
    rows = connection.execute(_SOME, {"job_id_": job_id, "states": list(states), "number": limit}).all()
    return _cancel(connection, _CANCEL_BY_RULE, rows, now)


def _cancel(
    connection: Connection, statement: Executable, rows: Sequence[Row[str, str, bool]], now: datetime
) -> list[tuple[TaskState, bool]]:
    if rows:
        connection.execute(statement, {"ids": [row.id for row in rows], "moment": now})
    return [(TaskState(row.state), row.discovers) for row in rows]


_STOP = (
    update(task)
    .where(task.c.job_id == bindparam("job_id_"), task.c.state == TaskState.ACTIVE, task.c.ordered.is_(None))
    .values(ordered=TaskState.CANCELED)
)


def stop_running(connection: Connection, job_id: str) -> None:
    """Let the tasks that run be canceled when they end, however they do."""
    connection.execute(_STOP, {"job_id_": job_id})


_KEEP = (
    update(task)
    .where(
        task.c.job_id == bindparam("job_id_"),
        task.c.state.in_((TaskState.FAILED, TaskState.CANCELED)),
        task.c.ordered.is_(None),
        task.c.reason.is_distinct_from(CancelReason.UPSTREAM),  # of these no event tells
    )
    .values(ordered=task.c.state)
)


def keep_ends(connection: Connection, job_id: str) -> None:
    """Let the tasks of a canceled job that have failed stay so, whatever events tell."""
    connection.execute(_KEEP, {"job_id_": job_id})


_ready = (
    select(task.c.id)
    .where(IsOneOf(task.c.job_id), text("task.state = 'ready' AND NOT task.held"))
    .limit(bindparam("number"))
)
_PARK = update(task).where(task.c.id.in_(_ready)).values(held=True)
_parked = select(task.c.id).where(task.c.job_id == bindparam("job_id_"), text("task.held")).limit(bindparam("number"))
_RELEASE = update(task).where(task.c.id.in_(_parked)).values(held=False)


def park_tasks(connection: Connection, job_ids: Collection[str], limit: int) -> int:
    """Hold up to `limit` tasks that are ready with these jobs, and return how many."""
    return connection.execute(_PARK, {"ids": list(job_ids), "number": limit}).rowcount


def release_tasks(connection: Connection, job_id: str, limit: int) -> int:
    """Let up to `limit` held tasks of a job be sent, and return how many."""
    return connection.execute(_RELEASE, {"job_id_": job_id, "number": limit}).rowcount


_TASKS = select(*TASK).where(IsOneOf(task.c.id))


def tasks_by_id(connection: Connection, task_ids: Collection[str]) -> dict[str, Task]:
    """Return these tasks."""
    return {values["id"]: as_task(values) for values in rows_of(connection, _TASKS, task_ids)}
