"""Rows found by many ids at once: what all questions of the tracker share."""

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import BindParameter, Connection, Select, bindparam

from jobrunner.records import Attempt, Task
from jobrunner.states import TaskState
from jobrunner.store.reading import CHUNK
from jobrunner.store.schema import Moment, attempt, task

IDS: BindParameter[str] = bindparam("ids", expanding=True)
NOW = bindparam("moment", type_=Moment)

TASK = [task.c[name] for name in Task.__slots__]
ATTEMPT = [attempt.c[name] for name in Attempt.__slots__]


def chunks(keys: Iterable[str]) -> Iterator[dict[str, list[str]]]:
    """Yield the keys as values of `IDS`, as many at a time as every database takes."""
    ordered = sorted(set(keys))
    for start in range(0, len(ordered), CHUNK):
        yield {"ids": ordered[start : start + CHUNK]}


def rows_of(connection: Connection, statement: Select[Any], keys: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows that a statement with `IDS` finds for these keys."""
    for chunk in chunks(keys):
        for row in connection.execute(statement, chunk):
            yield row._asdict()


def as_task(values: dict[str, Any]) -> Task:
    """Return a row with the columns `TASK` as a task."""
    values["state"] = TaskState(values["state"])
    return Task(**values)
