"""What a requeue changes: tasks wait again, what they had added or sent is gone, blocks are counted anew."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    bindparam,
    case,
    delete,
    false,
    func,
    or_,
    select,
    update,
)

from jobrunner.order_records import Requeue
from jobrunner.plan import Place
from jobrunner.records import Block, Children
from jobrunner.states import ENDED_TASK, WELL, CancelReason, TaskState
from jobrunner.store.bulk import Update
from jobrunner.store.schema import (
    addition,
    attempt,
    block,
    held_message,
    item_count,
    item_error,
    log_part,
    message,
    task,
)  # fmt: skip
from jobrunner.store.tracking.items import forget_item_counts
from jobrunner.store.tracking.rows import PLANNED, IsOneOf, rows_of

#: Places that one statement tells apart: SQLite takes conditions of no more than 1,000 parts.
_PLACES_AT_ONCE = 400
#: Why tasks have ended that another one's failure kept from running.
_BECAUSE_OF_OTHERS = (CancelReason.UPSTREAM, CancelReason.RULE)
_NOT_DONE = (TaskState.FAILED, TaskState.CANCELED, TaskState.PARTIAL)


def behind(job_id: str, places: Collection[Place]) -> ColumnElement[bool]:
    """Return the condition of a task to come after one of these places of chains."""
    if not places:
        return false()
    of_job = block.c.job_id == job_id
    inside = (
        select(block.c.id)
        .where(of_job, or_(*(and_(block.c.parent_id == one.block, block.c.position > one.position) for one in places)))
        .cte("behind", recursive=True)
    )
    inside = inside.union(select(block.c.id).join(inside, block.c.parent_id == inside.c.id))
    direct = (and_(task.c.block_id == one.block, task.c.position > one.position) for one in places)
    return or_(task.c.block_id.in_(select(inside.c.id)), *direct)


def tasks_to_reset(connection: Connection, job_id: str, what: Requeue, limit: int) -> list[tuple[str, TaskState, bool]]:
    """Return up to `limit` tasks that have to wait again: (id, state, whether it discovers work)."""
    query = select(task.c.id, task.c.state, task.c.discovers).where(task.c.job_id == job_id, PLANNED).limit(limit)
    found: dict[str, tuple[str, TaskState, bool]] = {}
    for condition in _wanted(job_id, what):
        for row in connection.execute(query.where(condition), {"ids": list(what.tasks)}):
            found[row.id] = row.id, TaskState(row.state), row.discovers
        if len(found) >= limit:
            break
    return list(found.values())[:limit]


def _wanted(job_id: str, what: Requeue) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions of which a task that has to wait again meets one."""
    ended = task.c.state.in_(list(ENDED_TASK))
    if what.all:
        yield ended
    if what.incomplete:
        yield task.c.state.in_(_NOT_DONE)
    if what.upstream:
        yield task.c.state.in_((TaskState.CANCELED, TaskState.FAILED)) & task.c.reason.in_(_BECAUSE_OF_OTHERS)
    if what.tasks:
        yield IsOneOf(task.c.id) & ended
    for start in range(0, len(what.behind), _PLACES_AT_ONCE):
        some = what.behind[start : start + _PLACES_AT_ONCE]
        yield behind(job_id, [Place(*place) for place in some]) & ended


def count_behind(connection: Connection, job_id: str, places: Collection[Place], states: Collection[TaskState]) -> int:
    """Return how many tasks after these places are in one of these states."""
    query = select(func.count()).where(task.c.job_id == job_id, task.c.state.in_(states), behind(job_id, places))
    return connection.execute(query).scalar_one()


#: What was to be skipped when its turn came, which it did not, is to be skipped still.
_NEVER_CAME = (task.c.state == TaskState.CANCELED) & (task.c.ordered == TaskState.SKIPPED)
_RESET = (
    update(task)
    .where(IsOneOf(task.c.id))
    .values(
        state=TaskState.PENDING, reason=None, held=False,
        note=case((_NEVER_CAME & (task.c.reason != CancelReason.UPSTREAM), task.c.note), else_=None),
        ordered=case((_NEVER_CAME | (task.c.reason == CancelReason.UPSTREAM), task.c.ordered), else_=None),
        earlier=task.c.delivery, only_items=None, first_retries=0, handed_back=0, progress=None, sent_at=None,
        started_at=None, ended_at=None, value_task=None, value_group=None,
        not_before=case((task.c.countdown.is_not(None), None), else_=task.c.not_before),
    )
)  # fmt: skip


def reset_tasks(connection: Connection, task_ids: Collection[str]) -> None:
    """Let tasks wait as they did at first; their attempts stay, and the next delivery has the next number."""
    connection.execute(_RESET, {"ids": list(task_ids)})
    forget_item_counts(connection, task_ids)


_BAD_ADOPTED = select(task.c.created_by).where(
    task.c.job_id == bindparam("job_id_"), ~PLANNED, task.c.state.not_in(WELL) | (task.c.state == TaskState.PARTIAL)
)
_CREATORS = select(task.c.id, task.c.created_by, PLANNED.label("planned")).where(IsOneOf(task.c.id))


