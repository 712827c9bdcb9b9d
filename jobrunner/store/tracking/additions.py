"""What tasks add to their jobs: rows that wait for their creator to succeed, and go if it does not."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from sqlalchemy import Connection, bindparam, delete, exists, func, or_, select, update

from jobrunner.barrier import level_block
from jobrunner.plan import BlockKind
from jobrunner.records import Addition, Creator, Task
from jobrunner.store.bulk import Update, insert_rows
from jobrunner.store.schema import addition, block, job, message, task
from jobrunner.store.tracking.rows import NEXT_ARRIVAL, IsOneOf, rows_of

_CREATORS = (
    select(task.c.id, task.c.job_id, task.c.name, task.c.sequence, job.c.barrier)
    .join_from(task, job, job.c.id == task.c.job_id)
    .where(IsOneOf(task.c.id))
)


def creators(connection: Connection, task_ids: Collection[str]) -> dict[str, Creator]:
    """Return tasks as those need to know them that they add."""
    return {values["id"]: Creator(**values) for values in rows_of(connection, _CREATORS, task_ids)}


_NEXT_ARRIVAL = select(job.c.id, NEXT_ARRIVAL).where(IsOneOf(job.c.id))


def next_arrivals(connection: Connection, job_ids: Collection[str]) -> dict[str, int]:
    """Return which number the next task that joins each of these jobs gets."""
    return {values["id"]: values["arrival"] for values in rows_of(connection, _NEXT_ARRIVAL, job_ids)}


_ADDITION = [addition.c[name] for name in Addition.__slots__]
_BY_ID = select(*_ADDITION).where(IsOneOf(addition.c.id))


def additions_by_id(connection: Connection, addition_ids: Collection[str]) -> dict[str, Addition]:
    """Return those of these additions of which something was folded before."""
    return {values["id"]: Addition(**values) for values in rows_of(connection, _BY_ID, addition_ids)}


_KNOWN_TASKS = select(task.c.id).where(IsOneOf(task.c.id))
_KNOWN_BLOCKS = select(block.c.id).where(IsOneOf(block.c.id))


def known_ids(connection: Connection, task_ids: Collection[str], block_ids: Collection[str]) -> set[str]:
    """Return those of these ids that tasks and blocks have."""
    tasks, blocks = rows_of(connection, _KNOWN_TASKS, task_ids), rows_of(connection, _KNOWN_BLOCKS, block_ids)
    return {values["id"] for values in chain(tasks, blocks)}


_SAVE = Update(addition, ["id"], ["tasks", "told"])


def save_additions(connection: Connection, new: Sequence[Addition], changed: Sequence[Addition]) -> None:
    """Write how much of additions was folded."""
    insert_rows(connection, addition, [{name: getattr(one, name) for name in Addition.__slots__} for one in new])
    _SAVE.run(connection, [{"id": one.id, "tasks": one.tasks, "told": one.told} for one in changed])


def insert_added(
    connection: Connection,
    blocks: Sequence[Mapping[str, Any]],
    tasks: Sequence[Mapping[str, Any]],
    messages: Sequence[Mapping[str, Any]],
) -> None:
    """Write rows that were added to jobs."""
    for table, rows in ((block, blocks), (task, tasks), (message, messages)):
        insert_rows(connection, table, rows)


_UNKEPT = or_(addition.c.kept.is_(None), ~addition.c.kept)
_ANY = select(exists().where(_UNKEPT))
_OF_TASKS = select(*_ADDITION).where(IsOneOf(addition.c.task_id), _UNKEPT)


def unkept_additions(connection: Connection, task_ids: Collection[str]) -> list[Addition]:
    """Return additions of these tasks that were deleted, or of which is not known yet whether they are kept."""
    if not task_ids or not connection.execute(_ANY).scalar():  # nearly always: it costs next to nothing
        return []
    return [Addition(**values) for values in rows_of(connection, _OF_TASKS, task_ids)]


_DECIDE = Update(addition, ["id"], ["kept"])


def decide_additions(connection: Connection, kept: Mapping[str, bool]) -> None:
    """Note of additions whether they are kept."""
    _DECIDE.run(connection, [{"id": addition_id, "kept": whether} for addition_id, whether in kept.items()])


_added = select(task.c.id).where(IsOneOf(task.c.addition_id))
_DELETE = (
    delete(message).where(message.c.task_id.in_(_added)),
    delete(task).where(IsOneOf(task.c.addition_id)),
    delete(block).where(IsOneOf(block.c.addition_id)),
)


def delete_added(connection: Connection, addition_ids: Collection[str]) -> None:
    """Delete blocks, tasks and messages of additions; none of the tasks was ever sent."""
    for statement in _DELETE:
        connection.execute(statement, {"ids": list(addition_ids)})


_MOVE_TASK = Update(task, ["id"], ["block_id", "position"])


def graft(connection: Connection, grafts: Iterable[tuple[Task, str, str, int]]) -> None:
    """Put chains into the places of tasks: (task, chain, group, size).

    A chain holds its task, which moves into it, and then a group of so many additions.
    """
    blocks: list[dict[str, Any]] = []
    moved: list[dict[str, Any]] = []
    for creator, chain_id, group_id, size in grafts:
        outer = {"job_id": creator.job_id, "parent_id": creator.block_id, "position": creator.position}
        inner = {"job_id": creator.job_id, "parent_id": chain_id, "position": 1}
        blocks += [
            {"id": chain_id, "kind": BlockKind.CHAIN, "size": 2, "remaining": 2, **outer},
            {"id": group_id, "kind": BlockKind.GROUP, "size": size, "remaining": size, **inner},
        ]
        creator.block_id, creator.position = chain_id, 0
        moved.append({"id": creator.id, "block_id": chain_id, "position": 0})
    insert_rows(connection, block, blocks)
    _MOVE_TASK.run(connection, moved)


_SET_VALUE = Update(task, ["id"], ["value_task", "value_group"])


def move_values(connection: Connection, additions: Iterable[Addition]) -> None:
    """Note that the values of creators are those of what they have expanded into."""
    _SET_VALUE.run(
        connection,
        [{"id": one.task_id, "value_task": one.value_task, "value_group": one.value_group} for one in additions],
    )


_HAS_GROWN = select(exists().where(addition.c.job_id == bindparam("job_id_"), addition.c.kept, addition.c.tasks > 0))


def has_grown(connection: Connection, job_id: str) -> bool:
    """Whether a task has added any to this job."""
    return bool(connection.execute(_HAS_GROWN, {"job_id_": job_id}).scalar())


_LEVELS = (
    select(task.c.job_id, task.c.sequence, func.count().label("number"))
    .where(IsOneOf(task.c.addition_id))
    .group_by(task.c.job_id, task.c.sequence)
    .order_by(task.c.job_id, task.c.sequence)
)
_JOIN_LEVEL = (
    update(task)
    .where(IsOneOf(task.c.addition_id), task.c.job_id == bindparam("job_id_"), task.c.sequence == bindparam("level"))
    .values(block_id=bindparam("level_id"), opens_block=bindparam("job_id_"), opens_at=bindparam("level"))
)
_REMAINING = select(block.c.id, block.c.remaining).where(IsOneOf(block.c.id))
_WIDEN = (
    update(block)
    .where(block.c.id == bindparam("block_id_"))
    .values(size=block.c.size + bindparam("more"), remaining=block.c.remaining + bindparam("left"))
)
_EMPTY = update(block).where(IsOneOf(block.c.addition_id)).values(size=0, remaining=0, parent_id=None)


def graft_into_levels(connection: Connection, addition_ids: Collection[str]) -> None:
    """Put additions to jobs with a barrier into the levels of these; of their own blocks, lists of values remain."""
    levels = [
        {"job_id_": row["job_id"], "level": row["sequence"], "number": row["number"],
         "level_id": level_block(row["job_id"], row["sequence"])}
        for row in rows_of(connection, _LEVELS, addition_ids)
    ]  # fmt: skip
    remaining = {
        row["id"]: row["remaining"] for row in rows_of(connection, _REMAINING, [one["level_id"] for one in levels])
    }
    for one in levels:
        connection.execute(_JOIN_LEVEL, one | {"ids": list(addition_ids)})
        is_new = one["level_id"] not in remaining
        if is_new:
            place = {"job_id": one["job_id_"], "parent_id": one["job_id_"], "position": one["level"]}
            row = {"id": one["level_id"], "kind": BlockKind.GROUP, "size": 0, "remaining": 0, **place}
            insert_rows(connection, block, [row])
        connection.execute(_WIDEN, {"block_id_": one["level_id"], "more": one["number"], "left": one["number"]})
        if not remaining.get(one["level_id"]):  # new, or ended already: its creator runs again for its value
            connection.execute(_WIDEN, {"block_id_": one["job_id_"], "more": int(is_new), "left": 1})
    connection.execute(_EMPTY, {"ids": list(addition_ids)})
