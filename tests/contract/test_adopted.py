"""Adopted tasks in a turn, on both databases: what tasks of a submitted job have sent is part of the job."""

from datetime import timedelta
from random import Random
from typing import Any

import pytest
from celery import chain
from celery.canvas import Signature

from jobrunner import JobRunner
from jobrunner.states import FailureReason, JobState, TaskState
from jobrunner.store import reading
from jobrunner.store.reading import JobView, TaskView
from tests.apps import check_counters, give_up, order, read_rows, statements_to, store, take_turn
from tests.builders import MIDNIGHT, entry, raw_event
from tracker.events import read_events
from tracker.recover import QueueWatch, give_up_worker, void_outbox
from tracker.sending import take_ready
from tracker.turn import Turn

#: What a worker tells of a task that ends well.
RUN = ("received", "started", "succeeded")


@pytest.fixture
def first(runner: JobRunner) -> str:
    """The only task of a job, which was sent."""
    return submit(runner, runner.app.tasks["add"].s(1, 2))[0]


def submit(runner: JobRunner, canvas: Signature) -> list[str]:
    """Submit a canvas, send its first tasks, and return the ids of all."""
    job_id = store(runner, canvas)
    turn(runner)
    return [one.id for one in tasks_of(runner, job_id)]


def turn(runner: JobRunner, *events: dict[str, Any], source: str | None = "process-1") -> None:
    take_turn(runner, *read_events([entry(*events, source=source)]).events)
    check_counters(runner.database)


def job(runner: JobRunner) -> JobView:
    with runner.database.read() as connection:
        (found,) = reading.list_jobs(connection, None, 2)
    return found


def tasks_of(runner: JobRunner, job_id: str) -> list[TaskView]:
    with runner.database.read() as connection:
        return list(reading.list_tasks(connection, job_id))


def task(runner: JobRunner, uuid: str) -> TaskView:
    return next(one for one in tasks_of(runner, job(runner).id) if one.id == uuid)


def planned(type_: str, uuid: str, **fields: Any) -> dict[str, Any]:
    return raw_event(type=f"task-{type_}", uuid=uuid, **fields)


def adopted(runner: JobRunner, type_: str, uuid: str, parent: str | None = None, **fields: Any) -> dict[str, Any]:
    """An event of a worker about a task that another has sent."""
    told = {"name": f"the {uuid}", "parent_id": parent} if type_ in {"sent", "received"} else {}
    return raw_event(type=f"task-{type_}", uuid=uuid, root_id=job(runner).id, **told, **fields)


def life(runner: JobRunner, uuid: str, parent: str, end: str = "succeeded") -> list[dict[str, Any]]:
    """All that is told of an adopted task."""
    types = ("sent", "received", "started", end)
    return [adopted(runner, type_, uuid, parent, **_told_with(type_)) for type_ in types]


def _told_with(type_: str) -> dict[str, Any]:
    return {"queue": "q"} if type_ == "sent" else {"exception": "ValueError('no')"} if type_ == "failed" else {}


# ---- part of the job ---------------------------------------------------------------------------------------


def test_a_task_that_another_has_sent_is_counted_and_waited_for_and_shown_with_its_creator(
    runner: JobRunner, first: str
) -> None:
    turn(runner, planned("started", first), adopted(runner, "sent", "child", first, queue="slow"))
    assert (job(runner).total, job(runner).counts) == (2, {TaskState.ACTIVE: 1, TaskState.QUEUED: 1})
    child = task(runner, "child")
    assert (child.name, child.created_by, child.arrival, child.sequence, child.queue) == (
        "the child", first, 1, 1, "slow",
    )  # fmt: skip
    turn(runner, planned("succeeded", first))
    assert (job(runner).name, job(runner).state) == ("add", JobState.ACTIVE)
    turn(runner, *(adopted(runner, type_, "child", first) for type_ in RUN))
    assert (job(runner).state, job(runner).counts) == (JobState.COMPLETED, {TaskState.COMPLETED: 2})


