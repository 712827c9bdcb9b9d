"""The other way to track: each event in a transaction of its own, as it arrives, in plain SQL on PostgreSQL.

One look at what is known, then what is new about attempt and task, then the commit. The driver prepares each statement
once, and nothing stands between it and this loop; nothing here does what makes the order of events not matter.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import make_url

from benchmarks.told import EventFields

_KNOWN = "SELECT standing FROM attempt WHERE task_id = %(uuid)s AND delivery = 1 AND retries = %(retries)s"
_RECEIVED = [
    """INSERT INTO attempt
    (task_id, delivery, retries, process, celery_id, standing, last_event, worker, pid, received_at)
    VALUES (%(uuid)s, 1, %(retries)s, %(hostname)s, %(uuid)s, 4, %(type)s, %(hostname)s, %(pid)s, %(at)s)""",
]
_STARTED = [
    """UPDATE attempt SET standing = 8, last_event = %(type)s, started_at = %(at)s
    WHERE task_id = %(uuid)s AND delivery = 1 AND retries = %(retries)s""",
    "UPDATE task SET state = 'active', started_at = %(at)s WHERE id = %(uuid)s",
]
_SUCCEEDED = [
    """UPDATE attempt SET standing = 9, last_event = %(type)s, ended_at = %(at)s, outcome = 'succeeded',
    runtime = %(runtime)s, result = %(result)s
    WHERE task_id = %(uuid)s AND delivery = 1 AND retries = %(retries)s""",
    "UPDATE task SET state = 'completed', ended_at = %(at)s WHERE id = %(uuid)s",
]
#: By event type: what it says, see `Standing`, and its statements.
_CHANGES = {"task-received": (4, _RECEIVED), "task-started": (8, _STARTED), "task-succeeded": (9, _SUCCEEDED)}


def connect(url: str) -> Any:
    """Return a connection of the driver to a database, by its SQLAlchemy URL."""
    import psycopg  # noqa: PLC0415  it may be missing

    return psycopg.connect(make_url(url).set(drivername="postgresql").render_as_string(), autocommit=True)


def absorb(connection: Any, told: Sequence[EventFields]) -> None:
    """Write events one by one."""
    for event in told:
        with connection.transaction(), connection.cursor() as cursor:
            _write(cursor, event)


def _write(cursor: Any, event: EventFields) -> None:
    given = event | {"at": datetime.fromtimestamp(event["timestamp"], UTC)}
    known = cursor.execute(_KNOWN, given).fetchone()
    standing, statements = _CHANGES[event["type"]]
    if known is None or known[0] < standing:
        for statement in statements:
            cursor.execute(statement, given)
