"""Tasks of which nothing is heard, in turns on a real database; the clock of the watch is told."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.canvas import Signature

from jobrunner.errors import InvalidCanvasError
from jobrunner.states import FailureReason, TaskState
from jobrunner.store import reading
from jobrunner.store.check import wrong_counters
from jobrunner.store.reading import TaskView
from tests.apps import answer_to, new_runner, nobody_runs_it, order, read_rows, store
from tests.builders import event, moment
from tracker.absorb import absorb
from tracker.chores import do_chores
from tracker.fold import Event
from tracker.orders import apply_orders
from tracker.sending import take_ready
from tracker.turn import Turn
from tracker.untouched import UntouchedWatch


class Watched:
    """A job of one task, a tracker, and its watch; each turn a minute after the last."""

    def __init__(self, folder: Path, database: str) -> None:
        self.runner = new_runner(folder, database=database)
        self.watch = UntouchedWatch()
        self.turns = 0
        self.sent: list[str] = []

    def task(self, **options: Any) -> Signature:
        made = self.runner.task(name="watched", shared=False, **options)(nobody_runs_it)
        self.runner.prepare_tasks()
        signature: Signature = made.si()
        return signature

    def submit(self, **options: Any) -> None:
        self.job_id = store(self.runner, self.task(**options))
        self.turn()

    def turn(self, *events: Event, seconds: float | None = None) -> int:
        """Take a turn; with seconds the watch looks, at that moment of its clock. Return how many it has given up."""
        self.turns += 1
        with self.runner.database.write() as connection:
            turn = Turn(connection, moment(60 * self.turns))
            absorb(turn, events, ())
            given_up = self.watch.look(turn, seconds) if seconds is not None else 0
            turn.take_up()
            apply_orders(turn)
            turn.move_on()
            do_chores(turn)
            self.sent += [one.celery_id for one in take_ready(turn)]
            turn.settle()
        with self.runner.database.read() as connection:
            assert wrong_counters(connection) == []
        return given_up

    def tell(self, type_: str, *, seconds: float | None = None, **known: Any) -> int:
        return self.turn(event(type_, uuid=self.sent[-1], at=self.turns, **known), seconds=seconds)

    @property
    def view(self) -> TaskView:
        with self.runner.database.read() as connection:
            (one,) = reading.list_tasks(connection, self.job_id)
        return one

    @property
    def lines(self) -> list[str]:
        return [one["line"] for one in read_rows(self.runner.database, "history") if one["task_id"]]


@pytest.fixture
def watched(tmp_path: Path, database_url: str) -> Iterator[Watched]:
    made = Watched(tmp_path, database_url)
    yield made
    made.runner.database.close()


def test_an_attempt_of_which_nothing_is_heard_is_void_and_the_task_is_sent_again_after_a_rest(watched: Watched) -> None:
    watched.submit(untouched_timeout=5)
    watched.tell("started", seconds=100)
    assert watched.turn(seconds=105) == 0
    assert watched.turn(seconds=105.1) == 1
    assert watched.view.state is TaskState.READY  # it rests for seconds, and no turn has come since
    (entry,) = read_rows(watched.runner.database, "gate_entry")
    assert (entry["kind"], entry["subject"], entry["number"]) == ("void", watched.sent[0], 3.0)
    assert watched.lines == [f"{watched.view.id} was given up on w1@host: untouched: nothing was heard of it for 5 s"]
    watched.turn()
    assert (watched.view.state, watched.view.delivery, watched.view.retries) == (TaskState.QUEUED, 2, 1)


def test_what_is_heard_begins_the_time_anew_and_what_was_heard_late_counts_from_then(watched: Watched) -> None:
    watched.submit(untouched_timeout=5)
    watched.tell("started", seconds=100)
    assert watched.tell("started", worker="w2@host", seconds=104) == 0
    assert watched.turn(seconds=108) == 0
    assert watched.turn(seconds=110) == 1


@pytest.mark.parametrize("whole_job", [True, False])
def test_what_was_canceled_and_may_finish_but_hangs_is_ended(watched: Watched, whole_job: bool) -> None:
    watched.submit(untouched_timeout=5)
    watched.tell("started", seconds=100)
    canceled = order(watched.runner, "cancel", watched.job_id, None if whole_job else watched.view.id, grace=None)
    assert watched.turn(seconds=105) == 0
    assert (watched.view.state, answer_to(watched.runner, canceled)) == (TaskState.ACTIVE, None)
    assert watched.turn(seconds=105.1) == 1
    void = [one for one in read_rows(watched.runner.database, "gate_entry") if one["kind"] == "void"]
    assert [(one["subject"], one["number"]) for one in void] == [(watched.sent[0], 3.0)]
    assert (watched.view.state, watched.view.reason) == (TaskState.CANCELED, "order")
    watched.turn()
    (job,) = read_rows(watched.runner.database, "job")
    answer = answer_to(watched.runner, canceled)
    assert (job["state"], answer and answer.outcome, len(watched.sent)) == ("canceled", "done", 1)


def test_what_an_order_ends_has_the_grace_of_that(watched: Watched) -> None:
    watched.submit(untouched_timeout=5)
    watched.tell("started", seconds=100)
    order(watched.runner, "cancel", watched.job_id, watched.view.id, grace=60.0)
    watched.turn()
    assert watched.turn(seconds=200) == 0
    assert watched.view.state is TaskState.ACTIVE
    assert [one["number"] for one in read_rows(watched.runner.database, "gate_entry")] == [60.0]


def test_another_tracker_and_one_whose_broker_was_away_wait_for_a_full_time_out(watched: Watched) -> None:
    watched.submit(untouched_timeout=5)
    watched.tell("started", seconds=100)
    watched.watch = UntouchedWatch()
    assert watched.turn(seconds=1_000) == 0
    watched.watch.excuse()
    assert watched.turn(seconds=2_000) == 0
    assert watched.turn(seconds=2_006) == 1


def test_a_task_that_says_nothing_of_it_may_be_silent_for_ever(watched: Watched) -> None:
    watched.submit()
    watched.tell("started", seconds=100)
    assert watched.turn(seconds=1_000_000) == 0


def test_what_waits_is_not_watched(watched: Watched) -> None:
    watched.submit(untouched_timeout=5)
    watched.tell("received", seconds=100)
    assert watched.turn(seconds=1_000) == 0


@pytest.mark.parametrize("max_retries", [0, 1])
def test_it_has_failed_when_no_retry_is_left_and_its_end_by_the_pool_is_no_other_end(
    watched: Watched, max_retries: int
) -> None:
    watched.submit(untouched_timeout=5, max_retries=max_retries)
    for retries in range(max_retries + 1):
        watched.tell("started", retries=retries, seconds=100)
        assert watched.turn(seconds=106) == 1
        terminated = {"terminated": True, "signum": 15}
        watched.tell("revoked", retries=retries, fields=terminated)
    failed = watched.view
    assert (failed.state, failed.reason) == (TaskState.FAILED, FailureReason.TIMEOUT)
    assert failed.note == f"untouched: nothing was heard of it for 5 s; no retry is left of {max_retries}"
    assert len(watched.lines) == max_retries + 2
    assert {one["outcome"] for one in read_rows(watched.runner.database, "attempt") if one["process"]} == {"lost"}


def test_the_end_of_what_was_given_up_does_not_cancel_the_task_that_runs_again(watched: Watched) -> None:
    watched.submit(untouched_timeout=5)
    watched.tell("started", seconds=100)
    watched.turn(seconds=106)
    first = watched.sent[0]
    watched.turn(event("revoked", uuid=first, at=9, fields={"terminated": True}))
    watched.tell("started", retries=1)
    watched.turn(event("revoked", uuid=first, at=9, fields={"terminated": True}))
    assert watched.view.state is TaskState.ACTIVE
    watched.tell("succeeded", retries=1)
    assert watched.view.state is TaskState.COMPLETED


@pytest.mark.parametrize("seconds", [0, -1, "5", float("inf"), float("nan"), True])
def test_a_time_out_that_is_none_is_refused_at_submission(watched: Watched, seconds: Any) -> None:
    with pytest.raises(InvalidCanvasError, match=r"untouched_timeout=.* is no number of seconds above zero\. Give it"):
        store(watched.runner, watched.task(untouched_timeout=seconds))
