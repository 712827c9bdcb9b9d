"""Canvases run by Celery itself, as jobs, and inline: same values, by the same tasks with the same inputs.

What is deliberately not the same is listed in `docs/canvas.md`, and each line there has a test here, in
`tests/unit/test_canvas.py` or in `tests/unit/test_submit.py`.
"""

import time
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import pytest
from celery import Signature, chain, chord, group
from celery.canvas import _chain, _chord

from jobrunner.states import JobState
from jobrunner.testing import run
from tests.house import PATIENCE, House, on_sqlite
from tests.integration.canvases import Maker
from tests.waiting import until

pytestmark = on_sqlite

Canvas = Callable[[ModuleType], Signature]

#: Canvases that random ones do not have, with the number of their tasks and of those that are called back. Whether
#: Celery heeds options of a group depends on what follows it.
SHAPES: dict[str, tuple[Canvas, int, int]] = {
    "options of a group that ends a chain": (
        lambda p: chain(p.meet.s(), group(p.meet.s(), chain(p.meet.s(), p.meet.s())).set(time_limit=77)), 4, 0),
    "options of a body that is a group": (
        lambda p: chord([p.meet.s(), p.meet.s()], group(p.meet.s(), p.meet.s()).set(time_limit=77)), 4, 0),
    "options of a chain with a group at its head": (
        lambda p: _chain(group(p.meet.s(), p.meet.s()), p.meet.s(), p.meet.s(), time_limit=77), 4, 0),
    "a group and a task": (lambda p: group(p.meet.s(), p.meet.s()) | p.meet.s(), 3, 0),
    "a task and a group": (lambda p: p.meet.s() | group(p.meet.s(), p.meet.s()), 3, 0),
    "a chord and a task": (lambda p: chord([p.meet.s()], p.meet.s()) | p.meet.s(), 3, 0),
    "a chord and a group": (lambda p: chord([p.meet.s()], p.meet.s()) | group(p.meet.s(), p.meet.s(1)), 4, 0),
    "a chain and a chord": (lambda p: (p.meet.s() | p.meet.s()) | chord([p.meet.s()], p.meet.s()), 4, 0),
    "a chain and groups": (lambda p: (p.meet.s() | p.meet.s()) | group(p.meet.s(), p.meet.s(1)) | group(
        p.meet.s(), p.meet.s(1)) | p.meet.s(), 7, 0),
    "options that are none": (lambda p: group(p.meet.s().set(time_limit=77), p.meet.s()).set(time_limit=None), 2, 0),
    "a group of one in a chain": (lambda p: _chain(p.meet.s(), group([p.meet.s(2)]), p.meet.s()), 3, 0),
    "an empty group in a chain": (lambda p: _chain(p.meet.s(), group([]), p.meet.s()), 2, 0),
    "an immutable chain in a group": (
        lambda p: chain(p.meet.s(), group(_chain(p.meet.s(), p.meet.s()).set(immutable=True), p.meet.s())), 4, 0),
    "a chord over nothing": (lambda p: chord([], p.meet.s()), 1, 0),
    "a skewed group": (lambda p: group(p.meet.s(i) for i in range(3)).skew(start=0.0, stop=0.2, step=0.1), 3, 0),
    "a callback of a chain": (lambda p: chain(p.meet.s(), p.meet.s()).set(link=[p.meet.s(2)]), 2, 1),
    "a callback of a chord": (lambda p: chord([p.meet.s()], chain(p.meet.s(), p.meet.s())).set(link=p.meet.s()), 3, 1),
    "callbacks that are canvases": (
        lambda p: p.meet.s(1).set(link=[chain(p.meet.s(), p.meet.s()), chord([p.meet.s(), p.meet.s()], p.meet.s())]),
        1, 5),
}  # fmt: skip

#: Canvases and what a job makes of them, where Celery 5.7 makes something else.
DIFFERENCES: dict[str, tuple[Canvas, Any]] = {
    "a group in a group stays one, and in order": (
        lambda p: chain(group(p.identity.s(1), group(p.identity.s(2), p.identity.s(3)), p.identity.s(4)),
                        p.identity.s()), [1, [2, 3], 4]),
    "an empty group in a group has its place": (lambda p: group(p.identity.s(1), group([])), [1, []]),
    "a group of one canvas that ends in a group is a list of one": (
        lambda p: group([chain(p.identity.s(1), group(p.identity.s(), p.identity.s()))]), [[1, 1]]),
    "chunks have their values wherever they are": (
        lambda p: chain(group(p.add.chunks([(1, 2), (3, 4), (5, 6)], 2), p.identity.s(0)), p.identity.s()),
        [[[3, 7], [11]], 0]),
    "a chord whose body is an empty group ends": (
        lambda p: group(p.identity.s(1), chord([p.identity.s(2)], group([]))), [1, []]),
    "what follows a body that is a group runs once": (
        lambda p: _chain(_chord([p.identity.s(1)], group(p.identity.s(), p.identity.s())), p.identity.s()),
        [[1], [1]]),
    "a chord in a group that ends a member of a group ends": (
        lambda p: chord([chain(p.identity.s(2), group(p.identity.s(), chord([p.identity.s()], p.identity.s()))),
                         p.identity.s(1)], p.identity.s()), [[2, [2]], 1]),
    "a chord over a generator is like one over a list": (
        lambda p: chord((chain(p.identity.s(i), group(p.identity.s(), p.identity.s())) for i in range(2)),
                        p.identity.s()), [[0, 0], [1, 1]]),
    "a task finds no canvas in its request": (lambda p: chord([p.canvas_of.si()], p.identity.s()), [[None] * 3]),
}  # fmt: skip


