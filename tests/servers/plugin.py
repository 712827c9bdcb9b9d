"""The session's servers as fixtures, each started when the first test asks for it, and the line that names them.

A server that is missing skips the tests that need it, by its name; in CI it fails them.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest

from jobrunner.errors import ConfigurationError
from tests.process import dismiss_guardian
from tests.servers import postgres as postgresql
from tests.servers import rabbitmq as rabbit
from tests.servers import redis
from tests.servers.postgres import Postgres
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.server import AbsentError

_SERVERS: dict[str, ModuleType] = {"Redis": redis, "PostgreSQL": postgresql, "RabbitMQ": rabbit}


def pytest_report_header() -> str:
    """Name the servers that this session runs on."""
    return "servers: " + ", ".join(_found(name, module) for name, module in _SERVERS.items())


def _found(name: str, module: ModuleType) -> str:
    try:
        return str(module.version())
    except (AbsentError, ConfigurationError):
        return f"{name}: none installed"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Return the session's PostgreSQL server."""
    with _present():
        server = Postgres().start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """Return the session's RabbitMQ node; a test may kill it, the next house starts it again."""
    with _present():
        server = RabbitMQ().start()
    yield server
    server.close()


@contextmanager
def _present() -> Iterator[None]:
    try:
        yield
    except AbsentError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


def pytest_unconfigure() -> None:
    """End what tests have left."""
    dismiss_guardian()
