"""Failures of real workers as people see them."""

import sys
from datetime import UTC, datetime

from celery import chain, group

from jobrunner.states import JobState
from tests.house import House, on_sqlite
from tests.waiting import PATIENCE, until

pytestmark = on_sqlite


def test_watch_tells_of_soft_failures_as_they_happen_and_every_attempt_is_seen_with_its_worker(house: House) -> None:
    """Twice an exception and then success; retries used up; and a process that is killed."""
    house.broker()
    house.tracker()
    house.worker("one")
    house.worker("two")
    proj, gate = house.proj, house.gate("open")
    unlucky = proj.fail_times.si("unlucky", 9, house.path("unlucky"))
    lucky = proj.fail_times.si("lucky", 2, house.path("lucky"))
    dies = proj.die_once.si("dead", house.path("dead"))
    # One task holds a process: with two that a worker has taken, what else it has taken would wait for the gate.
    job = house.jobs.submit(group(unlucky, chain(proj.hold.si(0, str(gate)), group(lucky, dies))))
    until(lambda: "failed" in job.view.counts, timeout=PATIENCE, what="the retries of the unlucky one to be used up")
    watch = house.start("watch", [sys.executable, "-m", "jobrunner.cli", "watch", job.id])
    watch.says("Failed attempts until now: 4;")
    gate.open()
    watch.says("soft-failed  tests.integration.proj.fail_times")
    watch.says("ValueError('try 2')")
    watch.says("soft-failed  tests.integration.proj.die_once")
    assert job.wait(PATIENCE) is JobState.FAILED
    assert watch.popen.wait(PATIENCE) == 1
    assert "unlucky" not in watch.text

    house.ended_attempts(job)
    tasks = house.ask("tasks", job.id, "--attempts", "--json").json
    # A worker that has failed a task may have handed it back.
    tries = {task["id"]: [one for one in task["attempts"] if one["outcome"] != "held"] for task in tasks}
    outcomes = {id_: [one["outcome"] for one in ones] for id_, ones in tries.items()}
    unlucky_one, _, lucky_one, dead_one = (task["id"] for task in tasks)
    assert outcomes[unlucky_one] == ["retried", "retried", "retried", "failed"]
    assert outcomes[lucky_one] == ["retried", "retried", "succeeded"]
    assert outcomes[dead_one] == ["retried", "succeeded"]
    workers = {one["worker"] for task in tasks for one in task["attempts"]}
    assert workers <= {"one@house", "two@house"}
    lines = house.ask("tasks", job.id, "--attempts").out.splitlines()
    shown = sum(line.startswith(tuple(outcomes)) and "@house" in line and " held " not in line for line in lines)
    assert shown == 4 + 1 + 3 + 2

    errors, death = house.ask("show", job.id, "--errors", "--json").json["errors"]
    assert (errors["error"], errors["attempts"], errors["tasks"]) == ("ValueError('try #')", 6, 2)
    assert errors["outcomes"] == {"retried": 5, "failed": 1}
    assert errors["first_at"] < errors["last_at"] <= datetime.now(UTC).isoformat()
    assert (death["attempts"], death["error"].partition("(")[0]) == (1, "WorkerLostError")
    assert house.ask("tasks", job.id, "--state", "failed", "--json").json[0]["id"] == unlucky_one
