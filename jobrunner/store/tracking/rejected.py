"""What the tracker could not fold."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from jobrunner import ids
from jobrunner.records import RejectedEvent
from jobrunner.store.bulk import insert_rows
from jobrunner.store.schema import rejected_event


def insert_rejected(connection: Connection, events: Sequence[RejectedEvent], now: datetime) -> None:
    """Write down events that were rejected in this turn."""
    rows = [
        {"id": ids.uuid7(), "at": now} | {name: getattr(one, name) for name in RejectedEvent.__slots__}
        for one in events
    ]
    insert_rows(connection, rejected_event, rows)
