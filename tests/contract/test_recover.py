"""What is sent again of a worker that is gone, and what is not: on both databases."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobrunner import JobRunner
from jobrunner.store import reading
from tests.apps import new_runner, store
from tests.builders import MIDNIGHT, event
from tracker.fold import Event
from tracker.folding import fold
from tracker.recover import give_up_worker
from tracker.sending import take_ready
from tracker.turn import Turn


@pytest.fixture
def runner(tmp_path: Path, database_url: str) -> Iterator[JobRunner]:
    made = new_runner(tmp_path, database=database_url)
    yield made
    made.database.close()


@pytest.fixture
def task_id(runner: JobRunner) -> str:
    """The id of a task that is sent."""
    store(runner, runner.app.tasks["add"].s(1, 2))
    with runner.database.write() as connection:
        turn = Turn(connection, MIDNIGHT)
        turn.take_up()
        (one,) = take_ready(turn)
        turn.settle()
    return one.letter.task_id


def tell(runner: JobRunner, *events: Event) -> None:
    with runner.database.write() as connection:
        turn = Turn(connection, MIDNIGHT)
        fold(turn, events)
        turn.move_on()
        turn.settle()


def give_up(runner: JobRunner, name: str, *, redelivers: bool = True) -> int:
    with runner.database.write() as connection:
        turn = Turn(connection, MIDNIGHT)
        number = give_up_worker(turn, name, living_source=None, redelivers=redelivers)
        turn.settle()
    return number


def state(runner: JobRunner) -> str:
    with runner.database.read() as connection:
        (job,) = reading.list_jobs(connection, None, 2)
        (task,) = reading.list_tasks(connection, job.id)
    return task.state


@pytest.mark.parametrize("redelivers", [True, False])
def test_what_a_lost_worker_had_started_is_sent_again(runner: JobRunner, task_id: str, redelivers: bool) -> None:
    tell(runner, event("started", uuid=task_id))
    assert give_up(runner, "w1@host", redelivers=redelivers) == 1
    assert state(runner) == "ready"


def test_what_the_broker_has_given_to_another_worker_is_not_sent_again_while_that_one_lives(
    runner: JobRunner, task_id: str
) -> None:
    tell(runner, event("started", uuid=task_id), event("started", uuid=task_id, at=1, worker="w2@host"))
    assert give_up(runner, "w1@host") == 0
    assert state(runner) == "active"
    assert give_up(runner, "w2@host") == 1
    assert state(runner) == "ready"


def test_what_celery_retries_elsewhere_is_not_sent_again_though_nobody_told_the_end_before(
    runner: JobRunner, task_id: str
) -> None:
    tell(runner, event("started", uuid=task_id), event("received", uuid=task_id, at=1, worker="w2@host", retries=1))
    assert give_up(runner, "w1@host") == 0
    tell(runner, event("started", uuid=task_id, at=2, worker="w2@host", retries=1))
    assert state(runner) == "active"


def test_what_was_handed_back_and_received_again_counts_as_received(runner: JobRunner, task_id: str) -> None:
    back = event("rejected", uuid=task_id, at=2, fields={"requeue": True})
    tell(runner, event("started", uuid=task_id), back, event("received", uuid=task_id, at=3))
    assert give_up(runner, "w1@host", redelivers=True) == 0
    assert state(runner) == "soft-failed"
