"""Who is taken for lost, and who is not: workers that are killed, trackers that stand still, bodies that take long.

The short versions are in `test_survival.py` and `tests/nodes/test_failures.py`.
"""

import os
import signal
import sys
import time
from functools import partial

import pytest
from celery import group

from jobrunner.handle import Job
from jobrunner.states import JobState, TaskState
from tests.house import PATIENCE, House, on_each_broker, on_sqlite
from tests.process import Process
from tests.waiting import until
from tracker.roster import SILENCE

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

RUNNING, RESERVED = 10, 40
#: Seconds of silence, for a tracker that takes a worker for lost sooner: the shortest in which a sound one is heard.
SHORT = 8.0


def impatient_tracker(house: House, silence: float = SHORT) -> Process:
    program = f"from tracker import roster\nroster.SILENCE = {silence}\nfrom jobrunner.cli import main\nmain()"
    tracker = house.start("tracker", [sys.executable, "-c", program, "tracker"])
    tracker.says("Tracking;")
    return tracker


def is_over(moment: float) -> bool:
    return time.monotonic() > moment


def check_nothing_was_lost(house: House, job: Job) -> None:
    """See that every task has succeeded in its first attempt."""
    house.check_completed_once(job)
    attempts = house.ended_attempts(job)
    assert {(one.delivery, one.retries, one.outcome) for ones in attempts for one in ones} == {(1, 0, "succeeded")}
    assert all(len(ones) == 1 for ones in attempts)


@on_each_broker
def test_what_a_killed_worker_ran_and_had_reserved_runs_elsewhere_within_the_time_out(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    house.broker()
    house.tracker()
    killed = house.worker("killed", pool="threads", more=["-c", str(RUNNING)])
    gate = house.gate("open")
    job = house.jobs.submit(group(house.proj.hold.s(number, str(gate)) for number in range(RUNNING + RESERVED)))
    until(lambda: house.received(job) == RUNNING + RESERVED, timeout=PATIENCE, what="the worker to have all")
    until(lambda: job.progress.counts.get(TaskState.ACTIVE) == RUNNING, timeout=PATIENCE, what="ten to be known to run")
    house.worker("other", pool="threads", more=["-c", str(RUNNING)])
    killed.kill()
    gate.open()
    began = time.monotonic()
    assert job.wait(3 * PATIENCE) is JobState.COMPLETED
    took = time.monotonic() - began
    house.check_completed_once(job)
    tasks = job.tasks()
    assert {task.worker for task in tasks} == {"other@house"}
    assert {task.delivery for task in tasks} == {2}
    assert sum(task.retries for task in tasks) == RUNNING  # what had not started has used up no retry
    with capsys.disabled():
        print(f"\nworker killed with {RUNNING} tasks and {RESERVED} reserved: all ended elsewhere {took:.1f} s later")  # noqa: T201
    assert took < SILENCE + 15


@on_each_broker
def test_a_tracker_that_stands_still_for_three_time_outs_under_load_takes_nobody_for_lost(house: House) -> None:
    house.broker()
    tracker = impatient_tracker(house)
    house.worker()
    gate, path = house.gate("open"), house.path("order")
    held = [house.proj.hold.s(0, str(gate))]
    short = [house.proj.last.s(0.1, str(number), path) for number in range(1_000)]
    job = house.jobs.submit(group(*held, *short))
    until(lambda: job.progress.done >= 20, timeout=PATIENCE, what="20 tasks to end")
    os.kill(tracker.pid, signal.SIGSTOP)
    until(partial(is_over, time.monotonic() + 3 * SHORT), timeout=PATIENCE, what="three time-outs")
    before = len(house.lines("order"))
    os.kill(tracker.pid, signal.SIGCONT)
    gate.open()
    assert job.wait(3 * PATIENCE) is JobState.COMPLETED
    assert before > 100  # they had gone on
    check_nothing_was_lost(house, job)
    assert len(house.lines("order")) == 1_000
    assert house.workers_online() == {"worker@house"}


@on_sqlite
def test_a_solo_worker_that_is_busy_for_longer_than_the_time_out_is_not_lost(house: House) -> None:
    house.broker()
    impatient_tracker(house)
    house.worker(pool="solo")
    job = house.jobs.submit(
        group(house.proj.last.s(2 * SHORT + 4, str(number), house.path("names")) for number in (1, 2))
    )
    assert job.wait(3 * PATIENCE) is JobState.COMPLETED
    check_nothing_was_lost(house, job)
    assert house.lines("names") in (["1", "2"], ["2", "1"])
