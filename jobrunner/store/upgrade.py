"""Bring a database to the newest schema."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from jobrunner.store.database import Database, schema_version
from jobrunner.store.migrations import FOLDER, HEAD


def upgrade(url: str) -> tuple[str | None, str]:
    """Create the database's tables, or bring them up to date; return the versions before and after.

    One transaction: a migration that fails leaves the old schema. On SQLite this creates the file and its folder.
    """
    database = Database(url, create=True)
    if database.is_sqlite:
        Path(str(database.url.database)).parent.mkdir(parents=True, exist_ok=True)
    try:
        with database.write() as connection:
            before = schema_version(connection)
            if before is None or before < HEAD:
                command.upgrade(_config(connection), "head")
    finally:
        database.close()
    return before, before if before is not None and before > HEAD else HEAD


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.attributes["connection"] = connection
    return config
