"""What contract tests begin with: an app with a database, or a job in a simulated world."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobrunner import JobRunner
from tests.apps import new_runner
from tests.driven import Driven, driven
from tests.requeued import Requeued
from tests.servers.redis import Redis


@pytest.fixture
def runner(tmp_path: Path, database_url: str) -> Iterator[JobRunner]:
    """On each database, without a tracker or workers."""
    made = new_runner(tmp_path, database=database_url)
    yield made
    made.database.close()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """An empty server of the test's own."""
    server = Redis(tmp_path)
    yield server.start()
    server.close()


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


@pytest.fixture
def on_each(runner: JobRunner) -> Requeued:
    """A job to be submitted, run and requeued, on each database."""
    return Requeued(runner)


@pytest.fixture
def on_any(tmp_path: Path, any_database_url: str) -> Iterator[Requeued]:
    """The same on any database."""
    made = new_runner(tmp_path, database=any_database_url)
    yield Requeued(made)
    made.database.close()
