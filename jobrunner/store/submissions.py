"""Writing a new job: one transaction, all of it or none."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, Row, insert, select
from sqlalchemy.exc import IntegrityError

from jobrunner.store.bulk import insert_rows, portions
from jobrunner.store.schema import block, job, message, prerequisite, task


def find_key(connection: Connection, key: str) -> Row[str, str] | None:
    """Return id and digest of the job that holds a key."""
    return connection.execute(select(job.c.id, job.c.digest).where(job.c.key == key)).first()


def find_tasks(connection: Connection, task_ids: Collection[str]) -> dict[str, str]:
    """Return those of these ids that tasks have already, each with its job."""
    found: dict[str, str] = {}
    for some in portions(task_ids):
        known = select(task.c.id, task.c.job_id).where(task.c.id.in_(some))
        found |= {row.id: row.job_id for row in connection.execute(known)}
    return found


def insert_job(
    connection: Connection,
    row: Mapping[str, Any],
    *,
    blocks: Iterable[Mapping[str, Any]],
    tasks: Iterable[Mapping[str, Any]],
    messages: Iterable[Mapping[str, Any]],
    prerequisites: Iterable[Mapping[str, Any]],
    chosen_ids: Collection[str],
) -> bool:
    """Write a job with its whole plan, and what it waits for.

    False, and nothing written, if another process has meanwhile taken its key, or one of the ids that the caller chose
    for tasks.
    """
    try:
        with connection.begin_nested():
            connection.execute(insert(job), row)
            of_it = (block, blocks), (task, tasks), (message, messages), (prerequisite, prerequisites)
            for table, rows in of_it:
                insert_rows(connection, table, rows)
    except IntegrityError:
        if (row["key"] and find_key(connection, row["key"])) or find_tasks(connection, chosen_ids):
            return False
        raise
    return True