def test_the_tasks_after_its_creator_do_not_wait_for_it(runner: JobRunner) -> None:
    add = runner.app.tasks["add"]
    first, second = submit(runner, chain(add.s(1, 2), add.s(3)))
    turn(runner, planned("started", first), adopted(runner, "sent", "child", first), planned("succeeded", first))
    assert task(runner, second).state is TaskState.QUEUED
    turn(runner, planned("succeeded", second))
    assert job(runner).state is JobState.ACTIVE


def test_a_requeue_runs_the_sender_of_a_partial_task_again_and_what_it_had_sent_is_gone(
    runner: JobRunner, first: str
) -> None:
    stated = adopted(
        runner, "stated", "child", first, statement={"state": "partial", "errors": 1, "counts": {"failed": 1}}
    )
    errors = adopted(runner, "stated", "child", first, errors=[{"label": "a", "message": "no"}], first=0)
    turn(runner, planned("started", first), *life(runner, "child", first), errors, stated, planned("succeeded", first))
    assert (job(runner).state, job(runner).reason) == (JobState.FAILED, FailureReason.PARTIAL)
    assert [len(read_rows(runner.database, table)) for table in ("item_error", "item_count")] == [1, 1]
    order(runner, "requeue", job(runner).id)
    turn(runner)
    assert [one.state for one in tasks_of(runner, job(runner).id)] in ([TaskState.READY], [TaskState.QUEUED])
    assert [read_rows(runner.database, table) for table in ("item_error", "item_count")] == [[], []]


def test_an_adopted_task_that_fails_fails_the_job(runner: JobRunner, first: str) -> None:
    turn(runner, planned("succeeded", first), *life(runner, "child", first, "failed"))
    assert (job(runner).state, job(runner).reason) == (JobState.FAILED, FailureReason.TASK)
    assert job(runner).note == "the child [child] failed: ValueError('no')"


def test_what_a_later_delivery_has_sent_is_shown_with_the_task(runner: JobRunner, first: str) -> None:
    turn(runner, planned("started", first))
    give_up(runner, "w1@host", redelivers=False)
    turn(runner)
    later = task(runner, first).celery_id
    assert later != first
    turn(runner, planned("started", later), adopted(runner, "sent", "child", later))
    assert (task(runner, "child").created_by, task(runner, "child").sequence) == (first, 1)


@pytest.mark.parametrize("seed", range(5))
def test_in_whatever_order_and_batches_and_however_often_events_come_the_rows_are_the_same(
    runner: JobRunner, first: str, seed: int
) -> None:
    events = [
        *(planned(type_, first) for type_ in RUN), *life(runner, "child", first), *life(runner, "last", "grandchild"),
        *life(runner, "other", first, "failed"), *life(runner, "grandchild", "child"),
        adopted(runner, "sent", "child", first, retries=1),
    ]  # fmt: skip
    random = Random(seed)  # noqa: S311  an order, not a secret
    events += random.choices(events, k=6)
    random.shuffle(events)
    while events:
        size = random.randint(1, 5)
        turn(runner, *events[:size])
        events = events[size:]
    rows = {(one.id, one.name, one.created_by, one.sequence, one.state) for one in tasks_of(runner, job(runner).id)}
    done = TaskState.COMPLETED
    assert rows == {
        (first, "add", None, 0, done), ("child", "the child", first, 1, done),
        ("other", "the other", first, 1, TaskState.FAILED), ("grandchild", "the grandchild", "child", 2, done),
        ("last", "the last", "grandchild", 3, done),
    }  # fmt: skip
    assert sorted(one.arrival for one in tasks_of(runner, job(runner).id)) == list(range(5))
    assert (job(runner).state, job(runner).total) == (JobState.FAILED, 5)


@pytest.mark.usefixtures("first")
def test_creators_in_a_circle_are_no_reason_to_go_round_for_ever(runner: JobRunner) -> None:
    turn(runner, adopted(runner, "sent", "a", "b"), adopted(runner, "sent", "b", "a"))
    assert job(runner).total == 3


# ---- a job that had ended ----------------------------------------------------------------------------------


