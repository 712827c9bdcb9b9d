"""A job in a simulated world, for tests of what turns of the tracker make of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.driven import Driven, driven


@pytest.fixture
def here(tmp_path: Path, database_url: str) -> Iterator[Driven]:
    """On each database."""
    with driven(tmp_path, database_url) as made:
        yield made


@pytest.fixture
def one(tmp_path: Path, any_database_url: str) -> Iterator[Driven]:
    """On any database, where that makes no difference."""
    with driven(tmp_path, any_database_url) as made:
        yield made