def in_turn(house: House, number: int, canvases: Iterable[tuple[Callable[[], Signature], int]]) -> None:
    """Run canvases by Celery, as jobs, then inline. `meet` is called so often by all; each has so many tasks."""
    canvases = list(canvases)
    theirs = [make().apply_async() for make, _ in canvases]
    values = [result.get(timeout=PATIENCE) for result in theirs]
    met = everybody_met(house, number)
    jobs = [house.jobs.submit(make()) for make, _ in canvases]
    assert [job.result(PATIENCE) for job in jobs] == values
    assert everybody_met(house, number) == met
    for job, (_, tasks) in zip(jobs, canvases, strict=True):
        assert job.state is JobState.COMPLETED
        assert sum(task.created_by is None for task in job.tasks()) == tasks
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JOBRUNNER_HOME", str(house.home))
        inline = [run(make()) for make, _ in canvases]
    assert [job.result() for job in inline] == values
    # What Celery runs eagerly, as callbacks here, has no time limits in its request: who told so tells another value.
    assert len(everybody_met(house, number)) == number
    assert [len(job.tasks()) for job in inline] == [len(job.tasks()) for job in jobs]


def everybody_met(house: House, number: int) -> list[str]:
    """Wait until `meet` has been called so often, and return what it was given each time."""
    until(lambda: len(house.lines("met")) >= number, timeout=PATIENCE, what=f"{number} calls of meet")
    lines = house.lines("met")
    (house.home / "met").unlink(missing_ok=True)
    return sorted(lines)


def run_random(house: House, seeds: range) -> int:
    """Run random canvases both ways and return how many calls they made each time."""
    makers = {seed: Maker(seed, f"c{seed}", house.proj) for seed in seeds}
    for maker in makers.values():
        maker.canvas()
    calls = sum(maker.calls for maker in makers.values())
    in_turn(
        house,
        calls,
        ((lambda seed=seed: Maker(seed, f"c{seed}", house.proj).canvas(), one.tasks) for seed, one in makers.items()),
    )
    return calls


# ---- the same as Celery --------------------------------------------------------------------------------


def test_random_canvases_have_the_values_and_the_tasks_that_they_have_with_celery(running: House) -> None:
    assert run_random(running, range(30)) > 200


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_hundreds_of_random_canvases_have_the_values_and_the_tasks_that_they_have_with_celery(running: House) -> None:
    began, calls = time.monotonic(), 0
    for start in range(1_000, 1_400, 50):
        calls += run_random(running, range(start, start + 50))
    print(f"400 canvases, {calls:,} calls each by Celery and as jobs, {time.monotonic() - began:.0f} s")  # noqa: T201


def test_options_and_callbacks_of_canvases_are_for_the_tasks_that_get_them_from_celery(running: House) -> None:
    shapes = [((lambda make=make: make(running.proj)), tasks) for make, tasks, _ in SHAPES.values()]
    in_turn(running, sum(tasks + called for _, tasks, called in SHAPES.values()), shapes)


def test_errbacks_are_called_as_by_celery(running: House) -> None:
    fail, identity, told = running.proj.fail, running.proj.identity, running.proj.meet_failure

    def canvases() -> list[Signature]:
        return [
            fail.s("task").set(link_error=[told.s(label="its own"), told.s(label="another")]),
            chain(identity.s("chain"), fail.s(), identity.s()).on_error(told.s(label="any task's of a chain")),
            group(fail.s("member"), identity.s(1)).set(link_error=told.s(label="any task's of a group")),
            chord([identity.s("body")], fail.s()).set(link_error=told.s(label="the body's of a chord")),
        ]

    for canvas in canvases():
        canvas.apply_async()
    theirs = everybody_met(running, 5)
    jobs = [running.jobs.submit(canvas) for canvas in canvases()]
    assert {job.wait(PATIENCE) for job in jobs} == {JobState.FAILED}
    assert everybody_met(running, 5) == theirs


# ---- deliberately not the same -------------------------------------------------------------------------


@pytest.mark.parametrize(("canvas", "value"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_unlike_celery(running: House, canvas: Canvas, value: object) -> None:
    assert running.jobs.submit(canvas(running.proj)).result(PATIENCE) == value
    assert run(canvas(running.proj)).result() == value


def test_unlike_celery_each_task_of_a_header_that_fails_calls_the_errback_of_the_chord(running: House) -> None:
    proj = running.proj
    header = [proj.fail.s("one"), chain(proj.identity.s("two"), proj.fail.s()), proj.identity.s(3)]
    job = running.jobs.submit(chord(header, proj.identity.s().on_error(proj.meet_failure.s(label="chord"))))
    assert job.wait(PATIENCE) is JobState.FAILED
    assert everybody_met(running, 2) == [f"chord: {proj.fail.name} ValueError('{told}')" for told in ("one", "two")]
