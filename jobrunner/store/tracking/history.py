"""What was decided, and why: lines that are only ever added."""

from collections.abc import Sequence

from sqlalchemy import Connection

from jobrunner import ids
from jobrunner.records import HistoryLine
from jobrunner.store.bulk import insert_rows
from jobrunner.store.schema import history


def insert_history(connection: Connection, lines: Sequence[HistoryLine]) -> None:
    """Write lines; their ids ascend in this order."""
    insert_rows(
        connection,
        history,
        [
            {"id": ids.uuid7(), "job_id": one.job_id, "task_id": one.task_id, "at": one.at, "line": one.line}
            for one in lines
        ],
    )
