"""Houses and databases for tests that need real ones; see `tests.house` and `tests.servers`."""

import os
import signal
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.house import House
from tests.servers.databases import DATABASES, new_database_on

if TYPE_CHECKING:
    from tests.servers.postgres import Postgres
    from tests.servers.rabbitmq import RabbitMQ

pytest_plugins = ["tests.servers.plugin"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the nodes of pytest-celery be processes or containers."""
    parser.addoption(
        "--nodes",
        choices=("process", "docker"),
        default="process",
        help="what the nodes of pytest-celery are: processes of this machine (the default), or its own containers",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Choose the nodes; let the processes that tests start hear every signal, and keep what they have compiled.

    What a shell runs in the background ignores two of them. Hundreds of processes import all of our code, and a machine
    whose environment says that none may keep its bytecode would compile that in each: a fifth of the time of the suite.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    if config.getoption("--nodes") == "process":
        config.pluginmanager.import_plugin("tests.nodes.processes")
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(params=DATABASES)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return a database that no migration has seen, once on SQLite and once on PostgreSQL."""
    with new_database_on(request.param, request, tmp_path, template=False) as url:
        yield url


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return a new database with the newest schema, once on SQLite and once on PostgreSQL."""
    with new_database_on(request.param, request, tmp_path) as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.chaos)])
def any_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return a new database for tests that are about no database: one on SQLite, in `make chaos` one on PostgreSQL."""
    with new_database_on(request.param, request, tmp_path) as url:
        yield url


@pytest.fixture
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Return a house with a migrated database in which nothing runs yet, for a test that kills what it starts."""
    with _house(request, tmp_path_factory) as house:
        yield house


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Return a house with broker, tracker and worker, shared by the tests of a module that harm nobody."""
    with _house(request, tmp_path_factory) as house:
        house.broker()
        house.tracker()
        house.worker()
        yield house


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Build houses on the servers that the test's mark `house_on` names; on some for `make chaos` alone."""
    if "house" in metafunc.fixturenames:
        servers = _servers(metafunc, metafunc.function.__name__)
        metafunc.parametrize("house", servers, indirect=True, scope="function")
    if "running" in metafunc.fixturenames:
        metafunc.parametrize("running", _servers(metafunc, metafunc.module.__name__), indirect=True, scope="module")


def _servers(metafunc: pytest.Metafunc, name: str) -> list[Any]:
    """Return where a house stands: unless the test says so itself, on one database, and for `make chaos` on each.

    Which one follows from the name, of the test or of the module that shares the house. So both databases are under
    houses all the time, and what matters for a database by itself is in `tests/contract`, which has each.
    """
    marker = metafunc.definition.get_closest_marker("house_on")
    if marker:
        return [*marker.args, *(pytest.param(one, marks=pytest.mark.chaos) for one in marker.kwargs.get("chaos", ()))]
    chosen = DATABASES[zlib.crc32(name.encode()) % len(DATABASES)]
    return [pytest.param(f"{one}-redis", marks=() if one == chosen else pytest.mark.chaos) for one in DATABASES]


@contextmanager
def _house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Build a house on the servers that the fixture's parameter names, and take it down."""
    database, broker = request.param.split("-")
    postgres: Postgres | None = request.getfixturevalue("postgres") if database == "postgresql" else None
    rabbitmq: RabbitMQ | None = request.getfixturevalue("rabbitmq") if broker == "rabbitmq" else None
    home = tmp_path_factory.mktemp("h")  # a short name: the path of a socket is bounded
    with postgres.database() if postgres else nullcontext() as url:
        house = House(home, database_url=url, rabbitmq=rabbitmq)
        try:
            yield house
        finally:
            house.close()
