"""Requeue with real workers: who runs again, with which arguments, and what the others' values are then."""

import itertools
import json
import statistics
import threading
import time
from collections import Counter
from typing import Any, Self

import pytest
from celery import chain, chord, group
from sqlalchemy import select

from jobrunner.handle import Job
from jobrunner.states import JobState, TaskState
from jobrunner.store.check import check
from jobrunner.store.schema import job as jobs
from tests.house import PATIENCE, House
from tests.waiting import until

#: Tasks side by side, and those of them that fail.
_TASKS, _MANY = 30, 1_000
_FAILING = (1, 4, 9, 16, 20, 25, 28)
#: As long as no message of a broker should be, in characters.
_LONG = 200_000


def ran(house: House) -> Counter[int]:
    """Return how often each task has run, by its number; see that each had its arguments."""
    found: Counter[int] = Counter()
    for line in house.lines("ran"):
        number, length = map(int, line.split())
        assert length == (_LONG if number == _FAILING[0] else 3)
        found[number] += 1
    return found


def later(house: House) -> Counter[str]:
    """Return how often each task has run that comes after another."""
    return Counter(house.lines("later"))


@pytest.mark.house_on("postgresql-redis", chaos=["sqlite-redis", "sqlite-rabbitmq", "postgresql-rabbitmq"])
@pytest.mark.parametrize("tasks", [_TASKS, pytest.param(_MANY, marks=pytest.mark.chaos)])
def test_what_is_requeued_runs_with_all_that_depends_on_it_and_nothing_else_does(house: House, tasks: int) -> None:
    """Seven fail, six of them with a task that depends on it, and all are joined. Then all, then one runs again."""
    house.broker()
    house.tracker()
    house.worker()
    append, need, total = house.proj.append, house.proj.need, house.proj.total
    path, needed = house.path("ran"), house.gate("there")

    def one(number: int) -> Any:
        words = "x" * _LONG if number == _FAILING[0] else "abc"
        there = needed if number in _FAILING else house.home
        task = need.si(number, words, str(there), path)
        return chain(task, append.s(house.path("later"))) if number in _FAILING[1:] else task

    job = house.jobs.submit(
        chord([one(number) for number in range(tasks)], chain(total.s(), append.s(house.path("later"))))
    )
    assert job.wait(PATIENCE * 3) is JobState.FAILED
    assert ran(house) == dict.fromkeys(range(tasks), 1)
    assert job.view.counts == {
        TaskState.COMPLETED: tasks - len(_FAILING), TaskState.FAILED: 7, TaskState.CANCELED: 6 + 2,
    }  # fmt: skip
    kept = {task.id for task in job.tasks() if task.state is TaskState.COMPLETED}

    needed.open()
    answer = job.requeue().wait(PATIENCE)
    assert answer.text == "It is queued: 15 tasks run again."
    assert job.result(PATIENCE) == sum(range(tasks))
    assert ran(house) == dict.fromkeys(range(tasks), 1) | dict.fromkeys(_FAILING, 2)
    joined = {str(number): 1 for number in (*_FAILING[1:], sum(range(tasks)))}
    assert later(house) == joined
    assert {task.id for task in job.tasks() if task.delivery == 1 and task.id in kept} == kept
    house.check_completed_once(job)

    assert job.requeue().wait(PATIENCE).outcome == "done"
    assert job.result(PATIENCE * 3) == sum(range(tasks))
    assert ran(house) == dict.fromkeys(range(tasks), 2) | dict.fromkeys(_FAILING, 3)
    assert later(house) == dict.fromkeys(joined, 2)
    house.check_completed_once(job)

    (task,) = [one for one in job.tasks() if one.arrival == _arrival(_FAILING[2])]
    assert job.task(task.id).requeue().wait(PATIENCE).outcome == "done"
    assert job.result(PATIENCE) == sum(range(tasks))
    assert ran(house) == dict.fromkeys(range(tasks), 2) | dict.fromkeys(_FAILING, 3) | {_FAILING[2]: 4}
    again = (str(_FAILING[2]), str(sum(range(tasks))))
    assert later(house) == dict.fromkeys(joined, 2) | dict.fromkeys(again, 3)
    house.check_completed_once(job)
    assert check(house.jobs.database) == []


def _arrival(number: int) -> int:
    """Return the arrival of a task by its number: those that fail, but the first, are followed by another."""
    return number + sum(failing < number for failing in _FAILING[1:])


# ---- many --------------------------------------------------------------------------------------------------

#: Tasks of one job, tasks that one turn resets at most, and seconds that another job may take meanwhile.
_HUGE, _BATCH, _PROMPT = 100_000, 5_000, 30.0


class Watch:
    """Looks at a job as often as it can while it is in a state: what has been reset at which time."""

    def __init__(self, house: House, job: Job, state: JobState) -> None:
        self.looks: list[tuple[float, int]] = []
        self._house, self._job, self._state = house, job, state
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        row = select(jobs.c.state, jobs.c.requeue, jobs.c.n_canceled).where(jobs.c.id == self._job.id)
        while not self._over.wait(0.01):
            with self._house.jobs.database.read() as connection:
                now = connection.execute(row).one()
            if now.state == self._state:
                done = json.loads(now.requeue)["reset"] if now.requeue else now.n_canceled
                self.looks.append((time.monotonic(), done))

    @property
    def steps(self) -> list[int]:
        """How many tasks were changed between two looks, where any were."""
        done = [number for _, number in self.looks]
        return [later - earlier for earlier, later in itertools.pairwise(done) if later > earlier]

    @property
    def seconds(self) -> float:
        return self.looks[-1][0] - self.looks[0][0]


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.house_on("sqlite-redis", "postgresql-rabbitmq")
def test_a_hundred_thousand_tasks_are_canceled_and_requeued_in_batches_while_other_jobs_go_on(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    house.broker()
    house.tracker()
    house.worker()
    elsewhere = house.proj.identity.si(1).set(queue="nobody")
    job = house.jobs.submit(group(elsewhere for _ in range(_HUGE)), paused=True)
    until(lambda: job.state is JobState.PAUSED, timeout=PATIENCE, what="the tracker to take the job")
    for order, state in ((job.cancel, JobState.CANCEL_REQUESTED), (job.requeue, JobState.REQUEUEING)):
        with Watch(house, job, state) as watch:
            given, others = order(), []
            while given.answer is None:
                began = time.monotonic()
                assert house.jobs.submit(house.proj.add.s(1, 2)).result(PATIENCE) == 3
                others.append(time.monotonic() - began)
        assert given.answer.outcome == "done"
        with capsys.disabled():
            print(  # noqa: T201
                f"\n{_HUGE:,} tasks {state}: {watch.seconds:.1f} s, {len(watch.steps)} steps of {min(watch.steps):,} to"
                f" {max(watch.steps):,}; {len(others)} other jobs meanwhile, in {statistics.median(others):.2f} s each,"
                f" {max(others):.2f} s at most"
            )
        assert max(watch.steps) <= 2 * _BATCH  # a look may miss one turn
        assert len(watch.steps) >= _HUGE / _BATCH / 2
        assert max(others) < _PROMPT
    assert job.view.total == _HUGE
    assert job.cancel().wait(PATIENCE * 5).outcome == "done"
    assert job.view.counts == {TaskState.CANCELED: _HUGE}
    assert check(house.jobs.database) == []