def test_a_completed_job_is_active_again_until_a_task_that_is_heard_of_late_has_ended(
    runner: JobRunner, first: str
) -> None:
    turn(runner, planned("succeeded", first))
    assert job(runner).state is JobState.COMPLETED
    turn(runner, adopted(runner, "received", "child", first))
    assert (job(runner).state, job(runner).ended_at) == (JobState.ACTIVE, None)
    turn(runner, adopted(runner, "succeeded", "child"))
    assert job(runner).state is JobState.COMPLETED
    assert job(runner).ended_at is not None


@pytest.mark.parametrize(("end", "state"), [("succeeded", JobState.COMPLETED), ("failed", JobState.FAILED)])
def test_what_is_heard_of_late_may_have_ended_already(runner: JobRunner, first: str, end: str, state: JobState) -> None:
    turn(runner, planned("succeeded", first))
    turn(runner, *life(runner, "child", first, end))
    assert (job(runner).state, job(runner).total) == (state, 2)


def test_a_failed_job_waits_for_its_link_error_and_fails_again_as_before(runner: JobRunner) -> None:
    add = runner.app.tasks["add"]
    first, second = submit(runner, chain(add.s(1, 2), add.s(3)))
    turn(runner, planned("failed", first, exception="ValueError('no')", traceback="T"))
    before = job(runner)
    assert (before.state, task(runner, second).state) == (JobState.FAILED, TaskState.CANCELED)
    turn(runner, adopted(runner, "sent", "errback", first))
    assert (job(runner).state, job(runner).note, task(runner, second).state) == (
        JobState.ACTIVE, None, TaskState.PENDING,
    )  # fmt: skip
    turn(runner, *(adopted(runner, type_, "errback", first) for type_ in RUN))
    assert (job(runner).state, job(runner).reason, job(runner).note) == (before.state, before.reason, before.note)
    assert (task(runner, second).state, task(runner, second).note) == (
        TaskState.CANCELED, f"upstream: add [{first}] failed",
    )  # fmt: skip


# ---- nobody but Celery sends it ----------------------------------------------------------------------------


def test_its_retries_are_those_of_celery(runner: JobRunner, first: str) -> None:
    turn(runner, planned("succeeded", first), *life(runner, "child", first, "retried"))
    assert (task(runner, "child").state, job(runner).state) == (TaskState.SOFT_FAILED, JobState.ACTIVE)
    turn(runner, adopted(runner, "sent", "child", first, retries=1))
    assert task(runner, "child").state is TaskState.SOFT_FAILED
    turn(runner, *(adopted(runner, type_, "child", first, retries=1) for type_ in RUN))
    assert (job(runner).state, task(runner, "child").retries) == (JobState.COMPLETED, 1)


def test_the_tracker_never_sends_it(runner: JobRunner, first: str) -> None:
    turn(runner, planned("succeeded", first), *life(runner, "a", first, "retried"), adopted(runner, "sent", "b", first))
    turn(runner, *life(runner, "c", first, "started"), adopted(runner, "received", "d", first))
    with runner.database.write() as connection:
        one, watch = Turn(connection, MIDNIGHT + timedelta(hours=1)), QueueWatch()
        assert void_outbox(one) is None
        assert [watch.look(one, lambda _: True) for _ in range(3)] == [0, 0, 0]
        assert give_up_worker(one, "w1@host", living_source=None, redelivers=False) == 0
        one.move_on()
        assert take_ready(one) == []


@pytest.mark.parametrize("redelivers", [True, False])
def test_what_a_lost_worker_had_started_has_failed_and_says_why(
    runner: JobRunner, first: str, redelivers: bool
) -> None:
    turn(runner, planned("succeeded", first), *life(runner, "child", first, "started"))
    give_up(runner, "w1@host", redelivers=redelivers)
    child = task(runner, "child")
    assert child.state is TaskState.FAILED
    assert child.note is not None
    assert child.note.startswith("lost: worker w1@host was lost while it ran this task")
    assert "acks_late" in child.note
    assert (job(runner).state, job(runner).reason) == (JobState.FAILED, FailureReason.LOST)
    assert child.note in (job(runner).note or "")
    turn(runner, *life(runner, "child", first, "started"))  # told once more: it is no other execution
    assert (task(runner, "child").state, task(runner, "child").note) == (TaskState.FAILED, child.note)


