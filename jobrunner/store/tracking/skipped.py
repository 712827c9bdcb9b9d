"""What is skipped without being sent: pending tasks after one that has said so, and whether a job did anything else."""

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, exists, or_, select, update

from jobrunner.statements import SKIPS
from jobrunner.states import SkipReason, TaskState
from jobrunner.store.schema import attempt, task
from jobrunner.store.tracking.rows import NOW, IsOneOf


class Successor(NamedTuple):
    """A pending task: where it stands, and the place that it waits for."""

    id: str
    job_id: str
    name: str
    discovers: bool
    block_id: str
    position: int
    opens_block: str
    opens_at: int


_SUCCESSORS = (
    select(*(task.c[name] for name in Successor._fields))
    .where(IsOneOf(task.c.opens_block), task.c.opens_at > 0, task.c.state == TaskState.PENDING)
    .order_by(task.c.opens_block, task.c.opens_at)
)


def successors(connection: Connection, chains: Collection[str]) -> list[Successor]:
    """Return the pending tasks that wait for a place of one of these chains, other than the first, in that order."""
    return [Successor(*row) for row in connection.execute(_SUCCESSORS, {"ids": list(chains)}).all()]


_SKIP = (
    update(task)
    .where(IsOneOf(task.c.id))
    .values(
        state=TaskState.SKIPPED, reason=SkipReason.SAID, note=bindparam("because"), started_at=None, ended_at=NOW
    )
)  # fmt: skip


def skip_tasks(connection: Connection, task_ids: Collection[str], note: str, now: datetime) -> None:
    """End pending tasks as skipped: one statement, however many there are.

    One that waits because its input was lost has started, too, and has no value all the same.
    """
    if task_ids:
        connection.execute(_SKIP, {"ids": list(task_ids), "because": note, "moment": now})


_has_skipped = exists().where(
    attempt.c.task_id == task.c.id,
    attempt.c.delivery == task.c.delivery,
    attempt.c.outcome == "succeeded",
    attempt.c.statement.contains(SKIPS, autoescape=True),
)
_HAS_WORKED = select(
    exists().where(
        task.c.job_id == bindparam("job_id_"),
        or_(
            (task.c.state == TaskState.SKIPPED) & task.c.ordered.is_not(None),
            task.c.state == TaskState.PARTIAL,
            (task.c.state == TaskState.COMPLETED) & ~task.c.discovers & ~_has_skipped,
        ),
    )
)


def has_worked(connection: Connection, job_id: str) -> bool:
    """Whether a task of a job did more than to find out that there is nothing to do, or was to do so."""
    return bool(connection.execute(_HAS_WORKED, {"job_id_": job_id}).scalar())
