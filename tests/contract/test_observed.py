"""Observed jobs in a turn, on both databases: rows made out of events, and kept away from whatever sends."""

from collections.abc import Sequence
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from celery import group
from sqlalchemy import Connection

from jobrunner import JobRunner
from jobrunner.states import FailureReason, JobState, TaskState
from jobrunner.store import reading, tracking
from jobrunner.store.reading import JobView, TaskView
from tests.apps import check_counters, read_rows, statements_to, store
from tests.builders import MIDNIGHT, entry, raw_event
from tracker.absorb import absorb_apart
from tracker.events import read_events
from tracker.folding import fold
from tracker.recover import QueueWatch, give_up_worker, void_outbox
from tracker.sending import take_ready
from tracker.turn import Turn

ROOT = "root"
LATER = MIDNIGHT + timedelta(hours=1)


def told(type_: str, uuid: str, root: str | None = ROOT, **fields: Any) -> dict[str, Any]:
    """An event of a worker with jobrunner, about a task that no plan knows."""
    known = {"root_id": root} if root is not None else {}
    return raw_event(type=f"task-{type_}", uuid=uuid, **known, **fields)


def received(uuid: str, name: str, *, parent: str | None = None, **fields: Any) -> dict[str, Any]:
    return told("received", uuid, name=name, parent_id=parent, **fields)


def hear(runner: JobRunner, *events: dict[str, Any], source: str | None = "process-1") -> Turn:
    """Let a turn fold events, and return it."""
    with runner.database.write() as connection:
        turn = Turn(connection, MIDNIGHT)
        fold(turn, read_events([entry(*events, source=source)]).events)
        turn.move_on()
        turn.settle()
    return turn


def job(runner: JobRunner, job_id: str = ROOT) -> JobView:
    with runner.database.read() as connection:
        found = reading.get_job(connection, job_id)
    assert found is not None
    return found


def tasks(runner: JobRunner, job_id: str = ROOT) -> dict[str, TaskView]:
    with runner.database.read() as connection:
        return {one.id: one for one in reading.list_tasks(connection, job_id)}


def test_tasks_of_one_root_become_a_job_that_is_taken_up_already(runner: JobRunner) -> None:
    hear(runner, received(ROOT, "first"), received("b", "second", parent=ROOT), told("started", ROOT))
    found = job(runner)
    assert (found.name, found.observed, found.state, found.total) == ("first", True, JobState.ACTIVE, 2)
    assert found.counts == {TaskState.ACTIVE: 1, TaskState.QUEUED: 1}
    assert [(one.name, one.created_by, one.arrival, one.sequence) for one in tasks(runner).values()] == [
        ("first", None, 0, 0), ("second", ROOT, 1, 0),
    ]  # fmt: skip
    with runner.database.read() as connection:
        assert tracking.new_jobs(connection, 10) == []
    check_counters(runner.database)


def test_a_job_that_has_ended_is_active_again_when_another_task_of_it_is_heard_of(runner: JobRunner) -> None:
    hear(runner, received(ROOT, "first"), told("succeeded", ROOT))
    assert job(runner).state is JobState.COMPLETED
    hear(runner, received("b", "second"))
    assert (job(runner).state, job(runner).ended_at) == (JobState.ACTIVE, None)
    hear(runner, told("failed", "b", exception="ValueError('no')"))
    found = job(runner)
    assert (found.state, found.reason, found.note) == (
        JobState.FAILED, FailureReason.TASK, "second [b] failed: ValueError('no')",
    )  # fmt: skip
    assert found.ended_at is not None
    check_counters(runner.database)


@pytest.mark.parametrize(
    ("first", "second", "state"),
    [
        ("succeeded", "failed", JobState.FAILED), ("failed", "succeeded", JobState.FAILED),
        ("revoked", "succeeded", JobState.CANCELED), ("revoked", "failed", JobState.FAILED),
        ("succeeded", "succeeded", JobState.COMPLETED),
    ],
)  # fmt: skip
def test_a_job_that_grows_and_ends_again_in_one_batch_ends_as_all_its_tasks_say(
    runner: JobRunner, first: str, second: str, state: JobState
) -> None:
    hear(runner, received(ROOT, "first"), told(first, ROOT))
    hear(runner, received("b", "second"), told(second, "b"))
    assert (job(runner).state, job(runner).total) == (state, 2)
    check_counters(runner.database)


@pytest.mark.parametrize("seed", range(5))
def test_in_whatever_order_and_batches_events_come_the_tasks_are_the_same(runner: JobRunner, seed: int) -> None:
    events = [
        told("sent", ROOT, name="first", queue="q", parent_id=None), received(ROOT, "first"), told("started", ROOT),
        told("retried", ROOT, exception="e"), received(ROOT, "first", parent=ROOT, retries=1),
        told("started", ROOT, retries=1), told("succeeded", ROOT, retries=1), received("b", "second", parent=ROOT),
        told("started", "b"), told("failed", "b", exception="no"), received("c", "third", parent=ROOT),
    ]  # fmt: skip
    random = Random(seed)  # noqa: S311  an order, not a secret
    random.shuffle(events)
    while events:
        size = random.randint(1, 4)
        hear(runner, *events[:size])
        events = events[size:]
    rows = {(one.id, one.name, one.created_by, one.state, one.retries) for one in tasks(runner).values()}
    assert rows == {
        (ROOT, "first", None, TaskState.COMPLETED, 1), ("b", "second", ROOT, TaskState.FAILED, 0),
        ("c", "third", ROOT, TaskState.QUEUED, 0),
    }  # fmt: skip
    assert (job(runner).name, job(runner).state) == ("first", JobState.ACTIVE)
    check_counters(runner.database)


