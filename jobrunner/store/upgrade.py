"""Bring a database to the newest schema."""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from jobrunner.errors import UnreachableError
from jobrunner.store.database import Database, schema_version
from jobrunner.store.migrations import FOLDER, HEAD

#: Held to the end of the transaction: two upgrades that start at once run one after the other.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('jobrunner upgrade'))")


def upgrade(url: str) -> tuple[str | None, str]:
    """Create the database's tables, or bring them up to date; return the versions before and after.

    One transaction: a migration that fails leaves the old schema. On SQLite this creates the file and its folder.

    Raises:
        UnreachableError: it cannot be opened or created, or a newer version of jobrunner made it.
    """
    database = Database(url, create=True)
    if database.is_sqlite:
        _make_file(Path(database.where))
    try:
        with database.write() as connection:
            if not database.is_sqlite:
                connection.execute(_LOCK)  # SQLite's writers are alone anyway
            before = schema_version(connection)
            if before is not None:
                database.refuse_newer(before)
            if before != HEAD:
                _migrate(connection)
    finally:
        database.close()
    return before, HEAD


def create_if_empty(database: Database, *, make_file: bool) -> bool:
    """Make the tables of a database in which there is nothing at all; a SQLite file only if it may be made.

    Whatever else may be wrong with it is left to who uses it next, and is told there.
    """
    if database.is_sqlite and not Path(database.where).exists() and not make_file:
        return False
    url = database.url.render_as_string(hide_password=False)
    if not database.is_sqlite or Path(database.where).exists():
        looking = Database(url, create=True)  # which takes a database without tables for a database
        try:
            with looking.read() as connection:
                empty = not inspect(connection).get_table_names()
        finally:
            looking.close()
        if not empty:
            return False
    upgrade(url)
    return True


def _make_file(path: Path) -> None:
    """Make an empty file for its owner alone: arguments are nobody else's business. SQLite's other files follow."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError as error:
        msg = f"The database {path} cannot be created ({error.strerror})."
        raise UnreachableError(msg, "Choose another place with JOBRUNNER_DATABASE or JOBRUNNER_HOME.") from None


def _migrate(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415  a sixth of the start of every command, and few have to migrate
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
