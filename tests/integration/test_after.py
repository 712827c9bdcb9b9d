"""Jobs after jobs with real workers: a chain and a fan of them, and one that fails and is requeued."""

import statistics
from collections.abc import Callable, Iterator
from datetime import datetime

import pytest
from sqlalchemy import select

from jobrunner.states import FailureReason, JobState
from jobrunner.store.check import wrong_counters
from jobrunner.store.schema import attempt, history, job, prerequisite, task
from tests.apps import store
from tests.house import PATIENCE, House, on_sqlite
from tests.waiting import until

#: Jobs that wait for each other in a row, and jobs that wait for one.
_FEW, _MANY = 12, 1_000
#: Seconds from the end of what a job has waited for last until it is released.
_PROMPT = 1.0
#: Seconds that a run of a thousand may take.
_LONG = 900.0


def row(house: House, number: int) -> Iterator[str]:
    """Submit jobs that run one after the other, the last one first: each waits for one that does not exist yet."""
    for one in reversed(range(number)):
        after = [f"row-{one - 1}"] if one else []
        yield store(house.jobs, house.proj.append.si(one, house.path("ran")), key=f"row-{one}", after=after)


def fan(house: House, number: int) -> Iterator[str]:
    """Submit jobs that all run after one, which is submitted last."""
    for one in range(1, number + 1):
        yield store(house.jobs, house.proj.append.si(one, house.path("ran")), after=["root"])
    yield store(house.jobs, house.proj.append.si(0, house.path("ran")), key="root")


def delays(house: House) -> tuple[list[float], list[float]]:
    """Return how long after the end of what it waited for last, by its worker's clock, each job was released and sent.

    See that each was released once.
    """
    before = task.alias("before")
    query = (
        select(attempt.c.ended_at, history.c.at, task.c.sent_at, history.c.job_id)
        .join_from(history, prerequisite, prerequisite.c.job_id == history.c.job_id)
        .join(before, before.c.job_id == prerequisite.c.on_job)
        .join(attempt, attempt.c.task_id == before.c.id)
        .join(task, task.c.job_id == history.c.job_id)
        .where(history.c.old == JobState.WAITING, history.c.new == JobState.QUEUED)
    )
    with house.jobs.database.read() as connection:
        rows = connection.execute(query).all()
        assert wrong_counters(connection) == []
    assert len({one.job_id for one in rows}) == len(rows)

    def between(first: datetime, then: datetime) -> float:
        return (then - first).total_seconds()

    return [between(one.ended_at, one.at) for one in rows], [between(one.ended_at, one.sent_at) for one in rows]


def told(what: str, seconds: list[float]) -> str:
    return f"{what}: median {statistics.median(seconds):.3f} s, worst {max(seconds):.3f} s"


@pytest.mark.timeout(_LONG)
@pytest.mark.house_on("sqlite-redis", chaos=["postgresql-rabbitmq"])
@pytest.mark.parametrize("number", [_FEW, pytest.param(_MANY, marks=pytest.mark.chaos)])
@pytest.mark.parametrize("shape", [pytest.param(row, marks=pytest.mark.chaos), fan])
def test_each_job_is_released_once_and_at_once(
    house: House, shape: Callable[[House, int], Iterator[str]], number: int
) -> None:
    house.broker()
    house.tracker()
    house.worker()
    jobs = list(shape(house, number))

    def completed() -> bool:
        with house.jobs.database.read() as connection:
            states = connection.execute(select(job.c.state).distinct()).scalars().all()
        return states == [JobState.COMPLETED]

    until(completed, timeout=_LONG, what=f"the end of {number} jobs")
    ran = [int(line) for line in house.lines("ran")]
    assert sorted(ran) == list(range(len(jobs)))
    assert ran == sorted(ran) or shape is fan
    released, sent = delays(house)
    print(f"{shape.__name__} of {number:,} jobs: {told('released', released)}; {told('sent', sent)}")  # noqa: T201
    assert len(released) == len(jobs) - 1
    assert max(released) < _PROMPT


@on_sqlite
def test_jobs_wait_on_for_one_that_has_failed_and_run_when_that_has_completed_after_all(house: House) -> None:
    """J1 ← J2 ← J3, J4: C4 and, with failures that do not propagate, C5."""
    house.broker()
    house.tracker()
    house.worker()
    proj, there = house.proj, house.gate("there")
    second = house.jobs.submit(proj.append.si(2, house.path("ran")), name="J2", key="J2", after=["J1"])
    others = [
        house.jobs.submit(proj.append.si(3, house.path("ran")), name=name, after=[second]) for name in ("J3", "J4")
    ]
    first = house.jobs.submit(proj.need.si(1, "abc", str(there), house.path("ran")), name="J1", key="J1")
    assert first.wait(PATIENCE) is JobState.FAILED
    shown = house.ask("show", second.id).out
    assert "state      waiting\n" in shown
    assert f"waits      for job J1 [{first.id}], which has failed: `jobrunner requeue {first.id}`\n" in shown
    there.open()
    first.requeue().result(PATIENCE)
    assert [one.wait(PATIENCE) for one in (first, second, *others)] == [JobState.COMPLETED] * 4


@on_sqlite
def test_where_failures_propagate_jobs_fail_with_the_one_that_they_wait_for(house: House) -> None:
    """C5, with the variable that the CAF worker has."""
    house.broker()
    house.tracker(CAF_JOB_TRACKING_PROPAGATE_FAILURES="true")
    house.worker()
    proj, ran = house.proj, house.path("ran")
    waiting = [
        house.jobs.submit(proj.append.si(number, ran), key=f"J{number}", after=[before])
        for number, before in ((2, "J1"), (3, "J1"), (4, "J3"), (5, "J6"))
    ]
    first = house.jobs.submit(proj.fail.s("no luck"), name="T1", key="J1")
    assert [one.wait(PATIENCE) for one in (first, *waiting[:3])] == [JobState.FAILED] * 4
    views = [one.view for one in waiting]
    assert [view.reason for view in views] == [FailureReason.UPSTREAM] * 3 + [None]
    assert [view.note for view in views[:3]] == [f"upstream: T1 [{first.id}] failed"] * 3
    assert views[3].state is JobState.WAITING
    assert house.lines("ran") == []
