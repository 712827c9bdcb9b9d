"""Tasks by the Celery ids under which their values lie, with what decides whether they may run again."""

from collections.abc import Collection, Mapping

from sqlalchemy import Connection, exists, select

from jobrunner.records import Producer, Task
from jobrunner.store.schema import task
from jobrunner.store.tracking.rows import PLANNED, IsOneOf, rows_of
from jobrunner.store.tracking.tasks import tasks_by_celery_id

_child = task.alias("child")
_GREW = exists().where(_child.c.created_by == task.c.id, _child.c.block_id != "")
_FACTS = select(task.c.id, task.c.name, task.c.replayable, _GREW.label("grew")).where(IsOneOf(task.c.id), PLANNED)


def producers(connection: Connection, celery_ids: Collection[str], known: Mapping[str, Task]) -> dict[str, Producer]:
    """Return the planned tasks that ran under these Celery ids; those `known` are not read again."""
    found = tasks_by_celery_id(connection, celery_ids)
    tasks = {one.id: one for one in found.values()} | dict(known)
    facts = {row.pop("id"): row for row in rows_of(connection, _FACTS, {one.id for one in found.values()})}
    return {
        celery_id: Producer(task=tasks[one.id], **facts[one.id]) for celery_id, one in found.items() if one.id in facts
    }
