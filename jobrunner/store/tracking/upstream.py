"""What can never run because something before it has failed, and what can again because that is no more so (C5).

The reason `upstream` marks such tasks.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, func, literal, literal_column, select, update

from jobrunner.records import Task
from jobrunner.states import CancelReason, TaskState
from jobrunner.store.bulk import Update
from jobrunner.store.schema import task
from jobrunner.store.tracking.rows import PLANNED, TASK, IsOneOf, as_task, rows_of

#: How the note of a pending task begins that waits in vain: what it waits for follows.
BLOCKED_BY: Final = "blocked by "
#: Whether a pending task waits in vain.
IN_VAIN = task.c.note.startswith(BLOCKED_BY)
_cause = func.substr(task.c.note, literal_column(str(len(BLOCKED_BY) + 1)))
#: The note of a task that has ended because one before it was canceled.
CANCELED_BEFORE: Final = "upstream: a task before it was canceled"
#: The note of one that has ended because it waited in vain, as `failed_before` says it.
FAILED_BEFORE = literal_column("'upstream: '").concat(_cause).concat(literal_column("' failed'"))


class Waiting(NamedTuple):
    """A pending task: where it stands, and the place that it waits for."""

    id: str
    job_id: str
    discovers: bool
    block_id: str
    opens_block: str
    opens_at: int


class InVain(NamedTuple):
    """A task that can never run, the state that it gets: failed or pending, and the note that says why."""

    id: str
    state: TaskState
    note: str


_WAITING = select(*(task.c[name] for name in Waiting._fields)).where(
    IsOneOf(task.c.opens_block),
    task.c.opens_at > literal(0),  # the first of a chain has nothing before it: of a group, that may be very many
    task.c.state == TaskState.PENDING,
    task.c.reason.is_(None),
)


def failed_before(name: str, task_id: str) -> str:
    """Return the note of a task that has ended because this one has failed."""
    return f"upstream: {name} [{task_id}] failed"


def waiting_for(connection: Connection, chains: Collection[str]) -> list[Waiting]:
    """Return the tasks that wait for a place of one of these chains, and are not known to wait in vain."""
    return [Waiting(*row) for row in connection.execute(_WAITING, {"ids": list(chains)})]


_MARK = Update(task, ["id"], ["state", "reason", "note", "ended_at"])
_MARK_ALIKE = (
    update(task)
    .where(IsOneOf(task.c.id))
    .values({name: bindparam(f"{name}_", type_=task.c[name].type) for name in ("state", "reason", "note", "ended_at")})
)
#: So many tasks with the same note are worth a statement of their own: there may be very many behind one failure.
_MANY = 100


def mark_upstream(connection: Connection, tasks: Sequence[InVain], now: datetime) -> None:
    """Note of pending tasks that they can never run."""
    alike: defaultdict[tuple[TaskState, str], list[str]] = defaultdict(list)
    for one in tasks:
        alike[one.state, one.note].append(one.id)
    few: list[dict[str, object]] = []
    for (state, note), task_ids in alike.items():
        ended_at = now if state is TaskState.FAILED else None
        row = {"state": state, "reason": CancelReason.UPSTREAM, "note": note, "ended_at": ended_at}
        if len(task_ids) >= _MANY:
            connection.execute(_MARK_ALIKE, {f"{name}_": value for name, value in row.items()} | {"ids": task_ids})
        else:
            few += [{"id": id_, **row} for id_ in task_ids]
    _MARK.run(connection, few)


_upstream = task.c.job_id == bindparam("job_id_"), task.c.reason == CancelReason.UPSTREAM
_UPSTREAM_FAILED = (
    select(task.c.discovers, func.count().label("number"))
    .where(*_upstream, task.c.state == TaskState.FAILED)
    .group_by(task.c.discovers)
)
_UNMARK = (
    update(task)
    .where(*_upstream, task.c.state.in_((TaskState.PENDING, TaskState.FAILED)))
    .values(state=TaskState.PENDING, reason=None, note=None, ended_at=None)
)


def unmark_upstream(connection: Connection, job_id: str) -> list[tuple[bool, int]]:
    """Let the tasks of a job wait again that could never run; return how many had failed: (discovers, number)."""
    failed = [(row.discovers, row.number) for row in connection.execute(_UPSTREAM_FAILED, {"job_id_": job_id})]
    connection.execute(_UNMARK, {"job_id_": job_id})
    return failed


_FAILED = (
    select(*TASK)
    .where(
        IsOneOf(task.c.job_id),
        task.c.state == TaskState.FAILED,
        task.c.reason.is_distinct_from(CancelReason.UPSTREAM),
        PLANNED,
    )
    .order_by(task.c.arrival)
)
_OWN_FAILURES = select(func.count()).where(
    task.c.job_id == bindparam("job_id_"),
    task.c.state == TaskState.FAILED,
    task.c.reason.is_distinct_from(CancelReason.UPSTREAM),
)
_NAMES = select(task.c.id, task.c.name).where(IsOneOf(task.c.id))


def own_failures(connection: Connection, job_ids: Collection[str]) -> list[Task]:
    """Return the tasks of these jobs' plans that have failed themselves, in order of arrival."""
    return [as_task(row) for row in rows_of(connection, _FAILED, job_ids)]


def count_own_failures(connection: Connection, job_id: str) -> int:
    """Return how many tasks of a job have failed by themselves."""
    return connection.execute(_OWN_FAILURES, {"job_id_": job_id}).scalar_one()


def names_of(connection: Connection, task_ids: Collection[str]) -> dict[str, str]:
    """Return the names of tasks."""
    return {row["id"]: row["name"] for row in rows_of(connection, _NAMES, task_ids)}
