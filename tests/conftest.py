"""Houses for tests that need real processes; see `tests.house`."""

import signal
from collections.abc import Iterator

import pytest

from tests.house import House


def pytest_configure() -> None:
    """Let the processes that tests start hear every signal: what a shell runs in the background ignores two of them."""
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Return a house with a migrated database in which nothing runs yet, for a test that kills what it starts."""
    house = House(tmp_path_factory.mktemp("h"))  # a short name: the path of a socket is bounded
    yield house
    house.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Return a house with broker, tracker and worker, shared by the tests of a module that harm nobody."""
    house = House(tmp_path_factory.mktemp("r"))
    house.broker()
    house.tracker()
    house.worker()
    yield house
    house.close()
