"""Failure rules with real workers: what had not started when the rule was met is never run, what runs ends."""

import pytest
from celery import group

from jobrunner.handle import Job
from jobrunner.states import JobState
from tests.house import PATIENCE, House
from tests.waiting import until

#: They rest on what holds canceled jobs, which is proved on each server.
on_servers = pytest.mark.house_on("sqlite-redis", chaos=["postgresql-rabbitmq"])
TASKS = 100


def states(job: Job) -> list[str]:
    return [str(task.state) for task in job.tasks()]


@on_servers
def test_1_failure_of_100_at_a_threshold_of_a_tenth_lets_the_others_go_on(running: House) -> None:
    proj = running.proj
    job = running.jobs.submit(
        group(proj.fail.si("odd"), *(proj.add.si(number, 1) for number in range(TASKS - 1))), threshold=0.1
    )
    assert job.wait(PATIENCE) is JobState.FAILED
    assert states(job) == ["failed"] + ["completed"] * (TASKS - 1)
    assert job.view.reason == "task"


@on_servers
def test_10_failures_of_100_at_a_threshold_of_a_tenth_cancel_the_rest(running: House) -> None:
    proj, gate = running.proj, running.gate("rest")
    failing = [proj.fail.si("odd") for _ in range(10)]
    held = [proj.hold.si(number, str(gate)) for number in range(TASKS - 10)]
    job = running.jobs.submit(group(*failing, *held), threshold=0.1)
    until(lambda: "canceled" in states(job), timeout=PATIENCE, what="the rest to be canceled")
    view = job.view
    assert (view.state, view.will_fail, view.counts["failed"]) == (JobState.ACTIVE, "threshold", 10)
    gate.open()
    assert job.wait(PATIENCE) is JobState.FAILED
    view = job.view
    assert view.reason == "threshold"
    assert view.note is not None
    assert view.note.startswith("10 of 100 tasks failed, and its threshold is 10 percent; the first is ")
    found = states(job)
    started = len(gate.waiting())
    assert 0 < started <= 4, "two processes, and what each has got before workers knew"
    assert (found.count("failed"), found.count("completed")) == (10, started)
    assert found.count("canceled") == TASKS - 10 - started
