"""What survives whom: trackers, workers, pool processes and brokers are killed with signal 9 while jobs run.

The guarantee: every task ends exactly once in the database; it is started at least once, and more than once only after
a retry or a lost worker.
"""

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from celery import Signature, chain, chord, group

from jobrunner.handle import Job
from jobrunner.states import JobState, TaskState
from jobrunner.wire import EVENT_LOG
from tests.house import PATIENCE, House
from tests.waiting import until

pytestmark = pytest.mark.nodes

CHAINS, STEPS = 333, 3
#: Seconds within which a standby leads.
TAKEOVER = 10.0
#: Messages that a worker with two processes takes: the two that run, and Celery's prefetch of four per process.
IN_HAND = 2 + 2 * 4


def thousand_tasks(house: House) -> Signature:
    """Return 333 chains of 3 tasks, and one that joins them; each task of a chain appends its arrival to a file."""
    step, path = house.proj.step, house.path("lines")
    chains = []
    for first in range(0, CHAINS * STEPS, STEPS):
        later = (step.s(str(first + number), path) for number in range(1, STEPS))
        chains.append(chain(step.s(first, str(first), path), *later))
    return chord(chains, house.proj.total.s())


def steps(house: House, number: int) -> Signature:
    """Return as many tasks side by side; each appends its arrival to a file."""
    return group(house.proj.step.s(i, str(i), house.path("lines")) for i in range(number))


def ran_twice(house: House, job: Job) -> set[int]:
    """Return the arrivals of tasks that ran more than once, by the lines they left; see that all of them have run."""
    runs = Counter(int(line) for line in house.lines("lines"))
    assert sorted(runs) == [task.arrival for task in job.tasks() if task.name.endswith(".step")]
    return {arrival for arrival, times in runs.items() if times > 1}


def sent_again(job: Job) -> set[int]:
    return {task.arrival for task in job.tasks() if task.delivery > 1}


def unread_sources(house: House) -> set[str]:
    """Return the worker processes of which the event log has something."""
    with house.redis() as redis:
        return {fields["source"] for _, fields in redis.xrange(EVENT_LOG) if "source" in fields}


@contextmanager
def broker_takes_no_messages(house: House) -> Iterator[None]:
    """Let the broker answer reads and hold back every write until the end of the block.

    With the first events of a worker the tracker trims the log, which is a write too and must not be what it is held
    at; it does so again after a second at the earliest, and not without new events, which are held back.
    """
    with house.redis() as redis:
        if redis.exists(EVENT_LOG):
            until(lambda: "cmdstat_xtrim" in redis.info("commandstats"), timeout=PATIENCE, what="the first trim")
        redis.execute_command("CLIENT", "PAUSE", int(PATIENCE * 1000), "WRITE")
        try:
            yield
        finally:
            redis.execute_command("CLIENT", "UNPAUSE")


def submit_into_the_outbox(house: House, canvas: Signature) -> Job:
    """Submit, while the broker takes no writes, and wait until the tracker has the tasks in its outbox."""
    job = house.jobs.submit(canvas)
    until(lambda: set(job.progress.counts) == {TaskState.QUEUED}, timeout=PATIENCE, what="the tasks to be committed")
    assert all(task.sent_at is None for task in job.tasks())
    return job


# ------------------------------------------------------------------------------------------------------- the tracker


