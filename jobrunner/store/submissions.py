"""Writing a new job: one transaction, all of it or none."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select
from sqlalchemy.exc import IntegrityError

from jobrunner.store.schema import block, job, message, task


def find_key(connection: Connection, key: str) -> Row[str, str] | None:
    """Return id and digest of the job that holds a key."""
    return connection.execute(select(job.c.id, job.c.digest).where(job.c.key == key)).first()


def insert_job(
    connection: Connection,
    row: Mapping[str, Any],
    blocks: Sequence[Mapping[str, Any]],
    tasks: Sequence[Mapping[str, Any]],
    messages: Sequence[Mapping[str, Any]],
) -> bool:
    """Write a job with its whole plan; False, and nothing written, if another process has taken its key meanwhile."""
    try:
        with connection.begin_nested():
            connection.execute(insert(job), row)
            for table, rows in ((block, blocks), (task, tasks), (message, messages)):
                if rows:
                    connection.execute(insert(table), rows)
    except IntegrityError:
        if row["key"] is None or find_key(connection, row["key"]) is None:
            raise
        return False
    return True
