"""The history of jobs: every move of theirs, what was ordered, and what was decided without anybody asking for it."""

from collections.abc import Sequence

from sqlalchemy import Connection

from jobrunner import ids
from jobrunner.records import HistoryLine
from jobrunner.store.bulk import insert_rows
from jobrunner.store.schema import history


def insert_history(connection: Connection, lines: Sequence[HistoryLine]) -> None:
    """Write lines of history, in this order."""
    rows = [{"id": ids.uuid7()} | {name: getattr(one, name) for name in HistoryLine.__slots__} for one in lines]
    insert_rows(connection, history, rows)
