"""Orders as clients see them: appended in one transaction, read until they are answered, and what they may be about.

Clients append and read; applying and answering is the tracker's part (`jobrunner.store.tracking`).
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import JSON, ColumnElement, Connection, Select, cast, select, type_coerce

from jobrunner.order_records import Answer, Order
from jobrunner.states import JobState, TaskState
from jobrunner.store.bulk import insert_rows, portions
from jobrunner.store.reading import names_something
from jobrunner.store.schema import job, orders, task


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What an order is about: a job, or with `task_id` a task of it; name and state are its own."""

    job_id: str
    task_id: str | None
    name: str
    state: JobState | TaskState
    observed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A filter for jobs, or for tasks: all that is given must fit, and what is not given fits all.

    States and name are those of what is selected; labels and age, since it was submitted, are those of the job.
    """

    states: Collection[str] = ()
    name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    older_than: timedelta | None = None
    job_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderView:
    """How far an order is: taken up by a tracker or not yet, and its answer once it has one."""

    id: str
    applied_at: datetime | None
    answer: Answer | None


def insert_orders(connection: Connection, given: Sequence[Order]) -> None:
    """Append orders; the tracker applies them in the order of their ids."""
    now = datetime.now(UTC)
    rows = [asdict(one) | {"arguments": json.dumps(dict(one.arguments)), "asked_at": now} for one in given]
    insert_rows(connection, orders, rows)


def read_orders(connection: Connection, order_ids: Sequence[str]) -> dict[str, OrderView]:
    """Return how far these orders are, by id."""
    found = {}
    for some in portions(order_ids):
        rows = select(orders.c.id, orders.c.applied_at, orders.c.answer).where(orders.c.id.in_(some))
        for row in connection.execute(rows):
            answer = None if row.answer is None else Answer(**json.loads(row.answer))
            found[row.id] = OrderView(id=row.id, applied_at=row.applied_at, answer=answer)
    return found


def find_task(connection: Connection, task_id: str) -> Target | None:
    """Return a task by its id."""
    row = connection.execute(_tasks().where(task.c.id == task_id)).first()
    return None if row is None else Target(**row._asdict() | {"state": TaskState(row.state)})


def find_tasks(connection: Connection, reference: str) -> list[Target]:
    """Return the tasks that a person may mean: by id, or by the beginning or end of one (at most 3)."""
    if not names_something(reference):
        return []
    exact = find_task(connection, reference)
    if exact is not None:
        return [exact]
    like = task.c.id.startswith(reference, autoescape=True) | task.c.id.endswith(reference, autoescape=True)
    rows = connection.execute(_tasks().where(like).limit(3))
    return [Target(**row._asdict() | {"state": TaskState(row.state)}) for row in rows]


def select_jobs(connection: Connection, selection: Selection) -> list[Target]:
    """Return the jobs that a filter means, oldest first."""
    query = select(job.c.id.label("job_id"), job.c.name, job.c.state, job.c.observed).where(
        *_of_job(connection, selection), *_own(selection, job.c.state, job.c.name)
    )
    rows = connection.execute(query.order_by(job.c.submitted_at, job.c.id))
    return [Target(**row._asdict() | {"task_id": None, "state": JobState(row.state)}) for row in rows]


def select_tasks(connection: Connection, selection: Selection) -> list[Target]:
    """Return the tasks that a filter means, by job and arrival."""
    query = _tasks().where(*_of_job(connection, selection), *_own(selection, task.c.state, task.c.name))
    rows = connection.execute(query.order_by(job.c.submitted_at, job.c.id, task.c.arrival))
    return [Target(**row._asdict() | {"state": TaskState(row.state)}) for row in rows]


def _tasks() -> Select[tuple[str, str, str, str, bool]]:
    return select(task.c.job_id, task.c.id.label("task_id"), task.c.name, task.c.state, job.c.observed).join_from(
        task, job, task.c.job_id == job.c.id
    )


def _own(selection: Selection, state: ColumnElement[str], name: ColumnElement[str]) -> Iterator[ColumnElement[bool]]:
    if selection.states:
        yield state.in_(list(selection.states))
    if selection.name is not None:
        yield name == selection.name


def _of_job(connection: Connection, selection: Selection) -> Iterator[ColumnElement[bool]]:
    if selection.job_id is not None:
        yield job.c.id == selection.job_id
    if selection.older_than is not None:
        yield job.c.submitted_at < datetime.now(UTC) - selection.older_than
    # To PostgreSQL the column is text until it is cast; SQLite has no other type for JSON, and a cast would spoil it.
    as_json = type_coerce if connection.dialect.name == "sqlite" else cast
    for label, text in selection.labels.items():
        yield as_json(job.c.labels, JSON)[label].as_string() == text