@pytest.mark.parametrize("end", ["succeeded", "failed"])
def test_what_was_taken_for_lost_and_runs_after_all_is_corrected(runner: JobRunner, first: str, end: str) -> None:
    turn(runner, planned("succeeded", first), *life(runner, "child", first, "started"))
    give_up(runner, "w1@host", redelivers=False)
    again = [adopted(runner, type_, "child", first, hostname="w2@host") for type_ in ("received", "started")]
    turn(runner, *again, source="process-2")
    assert (task(runner, "child").state, job(runner).state) == (TaskState.ACTIVE, JobState.ACTIVE)
    ended = adopted(runner, end, "child", hostname="w2@host", **_told_with(end))
    turn(runner, ended, source="process-2")
    fine = end == "succeeded"
    assert job(runner).state is (JobState.COMPLETED if fine else JobState.FAILED)
    assert job(runner).reason == (None if fine else FailureReason.TASK)
    assert task(runner, "child").note == (None if fine else "ValueError('no')")


@pytest.mark.parametrize("redelivers", [True, False])
def test_what_a_lost_worker_had_only_received_comes_back_from_the_broker(
    runner: JobRunner, first: str, redelivers: bool
) -> None:
    turn(runner, planned("succeeded", first), *life(runner, "child", first)[:2])
    give_up(runner, "w1@host", redelivers=redelivers)
    assert (task(runner, "child").state, job(runner).state) == (TaskState.QUEUED, JobState.ACTIVE)
    again = [adopted(runner, type_, "child", first, hostname="w2@host") for type_ in RUN]
    turn(runner, *again, source="process-2")
    assert job(runner).state is JobState.COMPLETED


def look_at_empty_queues(runner: JobRunner) -> None:
    """Let an hour pass in which all queues are empty."""
    with runner.database.write() as connection:
        one, watch = Turn(connection, MIDNIGHT + timedelta(hours=1)), QueueWatch()
        assert [watch.look(one, lambda _: True) for _ in range(2)] == [0, 0]
        one.settle()
    check_counters(runner.database)


def test_what_was_lost_with_its_queue_has_failed_until_it_turns_up(runner: JobRunner, first: str) -> None:
    turn(runner, planned("succeeded", first), adopted(runner, "sent", "child", first, queue="q"))
    look_at_empty_queues(runner)
    child = task(runner, "child")
    assert child.state is TaskState.FAILED
    assert (child.note or "").startswith("lost: its queue was found empty and no worker had it")
    assert (job(runner).state, job(runner).reason) == (JobState.FAILED, FailureReason.LOST)
    turn(runner, adopted(runner, "received", "child", first))
    assert (task(runner, "child").state, job(runner).state) == (TaskState.QUEUED, JobState.ACTIVE)
    turn(runner, adopted(runner, "succeeded", "child"))
    assert (job(runner).state, job(runner).reason) == (JobState.COMPLETED, None)


def test_what_some_worker_had_is_not_lost_with_its_queue(runner: JobRunner, first: str) -> None:
    """The broker keeps it until its visibility time-out is over."""
    turn(runner, planned("succeeded", first), *life(runner, "child", first)[:2])
    give_up(runner, "w1@host", redelivers=False)
    look_at_empty_queues(runner)
    assert (task(runner, "child").state, job(runner).state) == (TaskState.QUEUED, JobState.ACTIVE)


# ---- what it costs -----------------------------------------------------------------------------------------


def test_however_many_tasks_are_adopted_they_cost_as_many_statements(runner: JobRunner, first: str) -> None:
    def statements(start: int, number: int) -> int:
        events = [one for index in range(start, start + number) for one in life(runner, f"t{index}", first, "started")]
        with statements_to(runner.database) as told:
            turn(runner, *events)
        return len(told)

    turn(runner, planned("started", first))
    assert statements(100, 7) == statements(200, 300)
    assert {one["sequence"] for one in read_rows(runner.database, "task")} == {0, 1}
