"""What gates have refused, in a turn, on both databases: the tracker sends its own again and forwards all others."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jobrunner import JobRunner
from jobrunner.records import HeldMessage
from jobrunner.states import CancelReason, FailureReason, JobState, TaskState
from jobrunner.store import tracking
from jobrunner.store.schema import job, task
from tests.apps import check_counters, give_up, job_row, live, new_runner, read_rows, snapshot_of, store, task_row
from tests.builders import MIDNIGHT, by_process, entry, held_message, moment, raw_event
from tests.driven import driven
from tracker.absorb import absorb, absorb_apart
from tracker.events import read_events
from tracker.recover import QueueWatch, forget_receipts, resend_outbox, void_outbox
from tracker.sending import Outgoing, take_held, take_ready
from tracker.turn import Turn

FIRST, SECOND = "first@host", "second@host"


@pytest.fixture
def runner(tmp_path: Path, any_database_url: str) -> Iterator[JobRunner]:
    made = new_runner(tmp_path, database=any_database_url)
    yield made
    made.database.close()


@pytest.fixture
def planned(runner: JobRunner) -> str:
    """The only task of a job, which was sent."""
    job_id = store(runner, runner.app.tasks["add"].s(1, 2))
    (one,) = turn(runner)
    assert one.letter.job_id == job_id
    return one.letter.task_id


@pytest.fixture
def adopted(runner: JobRunner, planned: str) -> str:
    """A task that the planned one has sent, which has succeeded since."""
    turn(
        runner,
        told("started", planned),
        told("sent", "child", root_id=job_row(runner)["id"], parent_id=planned, name="child", queue="q"),
        told("succeeded", planned),
    )
    return "child"


def told(type_: str, uuid: str, worker: str = FIRST, at: float = 0, **fields: Any) -> dict[str, Any]:
    return raw_event(type=f"task-{type_}", uuid=uuid, hostname=worker, timestamp=moment(at).timestamp(), **fields)


def held(uuid: str, reason: str, worker: str = FIRST, at: float = 1, **fields: Any) -> dict[str, Any]:
    return told("held", uuid, worker, at, reason=reason, **fields)


def whole(uuid: str, reason: str, worker: str = FIRST, at: float = 1, **fields: Any) -> dict[str, Any]:
    return held(uuid, reason, worker, at, message=held_message(), **fields)


def turn(runner: JobRunner, *events: dict[str, Any], later: float = 0) -> list[Outgoing]:
    """Do a turn, so many seconds later than the first, and return what it puts into the outbox."""
    return _turn(runner, *events, later=later)[0]


def forwarded(runner: JobRunner, *events: dict[str, Any], later: float = 2) -> list[HeldMessage]:
    """Do a turn, and return what it forwards."""
    return _turn(runner, *events, later=later)[1]


def note_forwarded(runner: JobRunner, messages: list[HeldMessage]) -> None:
    """Note that the broker has them."""
    with runner.database.write() as connection:
        tracking.forget_held(connection, [one.id for one in messages])


def _turn(runner: JobRunner, *events: dict[str, Any], later: float) -> tuple[list[Outgoing], list[HeldMessage]]:
    with runner.database.write() as connection:
        one = Turn(connection, MIDNIGHT + timedelta(seconds=later))
        absorb(one, read_events(by_process(*events)).events, ())
        one.take_up()
        one.move_on()
        taken = take_ready(one), take_held(one)
        one.settle()
    check_counters(runner.database)
    return taken


def pause(runner: JobRunner, *, paused: bool = True) -> None:
    with runner.database.write() as connection:
        connection.execute(job.update().values(held=paused))


# ---- what the tracker has sent -----------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["redelivered", "void", "canceled"])
def test_what_a_gate_refuses_goes_again_at_once_under_the_next_delivery(
    runner: JobRunner, planned: str, reason: str
) -> None:
    (again,) = turn(runner, told("received", planned), held(planned, reason))
    assert (again.letter.task_id, again.letter.delivery, again.retries) == (planned, 2, 0)
    assert read_rows(runner.database, "held_message") == []


@pytest.mark.parametrize("reason", ["uninformed", "paused"])
def test_what_workers_may_not_know_yet_goes_again_after_a_rest(runner: JobRunner, planned: str, reason: str) -> None:
    assert turn(runner, told("received", planned), held(planned, reason)) == []
    assert task_row(runner, planned)["state"] == TaskState.READY
    assert turn(runner, later=0.9) == []
    assert [one.letter.delivery for one in turn(runner, later=1)] == [2]


def test_a_thread_whose_gate_refuses_has_not_started_though_its_pool_has_told_so(
    runner: JobRunner, planned: str
) -> None:
    turn(runner, told("received", planned), told("started", planned))
    assert task_row(runner, planned)["state"] == TaskState.ACTIVE
    (again,) = turn(runner, held(planned, "redelivered"))
    assert again.letter.delivery == 2
    assert task_row(runner, planned)["started_at"] is None


@pytest.mark.parametrize("first", ["received", "started"])
def test_a_copy_that_a_gate_refuses_counts_for_nothing_while_another_worker_has_the_message(
    runner: JobRunner, planned: str, first: str
) -> None:
    turn(runner, told("received", planned), told(first, planned, at=1))
    refused = (told("received", planned, SECOND, at=2), held(planned, "redelivered", SECOND, at=2))
    assert turn(runner, *refused) == []
    assert task_row(runner, planned)["state"] == (TaskState.ACTIVE if first == "started" else TaskState.QUEUED)
    turn(runner, told("started", planned, at=3), told("succeeded", planned, at=4))
    assert job_row(runner)["state"] == JobState.COMPLETED


@pytest.mark.parametrize("redelivers", [True, False])
@pytest.mark.parametrize("first", ["received", "started"])
def test_a_copy_that_a_gate_refuses_counts_once_the_worker_that_has_the_message_is_lost(
    runner: JobRunner, planned: str, first: str, redelivers: bool
) -> None:
    turn(runner, told("received", planned), told(first, planned, at=1), held(planned, "redelivered", SECOND, at=2))
    give_up(runner, FIRST, redelivers=redelivers)
    assert [one.letter.delivery for one in turn(runner)] == [2]


@pytest.mark.parametrize("redelivers", [True, False])
@pytest.mark.parametrize("first", ["received", "started"])
def test_a_copy_that_is_refused_after_the_worker_that_had_the_message_was_lost_sends_nothing_twice(
    runner: JobRunner, planned: str, first: str, redelivers: bool
) -> None:
    turn(runner, told("received", planned), told(first, planned, at=1))
    give_up(runner, FIRST, redelivers=redelivers)
    sent = turn(runner)
    sent += turn(runner, held(planned, "redelivered", SECOND, at=2))
    assert [one.letter.delivery for one in sent] == [2]
    assert turn(runner) == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_copy_that_a_gate_refuses_counts_when_the_worker_that_had_it_has_lost_its_connection(
    runner: JobRunner, planned: str, when: str
) -> None:
    refused = [told("received", planned, SECOND, at=2), held(planned, "redelivered", SECOND, at=3)]
    turn(runner, told("received", planned), *refused[: 2 if when == "before" else 1])
    with runner.database.write() as connection:
        one = Turn(connection, MIDNIGHT)
        forget_receipts(one, FIRST, f"process of {FIRST}", moment(4))
        one.settle()
    assert [one.letter.delivery for one in turn(runner, *refused)] == [2]


@pytest.mark.parametrize("redelivers", [True, False])
def test_a_copy_that_was_received_before_the_worker_that_had_it_was_lost_counts_when_it_is_refused_after_that(
    runner: JobRunner, planned: str, redelivers: bool
) -> None:
    turn(runner, told("received", planned), told("received", planned, SECOND, at=1))
    give_up(runner, FIRST, redelivers=redelivers)
    assert turn(runner) == [], "another worker has it"
    assert [one.letter.delivery for one in turn(runner, held(planned, "redelivered", SECOND, at=2))] == [2]


def test_a_retry_of_a_void_message_goes_again_with_the_retries_that_it_had(runner: JobRunner, planned: str) -> None:
    turn(runner, told("started", planned), told("retried", planned, at=1))
    (again,) = turn(runner, held(planned, "void", retries=1, at=2))
    assert (again.letter.delivery, again.retries) == (2, 1)


# ---- messages of others ------------------------------------------------------------------------------------


def test_a_retry_is_forwarded_as_it_is_once_its_job_goes_on(runner: JobRunner, planned: str) -> None:
    pause(runner)
    turn(runner, told("started", planned), told("retried", planned, at=1))
    assert turn(runner, whole(planned, "paused", retries=1, at=2)) == []
    assert task_row(runner, planned)["state"] == TaskState.SOFT_FAILED
    assert forwarded(runner, later=5) == []
    pause(runner, paused=False)
    (message,) = forwarded(runner, later=5)
    assert (message.celery_id, message.retries, message.queue) == (planned, 1, "q")
    assert (message.body, message.content_type, message.content_encoding) == (
        b"[[], {}, {}]", "application/json", "utf-8",
    )  # fmt: skip
    assert json.loads(message.headers) == {"task": "work", "id": "task"}
    assert json.loads(message.properties) == {"exchange": "", "routing_key": "q", "priority": 3}
    assert forwarded(runner, later=6) == [], "it is on its way"
    turn(runner, *(told(type_, planned, SECOND, at=7, retries=1) for type_ in ("received", "started", "succeeded")))
    assert job_row(runner)["state"] == JobState.COMPLETED


def test_an_adopted_task_waits_queued_and_is_forwarded(runner: JobRunner, adopted: str) -> None:
    pause(runner)
    turn(runner, told("received", adopted), whole(adopted, "paused"))
    assert task_row(runner, adopted)["state"] == TaskState.QUEUED
    pause(runner, paused=False)
    with runner.database.read() as connection:
        assert not tracking.work_waiting(connection, moment(0.9))
        assert tracking.work_waiting(connection, moment(1))
    assert [one.celery_id for one in forwarded(runner)] == [adopted]


def test_a_message_is_forwarded_also_if_its_batch_had_to_be_folded_apart(runner: JobRunner, adopted: str) -> None:
    events = [entry(told("received", adopted), whole(adopted, "redelivered"), source="process-1")]
    with runner.database.write() as connection:
        here = Turn(connection, moment(0))
        absorb_apart(here, read_events(events), ())
    assert here.has_held
    assert [one.celery_id for one in forwarded(runner)] == [adopted]


def test_a_message_that_is_told_twice_is_held_once_also_after_it_was_forwarded(runner: JobRunner, adopted: str) -> None:
    refused = whole(adopted, "redelivered")
    turn(runner, refused, refused)
    turn(runner, refused)
    (one,) = forwarded(runner)
    with runner.database.write() as connection:
        tracking.forget_held(connection, [one.id])
    assert forwarded(runner, refused, later=9) == []


def test_what_was_forwarded_and_refused_again_is_held_again(runner: JobRunner, adopted: str) -> None:
    """By the same process too."""
    turn(runner, whole(adopted, "paused", at=1))
    assert len(forwarded(runner)) == 1
    again = (told("received", adopted, at=3), whole(adopted, "paused", at=4))
    assert forwarded(runner, *again, later=4) == []
    assert len(forwarded(runner, later=5)) == 1


def test_what_nobody_wants_any_more_is_dropped_and_its_task_canceled(runner: JobRunner, adopted: str) -> None:
    turn(runner, whole(adopted, "canceled"))
    assert read_rows(runner.database, "held_message") == []
    row = task_row(runner, adopted)
    assert (row["state"], row["reason"]) == (TaskState.CANCELED, CancelReason.ORDER)


def test_what_is_void_though_nobody_has_ordered_anything_of_it_is_no_part_of_its_job(
    runner: JobRunner, adopted: str
) -> None:
    """It was sent before a requeue that has removed it."""
    turn(runner, whole(adopted, "void"))
    assert read_rows(runner.database, "held_message") == []
    assert adopted not in {row["id"] for row in read_rows(runner.database, "task")}
    assert job_row(runner)["state"] == JobState.COMPLETED


@pytest.mark.parametrize("message", [None, "x", {}, held_message(body="ä"), held_message(properties=[1])])
def test_an_odd_message_is_as_good_as_none(runner: JobRunner, adopted: str, message: object) -> None:
    turn(runner, held(adopted, "paused", message=message))
    row = task_row(runner, adopted)
    assert (row["state"], row["reason"]) == (TaskState.FAILED, FailureReason.LOST)


@pytest.mark.parametrize("first", ["received", "started"])
def test_a_copy_of_an_adopted_task_is_forwarded_only_when_nobody_else_has_it(
    runner: JobRunner, adopted: str, first: str
) -> None:
    turn(runner, told("received", adopted), told(first, adopted), whole(adopted, "redelivered", SECOND))
    assert forwarded(runner, later=60) == []
    give_up(runner, FIRST)
    assert task_row(runner, adopted)["state"] in {TaskState.QUEUED, TaskState.SOFT_FAILED}
    assert [one.celery_id for one in forwarded(runner, later=60)] == [adopted]


@pytest.mark.parametrize("redelivers", [True, False])
def test_a_copy_that_was_received_before_the_worker_that_had_it_was_lost_is_forwarded_when_it_is_refused_after_that(
    runner: JobRunner, adopted: str, redelivers: bool
) -> None:
    turn(runner, told("received", adopted), told("received", adopted, SECOND, at=1))
    give_up(runner, FIRST, redelivers=redelivers)
    turn(runner, whole(adopted, "redelivered", SECOND, at=2))
    assert [one.celery_id for one in forwarded(runner, later=60)] == [adopted]


@pytest.mark.parametrize("redelivers", [True, False])
def test_what_was_forwarded_to_a_worker_that_is_lost_before_it_starts_comes_again_from_the_broker(
    runner: JobRunner, adopted: str, redelivers: bool
) -> None:
    turn(runner, told("received", adopted), whole(adopted, "paused"))
    note_forwarded(runner, forwarded(runner))
    turn(runner, told("received", adopted, SECOND, at=2))
    give_up(runner, SECOND, redelivers=redelivers)
    assert task_row(runner, adopted)["state"] == TaskState.QUEUED
    assert job_row(runner)["state"] == JobState.ACTIVE
    turn(runner, told("received", adopted, at=3), whole(adopted, "redelivered", at=4))
    assert [one.celery_id for one in forwarded(runner)] == [adopted]


def test_a_message_that_has_come_back_is_kept_though_it_was_noted_late_that_it_was_forwarded(
    runner: JobRunner, adopted: str
) -> None:
    """Another tracker has led meanwhile."""
    turn(runner, whole(adopted, "paused"))
    sent = forwarded(runner)
    turn(runner, told("received", adopted, at=2), whole(adopted, "paused", at=3))
    note_forwarded(runner, sent)
    assert [one.celery_id for one in forwarded(runner)] == [adopted]


def test_a_copy_that_turns_up_after_its_task_was_given_up_is_forwarded(runner: JobRunner, adopted: str) -> None:
    turn(runner, told("started", adopted))
    give_up(runner, FIRST)
    assert job_row(runner)["state"] == JobState.FAILED
    turn(runner, whole(adopted, "redelivered", SECOND))
    assert job_row(runner)["state"] == JobState.ACTIVE
    assert [one.celery_id for one in forwarded(runner)] == [adopted]


def test_what_was_forwarded_and_started_is_lost_with_its_worker_also_if_it_may_not_have_been_forwarded(
    runner: JobRunner, adopted: str
) -> None:
    turn(runner, whole(adopted, "redelivered"))
    assert len(forwarded(runner)) == 1
    with runner.database.write() as connection:
        tracking.hold_in_doubt(connection)  # as a tracker that takes over
    turn(runner, told("received", adopted, at=3), told("started", adopted, at=4))
    give_up(runner, FIRST)
    row = task_row(runner, adopted)
    assert (row["state"], row["reason"]) == (TaskState.FAILED, FailureReason.LOST)
    assert row["note"].startswith(f"lost: worker {FIRST} was lost while it ran this task")


def test_a_lost_retry_is_not_saved_by_a_copy_of_the_try_before(runner: JobRunner, adopted: str) -> None:
    turn(runner, told("started", adopted), whole(adopted, "redelivered", SECOND), told("retried", adopted, at=2))
    turn(runner, told("started", adopted, at=3, retries=1))
    give_up(runner, FIRST)
    assert task_row(runner, adopted)["state"] == TaskState.FAILED
    assert forwarded(runner) == []


def test_what_a_copy_was_held_for_is_dropped_when_its_task_is_further(runner: JobRunner, adopted: str) -> None:
    turn(runner, told("started", adopted), whole(adopted, "redelivered", SECOND))
    with runner.database.write() as connection:
        assert tracking.drop_obsolete(connection) == 0
    turn(runner, told("retried", adopted, at=2))
    with runner.database.write() as connection:
        assert tracking.drop_obsolete(connection) == 1
        assert not tracking.has_held_messages(connection)


def test_what_is_held_is_not_taken_for_lost_with_its_queue(runner: JobRunner, planned: str) -> None:
    pause(runner)
    turn(runner, told("started", planned), told("retried", planned, at=1), whole(planned, "paused", retries=1, at=2))
    with runner.database.write() as connection:
        one, watch = Turn(connection, MIDNIGHT + timedelta(hours=1)), QueueWatch()
        assert [watch.look(one, lambda _: True) for _ in range(3)] == [0, 0, 0]


def test_parts_of_a_job_that_nobody_knows_are_counted(runner: JobRunner) -> None:
    with runner.database.write() as connection:
        one = Turn(connection, MIDNIGHT)
        absorb(one, read_events([entry(whole("stranger", "paused"))]).events, ())
        assert one.unplaced == 1
    assert read_rows(runner.database, "held_message") == []


# ---- what may have gone out --------------------------------------------------------------------------------


def doubt(runner: JobRunner) -> None:
    """Find the outbox as a tracker left it that was killed while it published, and resend it when workers know."""
    with runner.database.write() as connection:
        one = Turn(connection, MIDNIGHT)
        voided = void_outbox(one)
        assert voided is not None
        assert tracking.snapshot_version(connection) == voided.version
        one.settle()
    with runner.database.write() as connection:
        one = Turn(connection, MIDNIGHT)
        resend_outbox(one, voided)
        one.settle()
    check_counters(runner.database)


def test_what_may_have_gone_out_is_void_before_it_is_sent_again(runner: JobRunner) -> None:
    store(runner, runner.app.tasks["add"].s(1, 2))
    (one,) = turn(runner)
    doubt(runner)
    with runner.database.read() as connection:
        assert tracking.load_snapshot(connection).void == {one.batch: None}
    assert [again.letter.delivery for again in turn(runner)] == [2]


def test_what_a_worker_has_spoken_of_meanwhile_was_sent(runner: JobRunner) -> None:
    store(runner, runner.app.tasks["add"].s(1, 2))
    (one,) = turn(runner)
    with runner.database.write() as connection:
        voided = void_outbox(Turn(connection, MIDNIGHT))
    assert voided is not None
    turn(runner, told("started", one.celery_id))
    with runner.database.write() as connection:
        assert resend_outbox(Turn(connection, MIDNIGHT), voided) == 0


def test_what_is_put_into_the_outbox_after_that_is_in_no_doubt(runner: JobRunner) -> None:
    store(runner, runner.app.tasks["add"].s(1, 2))
    turn(runner)
    with runner.database.write() as connection:
        voided = void_outbox(Turn(connection, MIDNIGHT))
    assert voided is not None
    store(runner, runner.app.tasks["add"].s(1, 2))
    (later,) = turn(runner, later=1)
    with runner.database.write() as connection:
        assert resend_outbox(Turn(connection, MIDNIGHT), voided) == 1
    assert task_row(runner, later.letter.task_id)["state"] == TaskState.QUEUED


def test_a_message_that_may_not_have_been_forwarded_is_forwarded_again(runner: JobRunner, adopted: str) -> None:
    turn(runner, whole(adopted, "redelivered"))
    assert len(forwarded(runner)) == 1
    with runner.database.write() as connection:
        connection.execute(task.update().values(sent_at=MIDNIGHT))
        assert void_outbox(Turn(connection, MIDNIGHT)) is None
    assert len(forwarded(runner)) == 1
    turn(runner, told("received", adopted, SECOND, at=3))
    with runner.database.write() as connection:
        void_outbox(Turn(connection, MIDNIGHT))
    assert forwarded(runner) == [], "a worker has it"


# ---- why a task was canceled -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "reason", "note"),
    [
        ({}, CancelReason.REVOKED, "revoked"),
        ({"expired": True}, CancelReason.EXPIRED, "expired"),
        ({"terminated": True, "signum": 15}, CancelReason.TERMINATED, "terminated, SIGTERM"),
    ],
)
def test_a_task_that_celery_has_canceled_says_why(
    runner: JobRunner, planned: str, fields: dict[str, Any], reason: CancelReason, note: str
) -> None:
    turn(runner, told("revoked", planned, **fields))
    row = task_row(runner, planned)
    assert (row["state"], row["reason"], row["note"]) == (TaskState.CANCELED, reason, note)


def test_only_what_was_canceled_with_its_job_waits_again_when_that_goes_on(runner: JobRunner) -> None:
    add = runner.app.tasks["add"]
    job_id = store(runner, add.s(1, 2) | add.s(1) | add.s(2) | add.s(3))
    (first,) = turn(runner)
    second, third, *_ = (row["id"] for row in read_rows(runner.database, "task") if row["id"] != first.letter.task_id)
    turn(runner, told("failed", first.celery_id, exception="ValueError('no')", traceback="T"))
    assert {task_row(runner, one)["reason"] for one in (second, third)} == {CancelReason.UPSTREAM}
    with runner.database.write() as connection:
        connection.execute(task.update().where(task.c.id == third).values(reason=CancelReason.ORDER))
        assert tracking.restore(connection, job_id) == 2
    assert task_row(runner, second)["state"] == TaskState.PENDING
    assert task_row(runner, third)["state"] == TaskState.CANCELED


@pytest.mark.parametrize("ordered", [TaskState.CANCELED, TaskState.SKIPPED, TaskState.FAILED])
def test_a_task_that_an_order_has_ended_stays_so_whatever_is_told(
    runner: JobRunner, planned: str, ordered: TaskState
) -> None:
    turn(runner, told("received", planned))
    with runner.database.write() as connection:
        connection.execute(task.update().values(ordered=ordered))
    turn(runner, told("started", planned, at=1))
    assert task_row(runner, planned)["state"] == TaskState.ACTIVE, "it has not ended yet"
    turn(runner, told("retried", planned, at=2))
    ended = task_row(runner, planned)
    assert (ended["state"], ended["ordered"]) == (ordered, ordered)
    assert turn(runner, held(planned, "void", retries=1, at=3), told("started", planned, SECOND, at=3)) == []
    turn(runner, told("succeeded", planned, SECOND, at=4))
    give_up(runner, SECOND)
    assert task_row(runner, planned) == ended


# ---- workers that have failed a task -----------------------------------------------------------------------


def test_gates_learn_which_workers_live_and_from_which_queues(runner: JobRunner) -> None:
    live(runner, FIRST, SECOND, queues=("q", "p"))
    one = snapshot_of(runner)
    assert one.workers == {FIRST: ["p", "q"], SECOND: ["p", "q"]}
    live(runner, FIRST, SECOND, queues=("q", "p"))
    assert snapshot_of(runner).version == one.version, "nothing new"
    live(runner, SECOND, queues=("q",))
    two = snapshot_of(runner)
    assert (two.workers[SECOND], two.version > one.version) == (["q"], True)
    with runner.database.write() as connection:
        tracking.lose_worker(connection, FIRST)
    three = snapshot_of(runner)
    assert (list(three.workers), three.version > two.version) == ([SECOND], True)


def test_what_the_tracker_sends_again_names_who_has_failed_it(runner: JobRunner, planned: str) -> None:
    turn(runner, told("started", planned), told("retried", planned, at=1, exception="ValueError()"))
    turn(runner, told("started", planned, SECOND, at=2, retries=1))
    give_up(runner, SECOND)
    (again,) = turn(runner)
    assert (again.retries, again.avoid) == (2, [FIRST, SECOND])


def test_what_is_handed_back_goes_again_after_one_two_and_four_seconds_and_then_to_anybody(
    runner: JobRunner, planned: str
) -> None:
    turn(runner, told("started", planned))
    give_up(runner, FIRST)
    (one,) = turn(runner)
    now = 0.0
    for rest in (1, 2, 4):
        assert one.avoid == [FIRST]
        assert turn(runner, held(one.celery_id, "avoided", at=now, retries=1), later=now) == []
        assert turn(runner, later=now + rest - 0.1) == []
        now += rest
        (one,) = turn(runner, later=now)
    assert (one.avoid, one.retries) == ((), 1)
    turn(runner, told("started", one.celery_id, at=now, retries=1), later=now)
    assert task_row(runner, planned)["handed_back"] == 0, "the next failure counts anew"


def test_a_retry_that_is_handed_back_is_forwarded_later_and_later_and_then_for_anybody(
    runner: JobRunner, planned: str
) -> None:
    turn(runner, told("started", planned), told("retried", planned, at=1))
    headers = {"id": planned, "jobrunner": {"v": 1, "task": planned, "avoid": [FIRST]}}
    avoids = []
    now = 2.0
    for rest in (1, 2, 4):
        refused = held(planned, "avoided", at=now, retries=1, message=held_message(headers=headers))
        assert forwarded(runner, refused, refused, later=now) == []
        assert forwarded(runner, later=now + rest - 0.1) == []
        now += rest
        (message,) = forwarded(runner, later=now)
        avoids.append(json.loads(message.headers)["jobrunner"].get("avoid"))
        turn(runner, told("received", planned, at=now - 0.1, retries=1), later=now)
    assert avoids == [[FIRST], [FIRST], None]
    assert task_row(runner, planned)["state"] == TaskState.SOFT_FAILED


def test_a_message_that_turns_up_of_a_job_that_had_failed_for_its_loss_is_kept_and_forwarded(tmp_path: Path) -> None:
    with driven(tmp_path) as here:
        here.submit(here.work())
        here.start()
        worker = here.world.workers["worker"]
        here.world.call(worker, worker.running[0])
        here.end()
        (message,) = here.world.queue
        here.world.queue.clear()
        for _ in range(3):
            here.turn()  # its queue is empty, and nobody has it
        assert (here.state, here.tasks) == (JobState.FAILED, [TaskState.COMPLETED, TaskState.FAILED])
        here.world.queue.append(replace(message, redelivered=True))
        here.world.work_on()  # a gate refuses it and tells it whole
        assert here.state is JobState.ACTIVE
        for _ in range(3):
            here.world.work_on()
        assert (here.state, here.tasks) == (JobState.COMPLETED, [TaskState.COMPLETED] * 2)
