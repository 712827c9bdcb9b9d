"""What tasks have logged, in parts as they were told."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from jobrunner.store.bulk import InsertNew
from jobrunner.store.schema import log_part

_INSERT = InsertNew(log_part, ["task_id", "delivery", "retries", "process", "number", "at", "text"])


def insert_log_parts(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write parts of logs; what was told twice is written once."""
    _INSERT.run(connection, rows)
