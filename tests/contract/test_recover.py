"""What is sent again of a worker that is gone, and what is not: on both databases."""

from datetime import timedelta

import pytest

from jobrunner import JobRunner
from jobrunner.retry_policy import MAX_ATTEMPTS
from jobrunner.states import FailureReason, TaskState
from jobrunner.store import reading
from tests.apps import give_up, nobody_runs_it, read_rows, store
from tests.builders import MIDNIGHT, event
from tracker.fold import Event
from tracker.folding import fold
from tracker.recover import QueueWatch
from tracker.sending import take_ready
from tracker.turn import Turn


@pytest.fixture
def task_id(runner: JobRunner) -> str:
    """The id of a task that is sent."""
    store(runner, runner.app.tasks["add"].s(1, 2))
    return send_first(runner)[0]


def tell(runner: JobRunner, *events: Event) -> None:
    with runner.database.write() as connection:
        turn = Turn(connection, MIDNIGHT)
        fold(turn, events)
        turn.move_on()
        turn.settle()


def view(runner: JobRunner) -> reading.TaskView:
    with runner.database.read() as connection:
        (job,) = reading.list_jobs(connection, None, 2)
        (task,) = reading.list_tasks(connection, job.id)
    return task


def state(runner: JobRunner) -> str:
    return view(runner).state


def send(runner: JobRunner) -> tuple[str, int]:
    """Send what is ready, a minute later, and return the Celery id and the retries of the only message."""
    with runner.database.write() as connection:
        turn = Turn(connection, MIDNIGHT + timedelta(minutes=1))
        (one,) = take_ready(turn)
        turn.settle()
    return one.celery_id, one.retries


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


def test_a_task_that_is_lost_with_its_workers_has_its_own_number_of_retries_and_is_poison_then(
    runner: JobRunner, task_id: str
) -> None:
    celery_id, retries = task_id, 0
    for attempt in range(4):
        assert retries == attempt
        worker = f"w{attempt}@host"
        tell(runner, event("started", uuid=celery_id, worker=worker, retries=retries))
        sent = give_up(runner, worker)
        if attempt < 3:
            assert (sent, state(runner)) == (1, "ready")
            celery_id, retries = send(runner)
    assert sent == 0
    failed = view(runner)
    assert (failed.state, failed.reason) == (TaskState.FAILED, FailureReason.POISON)
    assert failed.note is not None
    assert failed.note.endswith("at last: lost: worker w3@host was lost while it ran this task")
    (job,) = read_rows(runner.database, "job")
    assert (job["state"], job["reason"]) == ("failed", "poison")
    assert read_rows(runner.database, "history")[-1]["line"] == "reason: poison"
    lines = [one["line"] for one in read_rows(runner.database, "history") if one["task_id"] == task_id]
    assert lines == [f"{task_id} failed (poison): {failed.note}"]


@pytest.mark.parametrize(("max_retries", "reason"), [(0, "lost"), (1, "poison")])
def test_a_task_has_the_number_of_retries_that_it_was_submitted_with(
    runner: JobRunner, max_retries: int, reason: str
) -> None:
    runner.task(name="few", shared=False, max_retries=max_retries)(nobody_runs_it)
    store(runner, runner.app.tasks["few"].si())
    celery_id, retries = send_first(runner)
    for _ in range(max_retries):
        tell(runner, event("started", uuid=celery_id, retries=retries))
        assert give_up(runner, "w1@host") == 1
        celery_id, retries = send(runner)
    tell(runner, event("started", uuid=celery_id, retries=retries))
    assert give_up(runner, "w1@host") == 0
    assert (state(runner), view(runner).reason) == ("failed", reason)


def test_what_was_lost_for_good_and_succeeds_after_all_is_completed(runner: JobRunner) -> None:
    runner.task(name="few", shared=False, max_retries=0)(nobody_runs_it)
    store(runner, runner.app.tasks["few"].si())
    celery_id, _ = send_first(runner)
    tell(runner, event("started", uuid=celery_id))
    give_up(runner, "w1@host")
    assert state(runner) == "failed"
    tell(runner, event("held", uuid=celery_id, worker="w2@host", at=5, fields={"reason": "redelivered"}))
    tell(runner, event("received", uuid=celery_id, at=6))
    assert (state(runner), view(runner).reason) == ("failed", "lost")
    tell(runner, event("succeeded", uuid=celery_id, at=7))
    assert (state(runner), view(runner).reason) == ("completed", None)


def test_a_message_that_the_broker_brings_back_from_an_ended_process_uses_up_a_retry(runner: JobRunner) -> None:
    """As with `reject_on_worker_lost`: the gate refuses what the broker brings, and the tracker counts."""
    runner.task(name="few", shared=False, max_retries=1)(nobody_runs_it)
    store(runner, runner.app.tasks["few"].si())
    celery_id, retries = send_first(runner)
    for attempt in range(2):
        assert retries == attempt
        known = {"uuid": celery_id, "retries": retries}
        tell(runner, event("received", at=1, **known), event("started", at=2, **known))
        tell(runner, event("rejected", at=3, fields={"requeue": True}, **known), event("received", at=4, **known))
        tell(runner, event("held", at=5, fields={"reason": "redelivered"}, **known))
        if attempt == 0:
            celery_id, retries = send(runner)
    assert (state(runner), view(runner).reason) == ("failed", "poison")


def test_a_task_whose_worker_is_shut_down_is_sent_again_at_once(runner: JobRunner, task_id: str) -> None:
    tell(runner, event("started", uuid=task_id), event("cancelled", uuid=task_id, at=1, fields={"shut_down": True}))
    assert state(runner) == "ready"
    assert send(runner)[1] == 1


def test_a_task_that_kills_each_worker_before_anybody_tells_its_start_is_not_sent_for_ever(
    runner: JobRunner, task_id: str
) -> None:
    celery_id, times = task_id, 0
    while state(runner) != "failed":
        times += 1
        tell(runner, event("received", uuid=celery_id, at=times))
        if give_up(runner, "w1@host", redelivers=False):
            celery_id, retries = send(runner)
            assert retries == 0
    assert (times, view(runner).reason) == (MAX_ATTEMPTS, "lost")


def test_the_retries_of_a_task_go_on_if_the_message_of_one_is_lost_with_its_queue(
    runner: JobRunner, task_id: str
) -> None:
    tell(runner, event("started", uuid=task_id), event("retried", uuid=task_id, at=1))
    watch = QueueWatch()
    for _ in range(2):
        with runner.database.write() as connection:
            turn = Turn(connection, MIDNIGHT + timedelta(minutes=1))
            watch.look(turn, lambda _: True)
            turn.settle()
    assert send(runner)[1] == 1


def test_a_worker_without_the_code_costs_no_retry_and_gives_none_back(runner: JobRunner, task_id: str) -> None:
    tell(runner, event("started", uuid=task_id), event("retried", uuid=task_id, at=1))
    lacks = {"exception": "NotRegistered('add')"}
    tell(runner, event("failed", uuid=task_id, at=2, worker="w2@host", retries=1, fields=lacks))
    assert send(runner)[1] == 1


def send_first(runner: JobRunner) -> tuple[str, int]:
    """Take up what was submitted, and send it."""
    with runner.database.write() as connection:
        turn = Turn(connection, MIDNIGHT)
        turn.take_up()
        (one,) = take_ready(turn)
        turn.settle()
    return one.celery_id, one.retries
