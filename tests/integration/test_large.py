"""Jobs of extreme shapes run to their end: the longest chain, the deepest nesting. For many tasks see benchmarks."""

from collections.abc import Callable
from types import ModuleType

import pytest
from celery import chain, group
from celery.canvas import Signature

from jobrunner.store.check import wrong_counters
from tests.house import House, on_sqlite

pytestmark = on_sqlite

LENGTH, DEPTH = 2_000, 50
#: Seconds that a job may take of which no two tasks run at a time.
PATIENCE = 600.0


def long(proj: ModuleType) -> Signature:
    """A chain that counts its tasks."""
    return chain(proj.add.s(0, 1), *(proj.add.s(1) for _ in range(LENGTH - 1)))


def deep(proj: ModuleType) -> Signature:
    """A group in a chain in a group, and so on: the value is a list in a list, with the level beside each."""
    inner = proj.identity.si(DEPTH)
    for level in reversed(range(DEPTH)):
        inner = chain(proj.identity.si(level), group(inner, proj.identity.si(level)))
    return inner


def check_runs(
    house: House, canvas: Signature, tasks: int, value: Callable[[object], object], expected: object
) -> None:
    job = house.jobs.submit(canvas)
    assert value(job.result(PATIENCE)) == expected
    house.check_completed_once(job)
    assert job.view.total == tasks
    with house.jobs.database.read() as connection:
        assert wrong_counters(connection) == []


def nested(value: object) -> list[object]:
    """Return what stands beside each list, from the outermost on."""
    beside = []
    while isinstance(value, list):
        value, other = value
        beside.append(other)
    return [*beside, value]


def test_a_canvas_fifty_groups_deep_runs_to_its_end(running: House) -> None:
    check_runs(running, deep(running.proj), 2 * DEPTH + 1, nested, list(range(DEPTH + 1)))


@pytest.mark.chaos
@pytest.mark.timeout(PATIENCE)
def test_a_chain_of_two_thousand_tasks_runs_to_its_end(running: House) -> None:
    check_runs(running, long(running.proj), LENGTH, lambda value: value, LENGTH)
