"""The kinds of databases that the store's tests run on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.apps import new_database, sqlite_url

if TYPE_CHECKING:
    from tests.servers.postgres import Postgres

DATABASES = ("sqlite", "postgresql")


@contextmanager
def new_database_on(kind: str, request: pytest.FixtureRequest, folder: Path, *, template: bool = True) -> Iterator[str]:
    """Yield the URL of a new database on one of `DATABASES`, with the newest schema or empty."""
    if kind == "sqlite":
        yield new_database(folder) if template else sqlite_url(folder)
        return
    server: Postgres = request.getfixturevalue("postgres")
    with server.database(template=template) as url:
        yield url
