"""Where others fell: what Flamenco's manager has had to learn about orders, each a test of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import chain, chord, group

from jobrunner.order_kinds import OrderKind
from jobrunner.states import JobState, TaskState
from tests.driven import Driven, driven

EVENTS = ("sent", "received", "started", "succeeded", "failed", "retried", "revoked", "rejected", "cancelled", "held")


@pytest.fixture
def one(tmp_path: Path, any_database_url: str) -> Iterator[Driven]:
    """Return a world with a worker, to submit a job."""
    with driven(tmp_path, any_database_url) as made:
        yield made


def test_a_requeued_task_of_a_failed_job_is_sent(one: Driven) -> None:
    one.submit(group(one.work(), one.work()))
    one.run(0)
    one.run(1, "failed")
    assert one.state is JobState.FAILED
    one.order(OrderKind.REQUEUE, 1)
    one.rest()
    assert one.state is JobState.COMPLETED
    assert [one.row(number).delivery for number in (0, 1)] == [1, 2]


def test_a_soft_failure_while_a_job_is_pausing_does_not_make_it_active_again(one: Driven) -> None:
    one.submit(group(one.work(), one.work()))
    one.start(0)
    one.order(OrderKind.PAUSE)
    assert one.state is JobState.PAUSING
    one.end(0, "retried")
    assert one.tasks[0] is TaskState.SOFT_FAILED
    assert one.state is JobState.PAUSING
    one.notice()
    one.rest()
    assert one.state is JobState.PAUSED
    assert JobState.ACTIVE not in {new for old, new in one.moves if old in {JobState.PAUSING, JobState.PAUSED}}


def test_what_a_failure_blocks_does_not_keep_a_job_active(one: Driven) -> None:
    one.submit(chord([one.work(), chain(one.work(), one.work())], one.work()))
    one.run(1, "failed")
    assert one.state is JobState.ACTIVE
    one.run(0)
    assert one.state is JobState.FAILED
    assert one.tasks == [TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELED, TaskState.CANCELED]


def test_requeueing_one_task_requeues_no_other_but_what_comes_after_it(one: Driven) -> None:
    one.submit(group(chain(one.work(), one.work()), one.work(), one.work()))
    for number in range(4):
        one.run(number)
    assert one.state is JobState.COMPLETED
    one.order(OrderKind.REQUEUE, 0)
    one.rest()
    assert one.state is JobState.COMPLETED
    assert [one.row(number).delivery for number in range(4)] == [2, 2, 1, 1]


@pytest.mark.parametrize("told", EVENTS)
def test_a_canceled_job_stays_canceled_whatever_is_told_of_its_tasks(one: Driven, told: str) -> None:
    """Of one that ran, one that was sent, one that waited; by the worker that had it, and by another."""
    one.submit(group(one.work(), chain(one.work(), one.work())))
    one.start(0)
    one.order(OrderKind.CANCEL)
    one.notice()
    one.rest()
    assert one.state is JobState.CANCELED
    for number in range(3):
        for worker in ("worker", "other"):
            one.hear(told, number, worker=worker)
            assert one.state is JobState.CANCELED
            assert one.tasks == [TaskState.CANCELED] * 3
    one.rest()
    assert one.state is JobState.CANCELED
    assert one.tasks == [TaskState.CANCELED] * 3
