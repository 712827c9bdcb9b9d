"""What tasks have logged, in parts as they were told."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from sqlalchemy import Connection, delete, select

from jobrunner.store.bulk import InsertNew
from jobrunner.store.schema import log_part
from jobrunner.store.tracking.rows import IsOneOf

_Execution: TypeAlias = tuple[str, int, int, str]

_EXECUTION = log_part.c.task_id, log_part.c.delivery, log_part.c.retries, log_part.c.process
_FIRST = select(*_EXECUTION, log_part.c.at).where(IsOneOf(log_part.c.task_id), log_part.c.number == 0)


def forget_earlier_parts(connection: Connection, first: Mapping[_Execution, datetime]) -> None:
    """Delete what was logged before the log began anew, at these moments; nearly always there is nothing."""
    if not first:
        return
    for *key, at in connection.execute(_FIRST, {"ids": list({task_id for task_id, *_ in first})}).all():
        since = first.get((key[0], key[1], key[2], key[3]), at)
        if at < since:
            of_it = (column == value for column, value in zip(_EXECUTION, key, strict=True))
            connection.execute(delete(log_part).where(*of_it, log_part.c.at < since))


_INSERT = InsertNew(log_part, ["task_id", "delivery", "retries", "process", "number", "at", "text"])


def insert_log_parts(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write parts of logs; what was told twice is written once."""
    _INSERT.run(connection, rows)
