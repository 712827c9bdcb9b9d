"""A database, by its URL: reading and writing transactions, and plain words for what may be wrong with it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from jobrunner.errors import ConfigurationError, UnreachableError
from jobrunner.masking import mask_text, mask_url
from jobrunner.store.engines import normalized, postgresql_engines, sqlite_engines
from jobrunner.store.migrations import HEAD

#: What ails the database or the way to it, and not a statement; PostgreSQL's word for a session that it has ended
#: because it was frozen is an internal error.
_AWAY = (OperationalError, InterfaceError, InternalError)
#: What PostgreSQL calls errors of a statement, and what is to be done: no other statement would fare better.
_REMEDIES = {
    "42501": "Grant that right to its user",
    "42P01": "Compare it with `jobrunner db check`",  # no such table
    "42703": "Compare it with `jobrunner db check`",  # no such column
}


class Database:
    """One database, by its SQLAlchemy URL. Connects when first used; `close` gives the connections back."""

    def __init__(self, url: str, *, create: bool = False) -> None:
        """`create` allows a SQLite file to be made; without it a missing file is an error that says where it looked."""
        try:
            self.url = normalized(url)
            self._reading, self._writing = (
                sqlite_engines(self.url, create=create) if self.is_sqlite else postgresql_engines(self.url)
            )
        except (ArgumentError, ValueError):  # the latter for a port that is no number
            msg = f"{mask_url(url)!r} is no database URL."
            raise ConfigurationError(msg, "Write it as sqlite:///path or postgresql://user@host/name.") from None
        except ImportError as error:
            msg = f"The driver of the database {self.where} is not installed ({error})."
            raise ConfigurationError(msg, "Install it with `pip install 'jobrunner[postgresql]'`.") from None
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
        return mask_url(self.url.set(drivername="postgresql").render_as_string(hide_password=True))

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads: one consistent view."""
        with self._transaction(self._reading) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes; committed at the end of the block, rolled back on any exception."""
        with self._transaction(self._writing) as connection:
            yield connection

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        try:
            connecting = engine.connect()
        except DBAPIError as error:
            raise self._away(error) from error
        except PoolTimeoutError as error:
            msg = f"All connections of this process to the database {self.where} are in use."
            raise UnreachableError(msg, "Use fewer threads at a time.") from error
        try:
            with connecting as connection, connection.begin():
                self._check_schema(connection)
                yield connection
        except DBAPIError as error:
            if is_away(error):
                raise self._away(error) from error
            raise

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
        if (remedy := _remedy(error)) is not None:
            return UnreachableError(
                f"The database {self.where} cannot be used ({str(error.orig).strip()}).",
                f"{remedy}, or set JOBRUNNER_DATABASE to another one.",
            )
        return UnreachableError(
            f"The database {self.where} cannot be reached ({mask_text(str(error.orig).strip())}).",
            "Start it, or set JOBRUNNER_DATABASE to another one.",
        )

    def close(self) -> None:
        """Close all connections."""
        self._writing.dispose()  # both engines share one pool


def schema_version(connection: Connection) -> str | None:
    """Return the migration that the database is at, or None if it has never seen one."""
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def is_away(error: BaseException) -> bool:
    """Whether an error is about the database, or the way to it, and not about what was to be written."""
    return isinstance(error, _AWAY) or (isinstance(error, DBAPIError) and _remedy(error) is not None)


def _remedy(error: DBAPIError) -> str | None:
    return _REMEDIES.get(getattr(error.orig, "sqlstate", None) or "")
