"""The kinds of databases that the store's tests run on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.apps import new_database

if TYPE_CHECKING:
    from tests.servers.postgres import Postgres

DATABASES = ("sqlite", "postgresql")


@contextmanager
def new_database_on(kind: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """Yield the URL of a new database with the newest schema, on one of `DATABASES`."""
    if kind == "sqlite":
        yield new_database(folder)
        return
    server: Postgres = request.getfixturevalue("postgres")
    with server.database() as url:
        yield url
