"""Two trackers, one frozen: wherever it stood still, what it does when it goes on is void once the other one leads.

A tracker freezes itself with SIGSTOP at a place that a test has named, once; so each dangerous moment is really met.
"""

import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress

import psutil
import pytest
from celery import chain, group

from jobrunner.handle import Job
from jobrunner.states import JobState
from tests.house import House
from tests.process import Process
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.nodes

#: Seconds within which a standby is to lead is 10; a busy machine is given more, and the figure is printed.
TAKEOVER, ROOM = 20.0, 60.0
TASKS = 20
#: Chains of a job side by side, their tasks, and how often a leader is frozen meanwhile.
CHAINS, LENGTH, FREEZES = 40, 100, 10
#: Seconds of a turn under load, and what a tracker says that does not lead.
_TURN, STANDING_BY = 0.1, "Another tracker leads; standing by."
#: A tracker that stops itself just before it does one of these, if a file of that name is there.
FREEZING = """
import os, signal
from itertools import count
from pathlib import Path

import psycopg
from jobrunner.cli import main
from jobrunner.store import tracking
from tracker import loop, outlets

def stop_before(owner, name, where, is_meant):
    does, file = getattr(owner, name), Path(os.environ["JOBRUNNER_HOME"], where)
    def stop_and_do(*args, **kwargs):
        if file.exists() and is_meant(*args):
            file.unlink()
            os.kill(os.getpid(), signal.SIGSTOP)
        return does(*args, **kwargs)
    setattr(owner, name, stop_and_do)

messages = count(1)
stop_before(tracking, "queue_tasks", "in-transaction", lambda connection, deliveries, now: deliveries)
stop_before(psycopg.Copy, "write_row", "while-copying", lambda copy, row: True)
stop_before(loop.Tracker, "_publish", "before-publishing", lambda tracker, outgoing: outgoing)
stop_before(outlets, "_publish", "while-publishing", lambda *_: next(messages) == 10)
main()
"""
IN_TRANSACTION, WHILE_COPYING = "in-transaction", "while-copying"
BEFORE_PUBLISHING, WHILE_PUBLISHING = "before-publishing", "while-publishing"


def freezing_tracker(house: House) -> Process:
    """Start a tracker that leads, and that freezes where it is told to."""
    tracker = house.start("first", [sys.executable, "-c", FREEZING, "tracker"])
    tracker.says("Tracking;")
    return tracker


def freeze(house: House, where: str) -> None:
    (house.home / where).touch()


def until_frozen(tracker: Process) -> float:
    """Wait until a tracker stands still, and return the moment."""
    status = psutil.Process(tracker.pid).status
    until(lambda: status() == psutil.STATUS_STOPPED, timeout=PATIENCE, what="the tracker to freeze")
    return time.monotonic()


def until_taken_over(second: Process, frozen_at: float, capsys: pytest.CaptureFixture[str]) -> None:
    second.says("Tracking;")
    took = time.monotonic() - frozen_at
    with capsys.disabled():
        print(f"\ntakeover after {took:.1f} s")  # noqa: T201
    assert took < TAKEOVER


def go_on(tracker: Process) -> None:
    os.kill(tracker.pid, signal.SIGCONT)


def steps(house: House, number: int = TASKS) -> Job:
    """Submit tasks that each leave a line."""
    return house.jobs.submit(group(house.proj.step.s(i, str(i), house.path("lines")) for i in range(number)))


def check_done_once(house: House, job: Job) -> None:
    assert job.wait(PATIENCE) is JobState.COMPLETED
    house.check_completed_once(job)
    assert sorted(map(int, house.lines("lines"))) == list(range(job.view.total))


