"""Houses for tests that need real processes; see `tests.house`."""

from collections.abc import Iterator

import pytest

from tests.house import House


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
