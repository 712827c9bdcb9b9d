"""Workers that fail every task of one name: other workers run them, and what nobody is left for has failed."""

from pathlib import Path

import pytest
from celery import chain, group

from jobrunner.handle import Job
from jobrunner.states import FailureReason, JobState, TaskState
from jobrunner.store import reading, tracking
from tests.house import PATIENCE, House
from tests.waiting import until

one_in_the_suite = pytest.mark.house_on(
    "sqlite-redis", chaos=["sqlite-rabbitmq", "postgresql-redis", "postgresql-rabbitmq"]
)
SICK = "sick@house"


def sick_worker(house: House) -> Path:
    """Start a worker that is sick as long as a file is there, and return that."""
    cause = house.home / "virus"
    cause.touch()
    house.worker("sick", SICK=str(cause))
    return cause


def ran(house: House, path: str) -> dict[int, list[str]]:
    """Return where each number has run, in order."""
    found: dict[int, list[str]] = {}
    for line in house.lines(path):
        number, worker = line.split()
        found.setdefault(int(number), []).append(worker)
    return found


def blocked(house: House, job: Job) -> bool:
    """Whether the sick worker is blocked in a job, and every worker knows."""
    with house.jobs.database.read() as connection:
        there = any((one.worker, one.job_id) == (SICK, job.id) for one in reading.list_worker_blocks(connection))
        return there and not tracking.unacknowledged(connection, tracking.snapshot_version(connection))


@one_in_the_suite
def test_a_sick_worker_gets_no_more_of_what_it_fails_and_others_complete_the_job(house: House) -> None:
    house.broker()
    house.tracker()
    sick_worker(house)
    house.worker("one")
    house.worker("two")
    proj, path, gate = house.proj, house.path("ran"), house.gate("open")
    before = group(proj.ail.si(number, path, 0.3) for number in range(18))
    after = group(proj.ail.si(number, path) for number in range(100, 112))
    job = house.jobs.submit(chain(before, proj.hold.si(None, str(gate)), after))
    gate.reached()
    until(lambda: blocked(house, job), timeout=PATIENCE, what="the sick worker to be blocked")
    table = house.ask("workers").out.partition("BLOCKED")[2]
    assert [SICK, proj.ail.name, job.id] == table.splitlines()[1].split()[:3]
    gate.open()
    assert job.wait(PATIENCE) is JobState.COMPLETED
    where = ran(house, "ran")
    assert {workers[-1] for workers in where.values()} == {"one@house", "two@house"}, "none has succeeded there"
    assert any(SICK in workers for workers in where.values())
    assert not any(SICK in where[number] for number in range(100, 112)), "none has run there since"
    for attempts in house.ended_attempts(job):
        failed = [one.worker for one in attempts if one.outcome == "retried"]
        assert set(failed) <= {SICK}
        assert len(failed) <= 3, "that is how often it may be retried"


@pytest.mark.chaos  # in turns: tests/contract/test_worker_blocks.py
@one_in_the_suite
def test_with_the_sick_worker_alone_the_job_fails_because_no_worker_is_left(house: House) -> None:
    house.broker()
    house.tracker()
    sick_worker(house)
    proj, path, gate = house.proj, house.path("ran"), house.gate("open")
    last = chain(proj.hold.si(None, str(gate)), proj.ail.si(9, path))
    job = house.jobs.submit(group(*(proj.ail.si(number, path) for number in range(3)), last))
    until(lambda: blocked(house, job), timeout=PATIENCE, what="the sick worker to be blocked")
    assert ran(house, "ran") == {number: [SICK] * 4 for number in range(3)}, "each had its tries"
    gate.open()
    assert job.wait(PATIENCE) is JobState.FAILED
    assert job.view.reason == FailureReason.NO_WORKERS
    assert f"no worker is left for {proj.ail.name}: {SICK}" in (job.view.note or "")
    assert 9 not in ran(house, "ran")
    reasons = [task.reason for task in job.tasks() if task.state is TaskState.FAILED]
    assert reasons.count(FailureReason.NO_WORKERS) == 1


@pytest.mark.chaos  # in turns: tests/contract/test_worker_blocks.py
@one_in_the_suite
def test_a_worker_that_has_got_well_works_again_when_it_is_unblocked(house: House) -> None:
    house.broker()
    house.tracker()
    cause = sick_worker(house)
    proj, path, gate = house.proj, house.path("ran"), house.gate("open")
    last = chain(proj.hold.si(None, str(gate)), proj.ail.si(9, path))
    job = house.jobs.submit(group(*(proj.ail.si(number, path) for number in range(3)), last))
    until(lambda: blocked(house, job), timeout=PATIENCE, what="the sick worker to be blocked")
    cause.unlink()
    done = house.ask("workers", "unblock", SICK, "--reason", "new disk")
    assert (done.code, f"{SICK} gets {proj.ail.name} again" in " ".join(done.out.split())) == (0, True)
    gate.open()
    assert job.wait(PATIENCE) is JobState.FAILED
    assert job.view.reason != FailureReason.NO_WORKERS
    assert ran(house, "ran")[9] == [SICK]
    assert job.view.counts == {TaskState.COMPLETED: 2, TaskState.FAILED: 3}
