"""Opening a database, and the two kinds of transactions: reading and writing.

SQLite runs in WAL mode: readers and the one writer do not wait for each other. A writing transaction begins IMMEDIATE:
it takes the write lock at once, so that it never has to give up half-way because another writer was faster.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError

from jobrunner.errors import ConfigurationError, UnreachableError
from jobrunner.store.migrations import HEAD

#: Seconds that a writer waits for another one on SQLite.
_BUSY_TIMEOUT = 60


class Database:
    """One database, by its SQLAlchemy URL. Connects when first used; `close` gives the connections back."""

    def __init__(self, url: str, *, create: bool = False) -> None:
        """`create` allows a SQLite file to be made; without it a missing file is an error that says where it looked."""
        try:
            self.url: URL = make_url(url)
            self._engine = _sqlite_engine(self.url, create) if self.is_sqlite else create_engine(self.url)
        except (ArgumentError, ValueError):  # the latter for a port that is no number
            msg = f"{_masked(url)!r} is no database URL."
            raise ConfigurationError(msg, "Write it as sqlite:///path or postgresql://user@host/name.") from None
        except ImportError as error:
            msg = f"The driver of the database {self.where} is not installed ({error})."
            raise ConfigurationError(msg, "Install it, or set JOBRUNNER_DATABASE to another database.") from None
        self._create = create
        self._checked = create

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a SQLite file."""
        return self.url.get_backend_name() == "sqlite"

    @property
    def where(self) -> str:
        """The place for people: the path of the file, or the URL without its password."""
        if self.is_sqlite:
            return str(Path(str(self.url.database)).absolute())
        return self.url.render_as_string(hide_password=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads: one consistent view."""
        with self._transaction(self._engine.execution_options(jobrunner_begin="BEGIN")) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes; committed at the end of the block, rolled back on any exception."""
        with self._transaction(self._engine) as connection:
            yield connection

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        try:
            connecting = engine.connect()
        except DBAPIError as error:
            raise self._away(error) from error
        try:
            with connecting as connection, connection.begin():
                self._check_schema(connection)
                yield connection
        except (OperationalError, InterfaceError) as error:
            raise self._away(error) from error

    def _check_schema(self, connection: Connection) -> None:
        if self._checked:
            return
        found = schema_version(connection)
        if found is None:
            msg = f"The database {self.where} holds no jobrunner tables."
            raise UnreachableError(msg, "Run `jobrunner db upgrade`, or set JOBRUNNER_DATABASE to another one.")
        if found < HEAD:
            msg = f"The database {self.where} has schema {found}; this version needs {HEAD}."
            raise UnreachableError(msg, "Run `jobrunner db upgrade`.")
        self.refuse_newer(found)
        self._checked = True

    def refuse_newer(self, found: str) -> None:
        """Raise if the schema `found` is one that a later version made: what its rows mean is not ours to guess."""
        if found > HEAD:
            msg = f"The database {self.where} has schema {found}, newer than {HEAD}, which this version knows."
            raise UnreachableError(msg, "Upgrade jobrunner.")

    def _away(self, error: DBAPIError) -> UnreachableError:
        if self.is_sqlite and not self._create and not Path(self.where).exists():
            return UnreachableError(
                f"There is no database at {self.where}.",
                "Run `jobrunner up` or `jobrunner db upgrade` to create it, or set JOBRUNNER_DATABASE.",
            )
        if self.is_sqlite:
            return UnreachableError(
                f"The database {self.where} cannot be used ({str(error.orig).strip()}).",
                "See that it is a SQLite file that you may write to, or set JOBRUNNER_DATABASE to another one.",
            )
        return UnreachableError(
            f"The database {self.where} cannot be reached ({str(error.orig).strip()}).",
            "Start it, or set JOBRUNNER_DATABASE to another one.",
        )

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def schema_version(connection: Connection) -> str | None:
    """Return the migration that the database is at, or None if it has never seen one."""
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _masked(url: str) -> str:
    """Return what may be a URL without what may be its password."""
    return re.sub(r":.*@", ":***@", str(url))


def _sqlite_engine(url: URL, create: bool) -> Engine:
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
        connection.execute("PRAGMA journal_mode=WAL")
        # A commit survives any process; a power cut may take the last ones, and never leaves half of one.
        connection.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("jobrunner_begin", "BEGIN IMMEDIATE"))

    return engine