@pytest.mark.house_on("postgresql-redis", chaos=["sqlite-redis"])
def test_a_tracker_frozen_in_its_transaction_commits_nothing_late(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    house.broker()
    first = freezing_tracker(house)
    second = house.tracker("second", ready="standing by")
    house.worker()
    freeze(house, IN_TRANSACTION)
    job = steps(house)
    frozen_at = until_frozen(first)
    if house.jobs.database.is_sqlite:
        # It holds the lock without which nobody writes: nobody can lead before it has committed, and that is not late.
        freeze(house, BEFORE_PUBLISHING)
        until(lambda: house.tracker_holder() is None, timeout=ROOM, what="the lease to run out")
        go_on(first)
        frozen_at = until_frozen(first)
    until_taken_over(second, frozen_at, capsys)
    go_on(first)
    first.says("Another tracker")
    check_done_once(house, job)


@pytest.mark.parametrize("where", [pytest.param(BEFORE_PUBLISHING, marks=pytest.mark.chaos), WHILE_PUBLISHING])
@pytest.mark.house_on("postgresql-rabbitmq", chaos=["sqlite-redis"])
def test_a_tracker_frozen_between_its_commit_and_its_last_message_sends_nothing_late(
    house: House, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    house.broker()
    first = freezing_tracker(house)
    second = house.tracker("second", ready="standing by")
    house.worker()
    freeze(house, where)
    job = steps(house)
    until_taken_over(second, until_frozen(first), capsys)
    assert job.wait(PATIENCE) is JobState.COMPLETED
    go_on(first)
    first.says("Another tracker has taken the lease.")
    assert house.jobs.submit(house.proj.add.s(1, 2)).result(PATIENCE) == 3  # what came late would have been run by now
    check_done_once(house, job)


@pytest.mark.house_on("postgresql-redis")
def test_a_tracker_frozen_while_it_copies_rows_does_not_keep_the_lease(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    house.broker()
    first = freezing_tracker(house)
    second = house.tracker("second", ready="standing by")
    freeze(house, WHILE_COPYING)
    job = steps(house)
    house.worker()
    until_taken_over(second, until_frozen(first), capsys)
    check_done_once(house, job)
    go_on(first)
    first.says("Another tracker leads")
    check_done_once(house, job)


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.house_on("postgresql-rabbitmq", chaos=["postgresql-redis"])
def test_leaders_frozen_in_turn_under_load_change_nothing(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    """A task may run twice only where it was sent twice.

    Not on SQLite: a leader that freezes in its transaction keeps everybody from writing, so that nobody can take over.
    """
    seed = secrets.randbits(32)
    print(f"seed {seed}")  # noqa: T201  a failure shows it
    drawn = random.Random(seed)  # noqa: S311  no secret
    house.broker()
    leader, other = house.tracker("first"), house.tracker("second", ready="standing by")
    house.worker()
    step, lines = house.proj.step, house.path("lines")
    total = CHAINS * LENGTH
    numbers = iter(range(total))
    job = house.jobs.submit(
        group(chain(*(step.si(0, str(next(numbers)), lines) for _ in range(LENGTH))) for _ in range(CHAINS))
    )
    took = []
    for place in sorted(drawn.sample(range(total // 20, total * 3 // 4), FREEZES)):
        until(lambda place=place: job.progress.done > place, timeout=PATIENCE, what=f"{place} tasks to end")
        took.append(replace(leader, other, job, drawn.uniform(0, _TURN)))
        leader, other = other, leader
    assert job.wait(PATIENCE) is JobState.COMPLETED
    house.check_completed_once(job)
    runs = Counter(int(line) for line in house.lines("lines"))
    twice = {arrival for arrival, times in runs.items() if times > 1}
    again = {task.arrival for task in job.tasks() if task.delivery > 1}
    with capsys.disabled():
        told = ", ".join(f"{led:.1f} s (at work after {moved:.1f})" for led, moved in took)
        print(f"\nseed {seed}: takeovers after {told}; {len(again)} sent again, {len(twice)} ran twice")  # noqa: T201
    assert sorted(runs) == [task.arrival for task in job.tasks()]
    assert twice <= again
    assert all(led < TAKEOVER for led, _ in took)


def replace(leader: Process, other: Process, job: Job, delay: float) -> tuple[float, float]:
    """Freeze the leader anywhere in a turn, and let it go on when the other one works; return when that led and worked.

    The job cannot end meanwhile: the later tasks of its chains have not been sent.
    """
    led, void = other.text.count("Tracking;"), leader.text.count(STANDING_BY)
    with suppress(subprocess.TimeoutExpired):
        pytest.fail(f"the leader ended by itself with {leader.popen.wait(delay)}:\n{leader.text}")
    os.kill(leader.pid, signal.SIGSTOP)
    frozen_at, done = time.monotonic(), job.progress.done
    assert done < job.progress.total
    until(lambda: other.text.count("Tracking;") > led, timeout=ROOM, what="the takeover")
    led_at = time.monotonic()
    until(lambda: job.progress.done > done, timeout=ROOM, what="the new leader to work")
    worked_at = time.monotonic()
    go_on(leader)
    until(lambda: leader.text.count(STANDING_BY) > void, timeout=ROOM, what="the old leader to stand by")
    return led_at - frozen_at, worked_at - frozen_at
