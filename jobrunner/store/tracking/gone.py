"""In which states tasks are that are about to be deleted: their jobs have them no more."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select

from jobrunner.records import Gone
from jobrunner.states import TaskState
from jobrunner.store.schema import task
from jobrunner.store.tracking.rows import IsOneOf, rows_of

_KIND = (task.c.job_id, task.c.state, task.c.discovers)


def _counted(column: ColumnElement[str]) -> Select[Any]:
    return select(*_KIND, func.count().label("number")).where(IsOneOf(column)).group_by(*_KIND)


_BY_ID, _BY_ADDITION = _counted(task.c.id), _counted(task.c.addition_id)


def count_states(connection: Connection, task_ids: Collection[str]) -> list[Gone]:
    """Return how many of these tasks are in each state."""
    return _gone(connection, _BY_ID, task_ids)


def count_added(connection: Connection, addition_ids: Collection[str]) -> list[Gone]:
    """Return how many tasks of these additions are in each state: pending, or ended by order."""
    return _gone(connection, _BY_ADDITION, addition_ids)


def _gone(connection: Connection, counted: Select[Any], keys: Collection[str]) -> list[Gone]:
    return [Gone(**row | {"state": TaskState(row["state"])}) for row in rows_of(connection, counted, keys)]