def senders_of_unfinished(connection: Connection, job_id: str) -> list[str]:
    """Return the tasks of the plan that have sent, themselves or by others, what has not ended well, or is partial."""
    wanted = {row.created_by for row in connection.execute(_BAD_ADOPTED, {"job_id_": job_id}) if row.created_by}
    found: set[str] = set()
    seen: set[str] = set()
    while wanted - seen:
        asked, seen = wanted - seen, seen | wanted
        rows = list(rows_of(connection, _CREATORS, asked))
        found |= {row["id"] for row in rows if row["planned"]}
        wanted = {row["created_by"] for row in rows if not row["planned"] and row["created_by"]}
    return sorted(found)


# ---- what had been added and sent --------------------------------------------------------------------------

_GRAFTS = select(addition.c.id, addition.c.task_id, addition.c.chain_id, addition.c.group_id).where(
    IsOneOf(addition.c.task_id)
)
_OF_ADDITIONS = select(task.c.id).where(IsOneOf(task.c.addition_id))
_SENT_BY = select(task.c.id).where(IsOneOf(task.c.created_by), ~PLANNED)


def offspring(connection: Connection, task_ids: Collection[str]) -> tuple[set[str], list[Mapping[str, Any]]]:
    """Return all tasks that these have added or sent, and those in their turn; and the additions."""
    found: set[str] = set()
    additions: list[Mapping[str, Any]] = []
    parents = set(task_ids)
    while parents:
        made = list(rows_of(connection, _GRAFTS, parents))
        additions += made
        children = {row["id"] for row in rows_of(connection, _OF_ADDITIONS, {one["id"] for one in made})}
        children |= {row["id"] for row in rows_of(connection, _SENT_BY, parents)}
        parents = children - found
        found |= children
    return found, additions


_DELETE_TASKS = (
    delete(message).where(IsOneOf(message.c.task_id)),
    delete(attempt).where(IsOneOf(attempt.c.task_id)),
    delete(item_error).where(IsOneOf(item_error.c.task_id)),
    delete(item_count).where(IsOneOf(item_count.c.task_id)),
    delete(log_part).where(IsOneOf(log_part.c.task_id)),
    delete(held_message).where(IsOneOf(held_message.c.task_id)),
    delete(task).where(IsOneOf(task.c.id)),
)
_DELETE_ADDITIONS = (
    delete(block).where(IsOneOf(block.c.addition_id)),
    delete(addition).where(IsOneOf(addition.c.id)),
)


def delete_offspring(connection: Connection, task_ids: Collection[str], addition_ids: Collection[str]) -> None:
    """Delete tasks that will be made anew, with all that belongs to them, and the blocks that they were in."""
    for statements, given in ((_DELETE_TASKS, task_ids), (_DELETE_ADDITIONS, addition_ids)):
        for statement in statements:
            if given:
                connection.execute(statement, {"ids": list(given)})


_PLACES = select(block.c.id, block.c.parent_id, block.c.position).where(IsOneOf(block.c.id))
_MOVE = Update(task, ["id"], ["block_id", "position"])
_DELETE_BLOCKS = delete(block).where(IsOneOf(block.c.id))


def ungraft(connection: Connection, grafts: Iterable[Mapping[str, Any]]) -> None:
    """Put tasks back into the places of the chains that had taken theirs when they added others."""
    chains = {one["chain_id"]: one for one in grafts}
    places = {row["id"]: row for row in rows_of(connection, _PLACES, chains)}
    moved = [
        {"id": chains[id_]["task_id"], "block_id": row["parent_id"], "position": row["position"]}
        for id_, row in places.items()
    ]
    _MOVE.run(connection, moved)
    blocks = {one[name] for one in chains.values() for name in ("chain_id", "group_id")}
    if blocks:
        connection.execute(_DELETE_BLOCKS, {"ids": list(blocks)})


# ---- counting anew -----------------------------------------------------------------------------------------

_BLOCK = [block.c[name] for name in Block.__slots__]
_BLOCKS = select(*_BLOCK).where(block.c.job_id == bindparam("job_id_"))
_well = task.c.state.in_(WELL)
_CHILDREN = (
    select(
        task.c.block_id,
        func.count().label("tasks"),
        func.sum(case((_well, 0), else_=1)).label("unfinished"),
        func.min(case((_well, None), else_=task.c.position)).label("first_unfinished"),
        func.max(case((_well, task.c.position), else_=None)).label("last_well"),
    )
    .where(task.c.job_id == bindparam("job_id_"), PLANNED)
    .group_by(task.c.block_id)
)


def blocks_of(connection: Connection, job_id: str) -> dict[str, Block]:
    """Return all blocks of a job."""
    return {row.id: Block(**row._asdict()) for row in connection.execute(_BLOCKS, {"job_id_": job_id})}


def children_of(connection: Connection, job_id: str) -> dict[str, Children]:
    """Return what there is of tasks in each block of a job, by an aggregate over all of them."""
    rows = (row._asdict() for row in connection.execute(_CHILDREN, {"job_id_": job_id}))
    return {values.pop("block_id"): Children(**values) for values in rows}


_LEVELS = select(task.c.block_id, func.count().label("number")).where(IsOneOf(task.c.id), PLANNED)
_LEVELS = _LEVELS.group_by(task.c.block_id)
_SHRINK = update(block).where(block.c.id == bindparam("id_")).values(size=block.c.size - bindparam("number"))


def shrink_levels(connection: Connection, task_ids: Collection[str]) -> None:
    """Note that these tasks are about to leave their blocks; levels of a job with a barrier outlast what joined."""
    for row in rows_of(connection, _LEVELS, task_ids):
        connection.execute(_SHRINK, {"id_": row["block_id"], "number": row["number"]})
