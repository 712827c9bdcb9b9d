"""The history of jobs: what was decided without anybody asking for it, and why."""

from collections.abc import Sequence

from sqlalchemy import Connection

from jobrunner import ids
from jobrunner.records import HistoryLine
from jobrunner.store.bulk import insert_rows
from jobrunner.store.schema import history


def insert_history(connection: Connection, lines: Sequence[HistoryLine]) -> None:
    """Write lines of history, in this order."""
    rows = [
        {"id": ids.uuid7(), "job_id": one.job_id, "task_id": one.task_id, "at": one.at, "line": one.line}
        for one in lines
    ]
    insert_rows(connection, history, rows)
