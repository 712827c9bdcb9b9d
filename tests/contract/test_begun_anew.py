"""A task that was requeued begins anew: what became of it before is seen, and counts no more. On both databases."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import chain

from jobrunner import ids
from jobrunner.order_kinds import OrderKind
from jobrunner.retry_policy import MAX_ATTEMPTS
from jobrunner.states import JobState, TaskState
from tests.apps import nobody_runs_it
from tests.driven import Driven, driven
from tracker.replay import MOST_DELIVERIES


@pytest.fixture
def one(tmp_path: Path, database_url: str) -> Iterator[Driven]:
    with driven(tmp_path, database_url) as made:
        yield made


def requeue(one: Driven, **arguments: str) -> None:
    one.order(OrderKind.REQUEUE, **arguments)
    one.notice()
    one.turn()


def times_lost(one: Driven) -> int:
    """Kill each worker that receives the only task, before anybody tells that it started; return how many that were."""
    one.world.redelivers, times = False, 0
    while one.row(0).state != TaskState.FAILED:
        one.world.prefetch(one.world.workers["worker"], one._message(0))
        one.turn()
        one.lose_worker()
        one.turn()
        times += 1
    return times


def test_what_was_lost_for_good_is_sent_as_often_again(one: Driven) -> None:
    one.submit(one.work())
    assert times_lost(one) == MAX_ATTEMPTS
    requeue(one)
    assert one.tasks == [TaskState.QUEUED]
    assert times_lost(one) == MAX_ATTEMPTS


def test_only_what_it_did_since_says_whether_it_is_poison(one: Driven) -> None:
    one.submit(one.work())
    one.run(0)
    requeue(one)
    while one.row(0).state != TaskState.FAILED:
        one.start(0)
        one.lose_worker()
    assert one.row(0).reason == "poison"


def test_it_has_not_started_before_it_was_sent(one: Driven) -> None:
    one.submit(one.work())
    one.run(0)
    requeue(one)
    one.start(0)
    assert one.row(0).started_at > one.row(0).queued_at


def test_a_value_may_be_lost_as_often_again(one: Driven) -> None:
    runner = one.world.runner
    runner.task(name="again", replayable=True, shared=False)(nobody_runs_it)
    runner.prepare_tasks()
    one.submit(chain(runner.app.tasks["again"].si(), runner.app.tasks["anything"].s()))

    def lose() -> None:
        while one.state is not JobState.FAILED:
            one.run(0)
            one.start(1)
            (running,) = (worker := one.world.workers["worker"]).running
            worker.running.clear()
            lost = [ids.celery_id(one.row(0).id, one.row(0).delivery)]
            one.world.tell(worker, "failed", running.message, exception="InputLostError()", lost=lost)
            one.turn()

    lose()
    assert (one.row(0).delivery, one.tasks) == (MOST_DELIVERIES, [TaskState.COMPLETED, TaskState.FAILED])
    requeue(one, scope="all")
    lose()
    assert one.row(0).delivery == 2 * MOST_DELIVERIES


def test_what_a_task_had_sent_before_and_turns_up_late_is_none_of_the_job_any_more(one: Driven) -> None:
    one.submit(one.work())
    one.start(0)
    one.world.call(worker := one.world.workers["worker"], worker.running[0])
    one.turn()
    one.order(OrderKind.CANCEL, grace=1.0)
    one.notice()
    one.turn()
    assert one.tasks == [TaskState.CANCELED, TaskState.CANCELED]
    requeue(one)
    (late,) = (message for message in one.world.queue if message.first is None)
    one.world.prefetch(worker, late)
    one.turn()
    one.world.start(worker, late)
    one.turn()
    assert one.tasks == [TaskState.QUEUED]
    one.run(0)
    assert (one.state, one.tasks) == (JobState.COMPLETED, [TaskState.COMPLETED])
