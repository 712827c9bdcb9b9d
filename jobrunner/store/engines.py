"""Engines: how each kind of database is connected to, and how its reading and writing transactions begin.

SQLite runs in WAL mode: readers and the one writer do not wait for each other. A writing transaction begins IMMEDIATE:
it takes the write lock at once, so that it never has to give up half-way because another writer was faster.

On PostgreSQL a reading transaction sees one snapshot, as on SQLite, and writers meet row by row.
"""

import sqlite3
import time
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url

from jobrunner.errors import ConfigurationError

#: Seconds that a writer waits for another one on SQLite.
_BUSY_TIMEOUT = 60
#: Seconds between two tries to enter WAL mode.
_LOCKED = 0.01
#: Seconds after which PostgreSQL ends a transaction whose process has fallen silent in it: a tracker that is frozen
#: within a turn holds the row of the lease, which a standby waits for, and is to have within 10 s.
FROZEN = 8
#: Seconds that connecting may take.
_CONNECT_TIMEOUT = 10


def normalized(url: str) -> URL:
    """Return a database's URL with the driver that we use.

    Raises:
        ArgumentError, ValueError: it is no URL.
        ConfigurationError: it is one of a database, or of a driver, that jobrunner cannot use.
    """
    parsed = make_url(url)
    if parsed.drivername in {"postgresql", "postgres"}:
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in {"sqlite", "sqlite+pysqlite", "postgresql+psycopg"}:
        msg = f"jobrunner keeps its data in SQLite or PostgreSQL, not by {parsed.drivername}."
        raise ConfigurationError(msg, "Write it as sqlite:///path or postgresql://user@host/name.")
    return parsed


def sqlite_engines(url: URL, *, create: bool) -> tuple[Engine, Engine]:
    """Return the engines that read and write a SQLite file; only with `create` they make it if it is missing."""
    if not url.database or url.database == ":memory:":
        msg = "A SQLite database in memory is gone with its process."
        raise ConfigurationError(msg, "Name a file, such as sqlite:///jobs.db.")
    # SQLite makes a missing file unless it is told not to, which only a URI can.
    mode = "rwc" if create else "rw"
    location = url.set(database=f"file:{quote(url.database)}", query={"mode": mode, "uri": "true"})
    engine = create_engine(location, connect_args={"timeout": _BUSY_TIMEOUT})

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver's own BEGIN would come too late, and deferred
        _enter_wal(connection)
        # A commit survives any process; a power cut may take the last ones, and never leaves half of one.
        connection.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("jobrunner_begin", "BEGIN IMMEDIATE"))

    return engine.execution_options(jobrunner_begin="BEGIN"), engine


def _enter_wal(connection: sqlite3.Connection) -> None:
    """Make the file one in WAL mode; while somebody else does the same, SQLite fails at once instead of waiting."""
    deadline = time.monotonic() + _BUSY_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(_LOCKED)
        else:
            return


def postgresql_engines(url: URL) -> tuple[Engine, Engine]:
    """Return the engines that read and write a PostgreSQL database.

    A connection that the server has dropped meanwhile, as when it was restarted, is replaced before it is used.
    """
    engine = create_engine(
        url, pool_pre_ping=True, connect_args={"connect_timeout": _CONNECT_TIMEOUT, "application_name": "jobrunner"}
    )

    from psycopg.types.array import ListBinaryDumper  # noqa: PLC0415  an extra: whoever is here has it

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        # As text, the driver looks at each item of an array for what must be quoted: five times as slow.
        connection.adapters.register_dumper(list, ListBinaryDumper)
        connection.execute(f"SET idle_in_transaction_session_timeout = '{FROZEN}s'")
        connection.commit()

    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True), engine