def test_what_was_not_told_when_a_task_joined_is_filled_in_later(runner: JobRunner) -> None:
    hear(runner, told("started", "b"))
    assert (job(runner).name, tasks(runner)["b"].name) == ("", "")
    hear(runner, received("b", "second", parent=ROOT))
    assert (job(runner).name, tasks(runner)["b"].name, tasks(runner)["b"].created_by) == ("second", "second", ROOT)
    hear(runner, told("started", ROOT))
    hear(runner, told("sent", ROOT, name="first", queue="slow", parent_id=None), source=None)
    assert (job(runner).name, tasks(runner)[ROOT].queue) == ("first", "slow")


def test_a_task_that_was_only_sent_is_queued(runner: JobRunner) -> None:
    hear(runner, told("sent", ROOT, name="first", queue="q"), source=None)
    found = tasks(runner)[ROOT]
    assert (found.state, found.queue, found.last_event, found.retries) == (TaskState.QUEUED, "q", "task-sent", None)


def test_a_message_without_a_root_is_its_own_job(runner: JobRunner) -> None:
    hear(runner, told("received", "alone", None, name="first"), source=None)
    assert job(runner, "alone").total == 1


def test_an_event_that_does_not_say_to_what_its_task_belongs_is_counted_and_leaves_no_row(runner: JobRunner) -> None:
    turn = hear(runner, told("started", "a", None), told("succeeded", "a", None), source=None)
    assert turn.unplaced == 2
    assert {name: read_rows(runner.database, name) for name in ("job", "task", "attempt")} == {
        "job": [], "task": [], "attempt": [],
    }  # fmt: skip
    assert hear(runner, received("a", "first", root="a"), told("started", "a", None), source=None).unplaced == 0


def test_apart_as_well_such_events_are_counted(runner: JobRunner) -> None:
    with runner.database.write() as connection:
        turn = Turn(connection, MIDNIGHT)
        absorb_apart(turn, read_events([entry(told("started", "a", None), received(ROOT, "first"))]), ())
    assert (turn.unplaced, job(runner).total) == (1, 1)


def test_nothing_that_is_observed_is_ever_sent(runner: JobRunner) -> None:
    hear(runner, received(ROOT, "first"), told("started", ROOT), received("b", "second"), told("sent", "c", queue="q"))
    hear(runner, received("d", "third"), told("retried", "d"), told("started", "e"))
    hear(runner, told("failed", "e", exception="NotRegistered('gone')"))
    assert tasks(runner)["e"].state is TaskState.FAILED
    before = read_rows(runner.database, "task")
    with runner.database.write() as connection:
        turn, watch = Turn(connection, LATER), QueueWatch()
        assert void_outbox(turn) is None
        assert [watch.look(turn, lambda _: True) for _ in range(3)] == [0, 0, 0]
        for redelivers in (True, False):
            assert give_up_worker(turn, "w1@host", living_source=None, redelivers=redelivers) == 0
        turn.take_up()
        turn.move_on()
        assert take_ready(turn) == []
        turn.settle()
    assert read_rows(runner.database, "task") == before
    check_counters(runner.database)


def test_a_worker_without_jobrunner_may_have_a_task_of_a_plan(runner: JobRunner) -> None:
    """It tells neither the job nor the try; the copy of what another worker tells was passed over before."""
    job_id = store(runner, group(runner.app.tasks["add"].s(1, one) for one in range(2)))
    with runner.database.write() as connection:
        turn = Turn(connection, MIDNIGHT)
        turn.take_up()
        take_ready(turn)
        turn.settle()
    for uuid in tasks(runner, job_id):
        events = [told(type_, uuid, None, retries=None) for type_ in ("started", "succeeded")]
        hear(runner, told("received", uuid, job_id, name="add"), *events, source=None)
    assert job(runner, job_id).state is JobState.COMPLETED
    check_counters(runner.database)


def test_however_many_tasks_are_observed_they_cost_as_many_statements(runner: JobRunner) -> None:
    def statements(start: int, number: int) -> int:
        events = [
            one
            for index in range(start, start + number)
            for one in (received(f"t{index}", "a", root=f"j{index % 7}"), told("started", f"t{index}"))
        ]
        with statements_to(runner.database) as said:
            hear(runner, *events)
        return len(said)

    statements(0, 7)
    assert statements(100, 7) == statements(200, 300)
    assert [one["total"] for one in read_rows(runner.database, "job")] == [45, 45, 45, 44, 45, 45, 45]
    check_counters(runner.database)


def test_workers_without_jobrunner_are_kept_apart_from_those_whose_silence_counts(runner: JobRunner) -> None:
    def save(name: str, **known: Any) -> None:
        tracking.save_worker(connection, name, f"of {name}", 1, online=True, now=MIDNIGHT, **known)

    with runner.database.write() as connection:
        save("bound@host")
        save("plain@host", lossy=True)
        assert tracking.workers_to_hear(connection) == {"bound@host": "of bound@host"}
        assert tracking.lossy_workers(connection) == ["plain@host"]
        assert states(connection) == [("bound@host", "online", False), ("plain@host", "online", True)]
        save("plain@host")  # it was bound meanwhile, and is another process
        tracking.lose_worker(connection, "bound@host")
        assert tracking.lossy_workers(connection) == []
        assert states(connection) == [("bound@host", "lost", False), ("plain@host", "online", False)]


def states(connection: Connection) -> Sequence[tuple[str, str, bool]]:
    return [(one.name, one.state, one.lossy) for one in reading.list_workers(connection, None)]
