"""Pause, resume and cancel with real workers: what starts when, by what tasks write into a file, on the same clock.

Each test has a short form in the suite, and a long one on all databases and brokers for `make chaos`.
"""

import time
from collections import Counter
from datetime import datetime
from random import Random

import pytest
from celery import chord, group

from jobrunner.embedded.guardian import alive
from jobrunner.handle import Job
from jobrunner.orders import Order
from jobrunner.states import ENDED_JOB, JobState, TaskState
from jobrunner.store.check import check
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
#: Tasks of a job that is paused all the time.
_SPANS = 1_800
#: Orders given while some are killed, and the chance that somebody is.
_ORDERS, _KILLS = 30, 0.4
#: Seconds of grace for what ignores TERM, and how much later at most it must be gone: workers look once a second.
_GRACE, _LATE = 1.0, 10.0


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


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_however_often_a_job_is_paused_each_task_starts_once_and_none_while_it_is(
    house: House, pool: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A third of them are sent by tasks, so that nobody but the gates has their messages; some are retried."""
    house.broker()
    house.tracker()
    for name in ("one", "two"):
        house.worker(name, pool=pool, more=("--prefetch-multiplier", "16"))
    proj, path = house.proj, house.path("spans")
    spans = [proj.span.si(number, str(number), path) for number in range(_SPANS)]
    called = (proj.call.si(*spans[number : number + 20]) for number in range(0, _SPANS // 3, 20))
    retried = (proj.second_try.si(number, 0.5) for number in range(_SPANS // 100))
    job = house.jobs.submit(group(*called, *spans[_SPANS // 3 :], *retried))
    until(lambda: len(house.lines("spans")) > 10, timeout=PATIENCE, what="tasks to run")
    pauses = []
    while job.state not in ENDED_JOB:
        done = len(house.lines("spans"))
        order = job.pause()
        if order.wait(PATIENCE).outcome != "done":
            break  # it has ended before
        paused_at = answered_at(house, order).timestamp()
        assert job.state is JobState.PAUSED
        pauses.append((paused_at, time.time()))
        job.resume()
        more = lambda done=done: len(house.lines("spans")) > done or job.state in ENDED_JOB  # noqa: E731
        until(more, timeout=PATIENCE, what="tasks to run")
    with capsys.disabled():
        print(f"\n{job.view.total} tasks, paused {len(pauses)} times on {pool}")  # noqa: T201
    assert job.wait(PATIENCE * 3) is JobState.COMPLETED
    house.check_completed_once(job)
    assert Counter(len(times) for times in starts(house).values()) == {1: _SPANS}
    found = sorted(at for times in starts(house).values() for at in times)
    assert not [(at, one) for at in found for one in pauses if one[0] < at < one[1]]
    assert len(pauses) > 1
    assert check(house.jobs.database) == []


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
        away.start().says("ready." if restarted else "Tracking;")
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


# ---- whatever happens --------------------------------------------------------------------------------------


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2])
def test_what_is_answered_holds_whoever_is_killed(house: House, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Orders come at random while tracker and workers die; in the end the job is completed, and all is counted."""
    house.broker()
    random, tracker = Random(seed), house.tracker()  # noqa: S311  a life to be lived again, no secret
    workers = [house.worker(name, pool=pool) for name, pool in (("one", "prefork"), ("two", "threads"))]
    proj, path = house.proj, house.path("spans")
    spans = [proj.span.si(number, str(number), path) for number in range(_SPANS)]
    called = (proj.call.si(*spans[number : number + 20]) for number in range(0, _SPANS // 3, 20))
    job = house.jobs.submit(chord([*called, *spans[_SPANS // 3 :]], proj.append.si("joined", house.path("joined"))))
    quiet, killed, goes_on = [], [], True
    for _ in range(_ORDERS):
        if job.state is JobState.COMPLETED:
            break
        order = random.choice([job.pause, job.cancel]) if goes_on else job.requeue if canceled(job) else job.resume
        given_at, given = time.time(), order()
        if random.random() < _KILLS:
            process = random.choice([tracker, *workers])
            process.kill()
            process.start()
            killed.append(process.log.stem)
        answer = given.wait(PATIENCE * 2)
        if answer.outcome == "done" and goes_on:
            answered = answered_at(house, given).timestamp()
        elif answer.outcome == "done":
            quiet.append((answered, given_at))
        goes_on ^= answer.outcome == "done"
    if not goes_on:
        (job.requeue if canceled(job) else job.resume)()
    assert job.wait(PATIENCE * 3) is JobState.COMPLETED
    with capsys.disabled():
        print(f"\n{len(quiet)} pauses and cancels, {len(killed)} killed: {', '.join(killed)}")  # noqa: T201
    house.check_completed_once(job)
    found = sorted(at for times in starts(house).values() for at in times)
    assert not [(at, one) for at in found for one in quiet if one[0] < at < one[1]]
    assert {int(name) for name in starts(house)} == set(range(_SPANS))
    assert house.lines("joined") == ["joined"]
    assert check(house.jobs.database) == []


def canceled(job: Job) -> bool:
    return job.state is JobState.CANCELED