@pytest.mark.chaos  # tests/integration/test_servers.py kills one with less work, on every database and broker
def test_a_tracker_killed_with_work_in_flight_goes_on_where_it_was(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    house.broker()
    tracker = house.tracker()
    house.worker()
    job = house.jobs.submit(thousand_tasks(house))
    assert job.progress.total == 1000
    until(lambda: job.progress.done >= 100, timeout=PATIENCE, what="100 tasks to end")
    tracker.kill()
    at_the_kill = job.progress
    assert at_the_kill.done < 1000
    assert {TaskState.QUEUED, TaskState.ACTIVE} & set(at_the_kill.counts)

    house.tracker()
    assert job.result(PATIENCE) == sum(range(0, CHAINS * STEPS, STEPS)) + CHAINS * STEPS
    house.check_completed_once(job)
    twice, again = ran_twice(house, job), sent_again(job)
    with capsys.disabled():
        print(  # noqa: T201  the figure is asked for
            f"\ntracker killed at {at_the_kill.done} of 1000 tasks: {len(again)} sent again, {len(twice)} ran twice"
        )
    assert twice == set()
    assert all(task.delivery <= 2 for task in job.tasks())


def test_what_was_committed_but_not_published_is_sent_by_the_next_tracker(house: House) -> None:
    house.broker()
    house.worker()
    tracker = house.tracker()
    with broker_takes_no_messages(house):
        job = submit_into_the_outbox(house, steps(house, 20))
        tracker.kill()
    house.tracker()
    assert job.wait(PATIENCE) is JobState.COMPLETED
    house.check_completed_once(job)
    assert sent_again(job) == set(range(20))
    assert ran_twice(house, job) == set()


def test_what_was_published_but_not_noted_is_known_by_its_events(house: House) -> None:
    house.broker()
    house.worker()
    tracker = house.tracker()
    with broker_takes_no_messages(house):
        job = submit_into_the_outbox(house, steps(house, 20))
        with house.nobody_writes():  # the tracker can publish, and write nothing more
            with house.redis() as redis:
                redis.execute_command("CLIENT", "UNPAUSE")
            until(lambda: len(house.lines("lines")) == 20, timeout=PATIENCE, what="all tasks to run")
            tracker.kill()
    house.tracker()
    assert job.wait(PATIENCE) is JobState.COMPLETED
    house.check_completed_once(job)
    assert sent_again(job) == set()
    assert ran_twice(house, job) == set()


def test_what_was_published_and_heard_of_by_nobody_is_void_and_starts_once(house: House) -> None:
    house.broker()
    tracker = house.tracker()
    with broker_takes_no_messages(house):
        job = submit_into_the_outbox(house, steps(house, 20))
        with house.nobody_writes(), house.redis() as redis:
            redis.execute_command("CLIENT", "UNPAUSE")
            until(lambda: redis.llen("celery") == 20, timeout=PATIENCE, what="all messages to be published")
            tracker.kill()
    house.tracker()
    until(lambda: len(sent_again(job)) == 20, timeout=PATIENCE, what="all tasks to be sent again")
    house.worker()
    assert job.result(PATIENCE) == [number + 1 for number in range(20)]
    with house.redis() as redis:
        until(lambda: redis.llen("celery") == 0, timeout=PATIENCE, what="the messages of both deliveries to be taken")
    house.check_completed_once(job)
    assert len(house.lines("lines")) == 20
    assert ran_twice(house, job) == set()


def test_a_second_tracker_stands_by_and_takes_over_when_the_first_is_killed(house: House) -> None:
    house.broker()
    first = house.tracker("first")
    second = house.tracker("second", ready="standing by")
    house.worker()
    assert f":{first.pid}:" in (house.tracker_holder() or "")
    assert house.jobs.submit(house.proj.add.s(1, 2)).result(PATIENCE) == 3
    killed = time.monotonic()
    first.kill()
    job = house.jobs.submit(house.proj.add.s(3, 4))
    assert job.result(TAKEOVER) == 7
    assert time.monotonic() - killed < TAKEOVER
    assert f":{second.pid}:" in (house.tracker_holder() or "")


def test_a_second_tracker_takes_over_at_once_when_the_first_is_stopped(house: House) -> None:
    house.broker()
    first = house.tracker("first")
    second = house.tracker("second", ready="standing by")
    assert first.stop() == 0
    stopped = time.monotonic()
    second.says("Tracking;")
    assert time.monotonic() - stopped < 3


@pytest.mark.house_on("sqlite-redis", chaos=["postgresql-rabbitmq"])
def test_a_tracker_that_was_frozen_beyond_its_lease_writes_and_sends_nothing_more(house: House) -> None:
    house.broker()
    first = house.tracker("first")
    house.tracker("second", ready="standing by")
    os.kill(first.pid, signal.SIGSTOP)
    until(lambda: "Tracking;" in (house.home / "second.log").read_text(), timeout=PATIENCE, what="the takeover")
    job = house.jobs.submit(steps(house, 20))
    os.kill(first.pid, signal.SIGCONT)
    first.says("Another tracker has taken the lease.")
    house.worker()
    assert job.wait(PATIENCE) is JobState.COMPLETED
    house.check_completed_once(job)
    assert sent_again(job) == set()
    assert ran_twice(house, job) == set()


# ------------------------------------------------------------------------------------------------- workers and children


def test_the_task_of_a_killed_pool_process_runs_again_by_celerys_retry(house: House) -> None:
    house.broker()
    house.tracker()
    house.worker()
    gate = house.gate("open")
    others = house.proj.step
    job = house.jobs.submit(
        group(house.proj.hold.s("held", str(gate)), *(others.s(i, str(i), house.path("lines")) for i in range(1, 21)))
    )
    (pid,) = gate.reached()
    until(lambda: job.progress.done == 20, timeout=PATIENCE, what="the others to end")
    os.kill(pid, signal.SIGKILL)
    gate.reached(2)
    gate.open()
    assert job.result(PATIENCE) == ["held", *range(2, 22)]
    house.check_completed_once(job)
    held, *others = house.ended_attempts(job)
    assert [(one.delivery, one.retries, one.outcome) for one in held] == [(1, 0, "retried"), (1, 1, "succeeded")]
    assert "WorkerLostError" in (held[0].exception or "")
    assert [[(one.delivery, one.retries, one.outcome) for one in ones] for ones in others] == [
        [(1, 0, "succeeded")]
    ] * 20
    assert ran_twice(house, job) == set()


def test_the_tasks_of_a_killed_worker_are_sent_again_when_its_name_comes_back(house: House) -> None:
    house.broker()
    house.tracker()
    worker = house.worker()
    gate = house.gate("open")
    job = house.jobs.submit(group(house.proj.hold.s(number, str(gate)) for number in range(20)))
    gate.reached(2)
    until(lambda: house.received(job) == IN_HAND, timeout=PATIENCE, what="all that the worker has to be known")
    worker.kill()
    gate.open()
    house.worker()
    assert job.result(PATIENCE) == list(range(20))
    house.check_completed_once(job)
    lost = [task.arrival for task in job.tasks() if house.attempts(job)[task.id][0].outcome == "lost"]
    assert len(lost) == IN_HAND  # what the worker had, and not what waited on the broker
    assert sent_again(job) == set(lost)
    assert [task.arrival for task in job.tasks() if task.retries] == lost[:2]  # what had started has used up a retry


def test_what_a_worker_has_ended_does_not_run_again_if_it_was_restarted_while_the_tracker_was_away(
    house: House,
) -> None:
    house.broker()
    tracker, worker = house.tracker(), house.worker()
    gate = house.gate("open")
    job = house.jobs.submit(group(house.proj.hold.s(number, str(gate)) for number in range(2)))
    until(lambda: job.progress.counts == {TaskState.ACTIVE: 2}, timeout=PATIENCE, what="both tasks to run")
    tracker.kill()
    gate.open()
    worker.stop()
    house.worker()
    until(lambda: len(unread_sources(house)) == 2, timeout=PATIENCE, what="both processes to have spoken")
    house.tracker()
    assert job.result(PATIENCE) == [0, 1]
    house.check_completed_once(job)
    assert sent_again(job) == set()


# ---------------------------------------------------------------------------------------------------------- the broker


@pytest.mark.house_on("sqlite-redis", chaos=["postgresql-redis"])
def test_a_job_survives_a_killed_broker(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    broker = house.broker()
    house.tracker()
    house.worker(module="jobrunner")
    job = house.jobs.submit(thousand_tasks(house))
    until(lambda: job.progress.done >= 100, timeout=PATIENCE, what="100 tasks to end")
    broker.kill()
    assert job.state is JobState.ACTIVE
    house.broker()
    assert job.result(PATIENCE) == sum(range(0, CHAINS * STEPS, STEPS)) + CHAINS * STEPS
    house.check_completed_once(job)
    twice, again = ran_twice(house, job), sent_again(job)
    with capsys.disabled():
        print(f"\nbroker killed: {len(again)} sent again, {len(twice)} ran twice")  # noqa: T201
    # Those of one delivery were running when the broker died, and could not be acknowledged.
    assert len(twice - again) <= IN_HAND


def test_a_job_submitted_without_a_broker_waits_says_why_and_goes_on(house: House) -> None:
    job = house.jobs.submit(steps(house, 20))
    assert "no tracker is running" in house.ask("show", job.id).out
    house.tracker()
    until(lambda: "cannot be reached" in house.ask("show", job.id).out, timeout=PATIENCE, what="show to say why")
    assert job.state is JobState.QUEUED
    assert house.jobs.submit(house.proj.add.s(1, 2)).state is JobState.QUEUED
    house.broker()
    until(lambda: "no worker is online" in house.ask("show", job.id).out, timeout=PATIENCE, what="show to say why")
    house.worker()
    assert job.wait(PATIENCE) is JobState.COMPLETED
    house.check_completed_once(job)
    assert ran_twice(house, job) == set()
