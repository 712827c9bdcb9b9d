"""Blocks and places: moving a plan on."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from sqlalchemy import (
    BindParameter,
    Connection,
    bindparam,
    case,
    exists,
    func,
    literal_column,
    select,
    union_all,
    update,
)

from jobrunner.records import Block
from jobrunner.states import WELL, CancelReason, TaskState
from jobrunner.store.bulk import Update
from jobrunner.store.schema import block, job, task
from jobrunner.store.tracking.rows import NOW, IsOneOf, rows_of
from jobrunner.store.tracking.upstream import FAILED_BEFORE, IN_VAIN

_BLOCK = [block.c[name] for name in Block.__slots__]


_here = select(*_BLOCK).where(IsOneOf(block.c.id)).cte("upward", recursive=True)
_UPWARD = select(_here.union(select(*_BLOCK).join(_here, block.c.id == _here.c.parent_id)))


def blocks_upward(connection: Connection, block_ids: Collection[str]) -> dict[str, Block]:
    """Return these blocks and all blocks around them."""
    return {values["id"]: Block(**values) for values in rows_of(connection, _UPWARD, block_ids)}


_UPDATE = Update(block, ["id"], ["remaining"])


def update_blocks(connection: Connection, blocks: Collection[Block]) -> None:
    """Write how many children of each block have not ended well yet."""
    _UPDATE.run(connection, [{"id": one.id, "remaining": one.remaining} for one in blocks])


#: Who has ordered that one be skipped when its turn comes is still to be read then.
_NOTE = case((task.c.ordered.is_not(None), task.c.note), else_=None)
_OPENED = {"state": TaskState.READY, "reason": None, "note": _NOTE}
_PLACE = task.c.opens_block == bindparam("block_id_"), task.c.opens_at == bindparam("position_")
#: In a job that waits for others nothing opens, whatever has ended well in it by order.
_WAITS = exists(
    select(job.c.id)
    .join_from(block, job, job.c.id == block.c.job_id)
    .where(block.c.id == bindparam("block_id_"), job.c.unmet > literal_column("0"))
)
_OPEN = update(task).where(*_PLACE, task.c.state == TaskState.PENDING, ~_WAITS).values(_OPENED)
_DELAYED = select(task.c.id, task.c.countdown).where(
    *_PLACE, task.c.state == TaskState.READY, task.c.countdown.is_not(None), task.c.not_before.is_(None)
)
_DELAY = Update(task, ["id"], ["not_before"])


def open_place(connection: Connection, block_id: str, position: int, now: datetime) -> int:
    """Make the tasks that wait for this place ready, and return how many: one statement, however they are nested.

    There are none as long as their job waits for others.
    """
    place = {"block_id_": block_id, "position_": position}
    number = connection.execute(_OPEN, place).rowcount
    delayed = connection.execute(_DELAYED, place).all()
    delay_tasks(connection, {row.id: now + timedelta(seconds=row.countdown) for row in delayed})
    return number


_ROOTS = IsOneOf(task.c.opens_block), task.c.opens_at == literal_column("0")  # the root of a plan has its job's id
_OPENING = select(task.c.opens_block, func.count().label("number")).where(*_ROOTS, task.c.state == TaskState.PENDING)
_OPENING = _OPENING.group_by(task.c.opens_block)
_OPEN_ROOTS = update(task).where(*_ROOTS, task.c.state == TaskState.PENDING).values(_OPENED)
_DELAYED_ROOTS = select(task.c.id, task.c.countdown).where(
    *_ROOTS, task.c.state == TaskState.READY, task.c.countdown.is_not(None), task.c.not_before.is_(None)
)


def open_plans(connection: Connection, job_ids: Collection[str], now: datetime) -> dict[str, int]:
    """Make the tasks ready with which the plans of these jobs begin, and return how many of each job."""
    if not job_ids:
        return {}
    ids = {"ids": list(job_ids)}
    numbers = {row.opens_block: row.number for row in connection.execute(_OPENING, ids)}
    connection.execute(_OPEN_ROOTS, ids)
    delayed = rows_of(connection, _DELAYED_ROOTS, job_ids)
    delay_tasks(connection, {one["id"]: now + timedelta(seconds=one["countdown"]) for one in delayed})
    return numbers


_CHAIN: BindParameter[str] = bindparam("chain_")
_JOB: BindParameter[str] = bindparam("job_id_")  # there is an index of the rows of a job, and none of those of a block
_UNFINISHED = union_all(
    select(task.c.position).where(task.c.job_id == _JOB, task.c.block_id == _CHAIN, task.c.state.not_in(WELL)),
    select(block.c.position).where(block.c.job_id == _JOB, block.c.parent_id == _CHAIN, block.c.remaining > 0),
).subquery()
_FIRST_UNFINISHED = select(func.min(_UNFINISHED.c.position))


def first_unfinished(connection: Connection, chain: Block) -> int | None:
    """Return the position of the first child of a chain that has not ended well; None if all have."""
    return connection.execute(_FIRST_UNFINISHED, {"chain_": chain.id, "job_id_": chain.job_id}).scalar()


_CANCEL_PENDING = (
    update(task)
    .where(task.c.job_id == bindparam("job_id_"), task.c.state == TaskState.PENDING)
    .values(
        state=TaskState.CANCELED,
        reason=case((IN_VAIN, CancelReason.UPSTREAM), else_=bindparam("reason_")),
        note=case((IN_VAIN, FAILED_BEFORE), else_=bindparam("because")),
        ended_at=NOW,
    )
)


def cancel_pending(connection: Connection, job_id: str, reason: CancelReason, note: str | None, now: datetime) -> int:
    """End the tasks that can never run any more because their job has ended, and return how many.

    Reason and note are for those of which no failure was known that they wait for in vain.
    """
    given = {"job_id_": job_id, "reason_": reason, "because": note, "moment": now}
    return connection.execute(_CANCEL_PENDING, given).rowcount


_RESTORE = (
    update(task)
    .where(
        task.c.job_id == bindparam("job_id_"),
        task.c.state == TaskState.CANCELED,
        # Earlier versions have given no reason.
        (task.c.reason == CancelReason.UPSTREAM) | (task.c.reason.is_(None) & (task.c.delivery == 0)),
    )
    .values(state=TaskState.PENDING, reason=None, note=None, ended_at=None)
)


def restore(connection: Connection, job_id: str) -> int:
    """Let the tasks wait again that were canceled because their job had ended, and return how many."""
    return connection.execute(_RESTORE, {"job_id_": job_id}).rowcount


def delay_tasks(connection: Connection, not_before: Mapping[str, datetime]) -> None:
    """Hold tasks back until then, once they are ready."""
    _DELAY.run(connection, [{"id": id_, "not_before": moment} for id_, moment in not_before.items()])
