"""Items that were not processed: which tasks have some, and what a task takes that is to process only those."""

from collections.abc import Collection

from sqlalchemy import Connection, and_, bindparam, case, func, literal_column, or_, select, true, update

from jobrunner.plan import Place
from jobrunner.records import Standing, Unprocessed
from jobrunner.statements import Statement
from jobrunner.states import TaskState
from jobrunner.store.bulk import Update
from jobrunner.store.schema import addition, attempt, item_error, message, task
from jobrunner.store.tracking.rows import PLANNED, IsOneOf

#: A task that ended partial has its own; one that has not ended well since has those that it was sent with.
_IS_PARTIAL = task.c.state == TaskState.PARTIAL
_HAS_ITEMS = or_(
    _IS_PARTIAL, and_(task.c.state.in_((TaskState.FAILED, TaskState.CANCELED)), task.c.only_items.is_not(None))
)
_DELIVERY = case((_IS_PARTIAL, task.c.delivery), else_=task.c.only_items)
#: Celery's text of a tuple or list of arguments, in the JSON of the headers.
_NO_ARGUMENTS = or_(*(message.c.headers.contains(f'"argsrepr": "{text}"') for text in ("()", "[]")))
_SUCCEEDED = attempt.c.standing == literal_column(str(int(Standing.SUCCEEDED)))
_OF_EXECUTION = and_(*(item_error.c[name] == attempt.c[name] for name in ("task_id", "delivery", "retries", "process")))

_UNPROCESSED = (
    select(
        task.c.id,
        task.c.name,
        task.c.state,
        task.c.block_id,
        task.c.position,
        _DELIVERY.label("delivery"),
        attempt.c.statement,
        func.count(item_error.c.number).label("kept"),
        func.count(item_error.c.item).label("usable"),
        and_(task.c.takes_task.is_(None), task.c.takes_group.is_(None), _NO_ARGUMENTS).label("takes_nothing"),
    )
    .join_from(task, message, message.c.task_id == task.c.id)
    .outerjoin(attempt, and_(attempt.c.task_id == task.c.id, attempt.c.delivery == _DELIVERY, _SUCCEEDED))
    .outerjoin(item_error, _OF_EXECUTION)
    .where(task.c.job_id == bindparam("job_id_"), PLANNED, _HAS_ITEMS)
    .group_by(task.c.id, message.c.task_id, *attempt.primary_key)
    .order_by(task.c.arrival, attempt.c.retries, attempt.c.process)
)


def unprocessed(connection: Connection, job_id: str, task_id: str | None = None) -> list[Unprocessed]:
    """Return the tasks of a job with items that were not processed, in order of arrival; of one task only that."""
    query = _UNPROCESSED.where(true() if task_id is None else task.c.id == task_id)
    rows = (row._asdict() for row in connection.execute(query, {"job_id_": job_id}))
    # Of several executions of one delivery the last one decides, as for the task itself.
    found = {one["id"]: one | {"state": TaskState(one["state"])} for one in rows}
    return [Unprocessed(**one) for one in found.values()]


_ADDED = select(addition.c.task_id).where(
    addition.c.job_id == bindparam("job_id_"), addition.c.kept, addition.c.tasks > literal_column("0")
)


def grown_tasks(connection: Connection, job_id: str) -> set[str]:
    """Return the tasks that have added others to a job."""
    return set(connection.execute(_ADDED, {"job_id_": job_id}).scalars())


_UNWELL = (
    select(task.c.block_id, func.max(task.c.position).label("position"))
    .where(
        task.c.job_id == bindparam("job_id_"), PLANNED, task.c.state.not_in((TaskState.COMPLETED, TaskState.SKIPPED))
    )
    .group_by(task.c.block_id)
)


def last_unwell(connection: Connection, job_id: str) -> list[Place]:
    """Return the last place in each block whose task has not processed all that it takes, or has not ended yet."""
    return [Place(row.block_id, row.position) for row in connection.execute(_UNWELL, {"job_id_": job_id})]


_ONLY = Update(task, ["id"], ["only_items"])
_ALL = update(task).where(IsOneOf(task.c.id)).values(only_items=None)


def give_only_items(connection: Connection, tasks: Collection[tuple[str, int]]) -> None:
    """Let tasks take only the items that failed in a delivery: (task, delivery)."""
    _ONLY.run(connection, [{"id": id_, "only_items": delivery} for id_, delivery in tasks])


def give_all_items(connection: Connection, task_ids: Collection[str]) -> None:
    """Let tasks take what they took at first."""
    if task_ids:
        connection.execute(_ALL, {"ids": list(task_ids)})


_EXECUTION = (
    select(attempt.c.retries, attempt.c.process, attempt.c.statement)
    .where(attempt.c.task_id == bindparam("task_id_"), attempt.c.delivery == bindparam("delivery_"), _SUCCEEDED)
    .order_by(attempt.c.retries.desc(), attempt.c.process.desc())
    .limit(1)
)
_ITEMS = (
    select(item_error.c.item)
    .where(
        *(item_error.c[name] == bindparam(f"{name}_") for name in ("task_id", "delivery", "retries", "process")),
        item_error.c.number < bindparam("number_"),  # a process that ran it twice may have told of more before
    )
    .order_by(item_error.c.number)
)


def failed_items(connection: Connection, task_id: str, delivery: int) -> list[str | None]:
    """Return the items that failed in a delivery, each as JSON, as many as it has stated; None for one that is lost."""
    key = {"task_id_": task_id, "delivery_": delivery}
    execution = connection.execute(_EXECUTION, key).first()
    if execution is None or execution.statement is None:
        return []
    number = Statement.loads(execution.statement).errors
    key |= {"retries_": execution.retries, "process_": execution.process, "number_": number}
    found = list(connection.execute(_ITEMS, key).scalars())
    return found + [None] * (number - len(found))
