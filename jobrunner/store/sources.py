"""Where values lie: from nodes of plans to the Celery ids under which the result backend has their values.

A value lies under the id of the delivery that succeeded, which is a task's present one once it has ended well. One
that was skipped has none, unless it has run and skipped itself. A task
that has grown into another canvas has the value of a node of that, which may have grown in its turn.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from sqlalchemy import Connection, bindparam, literal_column, select

from jobrunner import ids
from jobrunner.plan import Source
from jobrunner.states import TaskState
from jobrunner.store.schema import attempt, block, task
from jobrunner.store.tracking.rows import IsOneOf, rows_of
from jobrunner.store.tracking.tasks import tasks_by_celery_id
from jobrunner.wire import NOTHING, Inputs

#: What is known of a node's value: its Celery id, the node that has it, or a list of such for a group.
_Found: TypeAlias = "str | Source | list[_Found]"

_skips_itself = task.c.started_at.is_not(None) & task.c.ordered.is_(None)
_HAS_NONE = ((task.c.state == TaskState.SKIPPED) & ~_skips_itself).label("has_none")
_VALUE = (task.c.id, _HAS_NONE, task.c.delivery, task.c.value_task, task.c.value_group)
_TASKS = select(*_VALUE).where(IsOneOf(task.c.id))
_ITEMS = select(*_VALUE, task.c.yields_group, task.c.yields_at).where(IsOneOf(task.c.yields_group))
_GROUPS = select(block.c.id, block.c.yields_group, block.c.yields_at).where(IsOneOf(block.c.yields_group))


def inputs_of(connection: Connection, sources: Iterable[Source]) -> dict[Source, Inputs]:
    """Return under which Celery ids the values of these nodes lie.

    It asks three questions for each level to which groups are nested and tasks have grown, however many nodes there
    are.
    """
    wanted = set(sources)
    found: dict[Source, _Found] = {}
    unknown = wanted
    while unknown:
        new = dict(_tasks(connection, {one.task for one in unknown if one.task is not None}))
        new |= _groups(connection, {one.group for one in unknown if one.group is not None})
        found |= new
        unknown = {inner for one in new.values() for inner in _unresolved(one)} - found.keys()
    return {one: _resolved(one, found) for one in wanted}


def _tasks(connection: Connection, task_ids: Collection[str]) -> Iterator[tuple[Source, _Found]]:
    for row in rows_of(connection, _TASKS, task_ids):
        yield Source(task=row["id"]), _value(row)


def _groups(connection: Connection, group_ids: Collection[str]) -> dict[Source, _Found]:
    items: defaultdict[str, dict[int, _Found]] = defaultdict(dict)
    for row in rows_of(connection, _ITEMS, group_ids):
        items[row["yields_group"]][row["yields_at"]] = _value(row)
    for row in rows_of(connection, _GROUPS, group_ids):
        items[row["yields_group"]][row["yields_at"]] = Source(group=row["id"])
    return {Source(group=id_): [items[id_][position] for position in sorted(items[id_])] for id_ in group_ids}


def _value(row: Mapping[str, Any]) -> _Found:
    if row["value_task"] is not None or row["value_group"] is not None:
        return Source(task=row["value_task"], group=row["value_group"])
    return NOTHING if row["has_none"] else ids.celery_id(row["id"], row["delivery"])


def _unresolved(found: _Found) -> Iterator[Source]:
    for one in found if isinstance(found, list) else [found]:
        if isinstance(one, Source):
            yield one


def _resolved(one: _Found, found: Mapping[Source, _Found]) -> Inputs:
    while isinstance(one, Source):
        one = found[one]
    return [_resolved(item, found) for item in one] if isinstance(one, list) else one


#: What Celery's `task-succeeded` shows of an empty value.
_EMPTY = ("None", "[]", "()", "{}", "''", "b''", "set()", "frozenset()")
_is_empty = attempt.c.celery_id, attempt.c.result.in_(_EMPTY).label("is_empty")
#: Of first deliveries, whose Celery ids are those of their tasks, and of later ones.
_RETURNED = (
    select(*_is_empty).where(
        IsOneOf(attempt.c.task_id), attempt.c.delivery == literal_column("1"), attempt.c.outcome == "succeeded"
    ),
    select(*_is_empty).where(
        IsOneOf(attempt.c.celery_id), attempt.c.delivery > literal_column("1"), attempt.c.outcome == "succeeded"
    ),
)


def empty_ones(connection: Connection, sources: Iterable[Source]) -> set[Source]:
    """Return those of these nodes whose values are known to be empty: for a group, all in it.

    What was never made is empty, as that of a task that was skipped.
    """
    ids_of = {source: list(_flat(one)) for source, one in inputs_of(connection, sources).items()}
    asked = {id_ for those in ids_of.values() for id_ in those}
    empty: dict[str, bool] = {}
    for statement in _RETURNED:
        for row in rows_of(connection, statement, asked):
            empty[row["celery_id"]] = empty.get(row["celery_id"], True) and bool(row["is_empty"])
    return {source for source, those in ids_of.items() if all(empty.get(one) for one in those)}


def _flat(inputs: Inputs) -> Iterator[str]:
    """Yield the Celery ids of what was made."""
    if isinstance(inputs, list):
        for one in inputs:
            yield from _flat(one)
    elif inputs != NOTHING:
        yield inputs


_NAME = select(task.c.name).where(task.c.id == bindparam("task_id"))


def producer_of(connection: Connection, celery_id: str) -> str:
    """Return name and id of the task whose value lies under this Celery id, for people."""
    task_id = tasks_by_celery_id(connection, [celery_id])[celery_id].id
    return f"{connection.execute(_NAME, {'task_id': task_id}).scalar_one()} [{task_id}]"
