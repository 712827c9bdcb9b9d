"""Rows found by many ids at once: what all questions of the tracker share."""

import json
from collections.abc import Collection, Iterator
from typing import Any

from sqlalchemy import (
    ARRAY,
    BindParameter,
    ColumnElement,
    Connection,
    Dialect,
    FunctionElement,
    Select,
    String,
    bindparam,
    func,
    literal_column,
    select,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeDecorator, TypeEngine

from jobrunner.records import Attempt, Task
from jobrunner.states import TaskState
from jobrunner.store.schema import Moment, attempt, job, task


class _Ids(TypeDecorator[list[str]]):
    """Any number of ids as one parameter: an array; on SQLite, which has none, JSON.

    A list `IN (…)` has one parameter for each, and is taken apart anew by SQLAlchemy and driver whenever it is run.
    """

    impl = ARRAY(String)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the parameter's type for the database at hand."""
        return dialect.type_descriptor(String() if dialect.name == "sqlite" else ARRAY(String))

    def process_bind_param(self, value: list[str] | None, dialect: Dialect) -> Any:
        """Hand the ids to the driver."""
        return json.dumps(value) if dialect.name == "sqlite" else value


_IDS: BindParameter[list[str]] = bindparam("ids", type_=_Ids())
NOW = bindparam("moment", type_=Moment)

TASK = [task.c[name] for name in Task.__slots__]
ATTEMPT = [attempt.c[name] for name in Attempt.__slots__]


#: Whether a task is one of a plan: only those are ever sent by the tracker, the others it just observes.
PLANNED = task.c.block_id != literal_column("''")

# A subquery for each job, which looks at the end of the index alone; GROUP BY would read all its tasks.
_last = select(func.max(task.c.arrival)).where(task.c.job_id == job.c.id).scalar_subquery()
#: The number of the next task that joins a job. It is no count: tasks that were added may have been deleted.
NEXT_ARRIVAL = (func.coalesce(_last, literal_column("-1")) + literal_column("1")).label("arrival")


class IsOneOf(FunctionElement[bool]):
    """Whether a column has one of the ids that `ids` gives to the statement."""

    inherit_cache = True

    def __init__(self, column: ColumnElement[str]) -> None:
        super().__init__(column, _IDS)


@compiles(IsOneOf, "postgresql")
def _is_any(element: IsOneOf, compiler: SQLCompiler, **kw: Any) -> str:
    column, given = (compiler.process(one, **kw) for one in element.clauses)
    return f"{column} = ANY ({given})"


@compiles(IsOneOf, "sqlite")
def _is_in(element: IsOneOf, compiler: SQLCompiler, **kw: Any) -> str:
    column, given = (compiler.process(one, **kw) for one in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({given}))"  # noqa: S608  both are SQLAlchemy's own


def rows_of(connection: Connection, statement: Select[Any], keys: Collection[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows that a statement with `IsOneOf` finds for these keys; without keys there is nothing to ask."""
    if keys:
        found = connection.execute(statement, {"ids": list(keys)})
        names = list(found.keys())
        for row in found.all():  # one by one, and by `_asdict`, takes three times as long
            yield dict(zip(names, row, strict=True))


def as_task(values: dict[str, Any]) -> Task:
    """Return a row with the columns `TASK` as a task."""
    values["state"] = TaskState(values["state"])
    return Task(**values)
