"""The same promises on every database with every broker: values are right, and killed processes lose nothing."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from celery import Signature, chain, chord, group
from kombu import Queue

from jobrunner.states import JobState
from jobrunner.wire import INPUTS_IN_HEADER
from tests.house import PATIENCE, House, everywhere, on_each_broker
from tests.waiting import until

pytestmark = everywhere

Canvas = Callable[[ModuleType], Signature]

CANVASES: dict[str, tuple[Canvas, Any]] = {
    "a task": (lambda p: p.add.s(1, 2), 3),
    "a chain": (lambda p: chain(p.add.s(1, 2), p.add.s(3), p.add.s(4)), 10),
    "a group": (lambda p: group(p.add.s(i, i) for i in range(5)), [0, 2, 4, 6, 8]),
    "a chord": (lambda p: chord([p.add.s(i, i) for i in range(5)], p.total.s()), 20),
    "chords in a chord": (lambda p: chord([chord([p.add.s(i, 1), p.add.s(i, 2)], p.total.s()) for i in range(3)],
                                          chain(p.total.s(), p.add.s(1))), 16),
}  # fmt: skip

#: More than would fit into a header of 128 kB, which RabbitMQ would drop without a word.
LARGE = 10_000
CHAINS, STEPS = 100, 3
#: Messages that a worker with two processes takes: the two that run, and Celery's prefetch of four per process.
IN_HAND = 2 + 2 * 4


@pytest.mark.parametrize(("canvas", "value"), CANVASES.values(), ids=CANVASES)
def test_a_job_has_the_value_of_its_canvas(running: House, canvas: Canvas, value: object) -> None:
    job = running.jobs.submit(canvas(running.proj))
    assert job.result(PATIENCE) == value
    running.check_completed_once(job)
    assert all(task.delivery == 1 for task in job.tasks())


def test_a_task_that_fails_and_then_succeeds_keeps_both_attempts(running: House) -> None:
    proj = running.proj
    job = running.jobs.submit(proj.fail_times.s("value", 1, running.path("twice")))
    assert job.result(PATIENCE) == "value"
    (attempts,) = running.ended_attempts(job)
    assert [(one.retries, one.outcome) for one in attempts] == [(0, "retried"), (1, "succeeded")]


def test_a_failure_fails_the_job_and_cancels_what_comes_after(running: House) -> None:
    proj = running.proj
    job = running.jobs.submit(chain(proj.identity.s("no luck"), proj.fail.s(), proj.identity.s()))
    assert job.wait(PATIENCE) is JobState.FAILED
    assert [str(task.state) for task in job.tasks()] == ["completed", "failed", "canceled"]
    assert job.tasks()[1].exception == "ValueError('no luck')"


@pytest.mark.house_on("sqlite-redis", "postgresql-rabbitmq", chaos=["sqlite-rabbitmq", "postgresql-redis"])
def test_a_tracker_killed_with_work_in_flight_goes_on_where_it_was(house: House) -> None:
    house.broker()
    tracker = house.tracker()
    house.worker()
    step, path = house.proj.step, house.path("lines")
    firsts = range(0, CHAINS * STEPS, STEPS)
    chains = [chain(step.s(i, str(i), path), step.s(str(i + 1), path), step.s(str(i + 2), path)) for i in firsts]
    job = house.jobs.submit(chord(chains, house.proj.total.s()))
    until(lambda: job.progress.done >= 50, timeout=PATIENCE, what="50 tasks to end")
    tracker.kill()
    assert job.progress.done < job.progress.total
    tracker.start()
    assert job.result(PATIENCE) == sum(firsts) + CHAINS * STEPS
    house.check_completed_once(job)
    assert set(house.lines("lines")) == {str(number) for number in range(CHAINS * STEPS)}


@on_each_broker
def test_a_worker_that_holds_messages_is_back_by_itself_when_its_broker_was_killed(house: House) -> None:
    """What it had received, Celery's worker drops when it connects anew, and Redis would keep it for an hour."""
    broker = house.broker()
    house.tracker()
    worker = house.worker(module="jobrunner")
    gate = house.gate("open")
    job = house.jobs.submit(group(house.proj.hold.s(number, str(gate)) for number in range(20)))
    gate.reached(2)
    until(lambda: house.received(job) == IN_HAND, timeout=PATIENCE, what="all that the worker has to be known")
    broker.kill()
    broker.start()
    gate.open()
    assert job.result(PATIENCE) == list(range(20))
    house.check_completed_once(job)
    assert worker.running
    assert house.jobs.submit(house.proj.add.s(1, 2)).result(PATIENCE) == 3


@pytest.mark.timeout(300)
@pytest.mark.house_on("postgresql-rabbitmq")
@pytest.mark.parametrize("tasks", [INPUTS_IN_HEADER + 1, pytest.param(LARGE, marks=pytest.mark.chaos)])
def test_a_join_over_more_tasks_than_a_header_names_has_all_their_values(running: House, tasks: int) -> None:
    proj = running.proj
    job = running.jobs.submit(chord([proj.identity.s(1) for _ in range(tasks)], proj.total.s()))
    assert job.result(4 * PATIENCE) == tasks
    assert job.progress.done == tasks + 1


@pytest.mark.house_on("sqlite-rabbitmq")
def test_a_task_of_which_no_message_can_be_made_fails_alone_and_says_why(running: House) -> None:
    proj = running.proj
    odd = proj.add.s(1, 2).set(exchange="amq.direct", routing_key="x" * 300)
    job = running.jobs.submit(group(proj.add.s(1, 1), odd))
    assert job.wait(PATIENCE) is JobState.FAILED
    good, bad = job.tasks()
    assert (str(good.state), str(bad.state)) == ("completed", "failed")
    assert "It cannot be sent" in (bad.exception or "")
    assert running.jobs.submit(proj.add.s(1, 2)).result(PATIENCE) == 3


@pytest.mark.house_on("sqlite-rabbitmq")
def test_a_full_queue_holds_up_nothing_but_its_own_tasks_and_these_are_sent_once(running: House) -> None:
    proj = running.proj
    full = Queue("full", durable=True, queue_arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    with running.app.connection_for_write() as connection:
        full(connection.default_channel).queue_declare()
        job = running.jobs.submit(group(proj.add.s(i, i).set(queue=full if i % 2 else None) for i in range(6)))
        until(lambda: job.progress.done == 3, timeout=PATIENCE, what="the tasks of the other queue to end")
        sent = []
        for _ in range(3):
            message = until(lambda: full(connection.default_channel).get(), timeout=PATIENCE, what="a message")
            sent.append(message.headers["id"])
            message.ack()
    assert sorted(sent) == sorted(task.id for task in job.tasks() if task.queue == "full")
    assert all(task.delivery == 1 for task in job.tasks())
