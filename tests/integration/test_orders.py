"""Pause, resume and cancel with real workers: what starts when, by what tasks write into a file, on the same clock.

Each test has a short form in the suite, and a long one on all databases and brokers for `make chaos`.
"""

import time
from collections import Counter
from datetime import datetime

import pytest
from celery import group

from jobrunner.embedded.guardian import alive
from jobrunner.handle import Job
from jobrunner.orders import Order
from jobrunner.states import JobState, TaskState
from tests.apps import read_rows
from tests.house import PATIENCE, House
from tests.process import Process
from tests.waiting import until

pytestmark = [
    pytest.mark.nodes,
    pytest.mark.house_on("sqlite-redis", chaos=["sqlite-rabbitmq", "postgresql-redis", "postgresql-rabbitmq"]),
]

#: Tasks that wait on the broker: in the suite, and in the long form.
_QUEUED, _MANY_QUEUED = 60, 500
_CANCELED, _MANY_CANCELED = 60, 1_000
#: Seconds of grace for what ignores TERM, and how much later at most it must be gone: workers look once a second.
_GRACE, _LATE = 1.0, 5.0


def answered_at(house: House, order: Order) -> datetime:
    """Wait until an order is done, and return when that was."""
    assert order.wait(PATIENCE).outcome == "done"
    (row,) = [one for one in read_rows(house.jobs.database, "orders") if one["id"] == order.id]
    return row["answered_at"]


def starts(house: House) -> dict[str, list[float]]:
    """Return when each task has started, by the names it was given."""
    found: dict[str, list[float]] = {}
    for name, what, at in (line.split() for line in house.lines("spans")):
        if what == "start":
            found.setdefault(name, []).append(float(at))
    return found


def has_counts(job: Job, **counts: int) -> None:
    """Wait until so many tasks of a job are in these states."""
    wanted = {TaskState(name): number for name, number in counts.items()}
    until(
        lambda: job.view.counts == wanted, timeout=PATIENCE, what=f"the tasks to be {counts}, and not {job.view.counts}"
    )


# ---- pause and resume --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pool", "queued"),
    [
        ("prefork", _QUEUED),
        pytest.param("prefork", _MANY_QUEUED, marks=pytest.mark.chaos),
        pytest.param("threads", _MANY_QUEUED, marks=pytest.mark.chaos),
    ],
)
def test_a_paused_job_starts_nothing_whoever_comes_and_goes_on_with_each_task_once(
    house: House, pool: str, queued: int
) -> None:
    """Half of what is queued waits for the first worker, half for one that comes while there is no tracker."""
    prefetch = ("--prefetch-multiplier", "16")
    broker = house.broker()
    tracker, worker = house.tracker(), house.worker(pool=pool, more=prefetch)
    gate, span, total = house.gate("open"), house.proj.span, 2 + queued
    spans = [span.si(number, str(number), house.path("spans"), str(gate)) for number in range(total)]
    later = total - queued // 2
    job = house.jobs.submit(group([*spans[:later], *(one.set(queue="own") for one in spans[later:])]))
    has_counts(job, active=2, queued=queued)
    until(lambda: all(one.sent_at for one in job.tasks()), timeout=PATIENCE, what="all to be on the broker")

    order = job.pause()
    until(lambda: job.state is JobState.PAUSING, timeout=PATIENCE, what="the job to be pausing")
    assert order.answer is None
    gate.open()
    paused_at = answered_at(house, order)
    assert job.state is JobState.PAUSED

    worker.stop()
    tracker.kill()
    broker.restart()
    late = house.worker("late", queues="celery,own", pool=pool, more=prefetch)
    coming = lambda: late.text.count("is held: paused") < queued // 2 or house.waiting() or house.waiting("own")  # noqa: E731
    until(lambda: not coming(), timeout=PATIENCE, what="the worker to refuse all that is on the broker")
    tracker.start()
    done = len(starts(house))
    has_counts(job, completed=done, ready=total - done)
    assert max(at for times in starts(house).values() for at in times) < paused_at.timestamp()
    assert job.state is JobState.PAUSED

    job.resume()
    assert job.result(PATIENCE) == list(range(total))
    assert Counter(len(times) for times in starts(house).values()) == {1: total}
    house.check_completed_once(job)


# ---- cancel ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queued", [_CANCELED, pytest.param(_MANY_CANCELED, marks=pytest.mark.chaos)])
def test_a_canceled_job_starts_nothing_whoever_was_away_and_runs_again_when_it_is_requeued(
    house: House, queued: int, capsys: pytest.CaptureFixture[str]
) -> None:
    house.broker()
    tracker, worker = house.tracker(), house.worker(more=("-c", "1"))
    for away in (None, tracker, worker):
        seconds = check_canceled(house, away, queued, restarted=away is worker)
        with capsys.disabled():
            name = away.log.stem if away else "nobody"
            print(f"\n1 + {queued} canceled, {name} away: gone {seconds:.1f} s later")  # noqa: T201
        assert seconds < _GRACE + _LATE
    assert "revoked" not in worker.text.lower()


def check_canceled(house: House, away: Process | None, queued: int, *, restarted: bool) -> float:
    """Cancel a job while somebody is away, and requeue it; return how long its running process was there."""
    name = away.log.stem if away else "nobody"
    path, gate = house.path(f"lines-{name}"), house.gate(f"open-{name}")
    append, hold = house.proj.append, house.proj.hold_stubbornly
    job = house.jobs.submit(group([hold.si(0, str(gate)), *(append.si(one, path) for one in range(queued))]))
    (pid,) = gate.reached()
    has_counts(job, active=1, queued=queued)
    until(lambda: all(one.sent_at for one in job.tasks()), timeout=PATIENCE, what="all to be on the broker")
    if away and restarted:
        away.kill()
    elif away:
        away.stop()
    order = job.cancel(grace=_GRACE)
    if restarted:
        until(lambda: job.state is JobState.CANCEL_REQUESTED, timeout=PATIENCE, what="the tracker to take the order")
    if away:
        assert order.answer is None
        away.start()
    began = time.monotonic()
    until(lambda: not alive(pid), timeout=PATIENCE, what="the process to be gone")
    seconds = time.monotonic() - began
    answered_at(house, order)
    assert job.state is JobState.CANCELED
    assert job.view.counts == {TaskState.CANCELED: 1 + queued}
    until(lambda: not house.waiting(), timeout=PATIENCE, what="the queue to drain")
    assert not house.lines(f"lines-{name}")

    gate.open()
    assert job.requeue().wait(PATIENCE).outcome == "done"
    assert job.wait(PATIENCE) is JobState.COMPLETED
    assert sorted(map(int, house.lines(f"lines-{name}"))) == list(range(queued))
    house.check_completed_once(job)
    return seconds
