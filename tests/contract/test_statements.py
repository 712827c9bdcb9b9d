"""What bodies state of their work, as events tell it: partial and skipped tasks, item errors and counts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from celery import chain, group
from celery.canvas import Signature

from jobrunner import ItemError, JobRunner, Partial, Skip, ids
from jobrunner.failure_policy import FailurePolicy
from jobrunner.plan import Source
from jobrunner.statements import MOST_ERRORS
from jobrunner.store.check import wrong_counters
from jobrunner.store.sources import inputs_of
from jobrunner.wire import NOTHING
from tests.apps import new_runner, order, read_rows, store, take_turn
from tests.builders import event
from tracker.fold import Event
from workers.statements import errors_of, in_parts, statement_of

PROCESS = "process-1"


class Stating:
    """A job and its tracker; tasks go by their arrival, and state what bodies would."""

    def __init__(self, runner: JobRunner) -> None:
        self.runner = runner
        self.numbers = count()
        self.job_id = ""

    def submit(self, canvas: Signature, **policy: Any) -> None:
        self.job_id = store(self.runner, canvas, policy=FailurePolicy.of(**policy))
        self.turn()

    def turn(self, *events: Event) -> None:
        take_turn(self.runner, *events)
        with self.runner.database.read() as connection:
            assert wrong_counters(connection) == []

    def tell(self, arrival: int, type_: str, *, process: str = PROCESS, **fields: Any) -> Event:
        task = self.task(arrival)
        celery_id = ids.celery_id(task["id"], task["delivery"])
        return event(type_, uuid=celery_id, source=process, at=next(self.numbers), fields=fields)

    def states(self, arrival: int, returned: object, *, process: str = PROCESS) -> list[Event]:
        """Tell what a worker tells of what a body has returned."""
        statement = statement_of(returned)
        assert statement is not None
        parts = [
            self.tell(arrival, "stated", process=process, errors=part, first=first)
            for first, part in in_parts(errors_of(returned)[:MOST_ERRORS])
        ]
        return [*parts, self.tell(arrival, "stated", process=process, statement=asdict(statement))]

    def ends(self, arrival: int, returned: object = None, *, process: str = PROCESS) -> list[Event]:
        """Tell that a task was run, and what it has stated."""
        stated = [] if returned is None else self.states(arrival, returned, process=process)
        start, end = (self.tell(arrival, word, process=process) for word in ("started", "succeeded"))
        return [start, *stated, end]

    def task(self, arrival: int) -> Mapping[str, Any]:
        return next(row for row in self.rows("task") if row["arrival"] == arrival)

    def rows(self, table: str) -> Sequence[Mapping[str, Any]]:
        return read_rows(self.runner.database, table)

    @property
    def tasks(self) -> list[str]:
        return [row["state"] for row in sorted(self.rows("task"), key=lambda row: row["arrival"])]

    @property
    def job(self) -> tuple[str, str | None, str | None]:
        (row,) = self.rows("job")
        return row["state"], row["reason"], row["outcome"]

    @property
    def note(self) -> str:
        (row,) = self.rows("job")
        return str(row["note"])


@pytest.fixture
def here(runner: JobRunner) -> Stating:
    return Stating(runner)


@pytest.fixture
def one(tmp_path: Path, any_database_url: str) -> Iterator[Stating]:
    runner = new_runner(tmp_path, database=any_database_url)
    yield Stating(runner)
    runner.database.close()


def work(stating: Stating) -> Signature:
    return stating.runner.app.tasks["anything"].si()


TWO_FAILED = [ItemError(item=name, message="cannot be read", type="OSError") for name in ("i", "j")]


def partial(*, errors: Sequence[ItemError] = TWO_FAILED, processed: int = 8) -> Partial[Any]:
    return Partial(["a"], errors=errors, processed=processed)


# ---- the state of task and job ---------------------------------------------------------------------------


def test_a_partial_task_lets_the_next_one_run_and_fails_the_job_in_the_end(here: Stating) -> None:
    here.submit(chain(work(here), work(here)))
    here.turn(*here.ends(0, partial()))
    assert (here.tasks, here.job[0]) == (["partial", "queued"], "active")
    assert here.task(0)["note"] == "2 failed of 10 items, the first: i: cannot be read"
    here.turn(*here.ends(1))
    assert here.job == ("failed", "partial", None)
    assert here.note.endswith("partial: 2 failed of 10 items, the first: i: cannot be read")
    assert here.task(0)["id"] in here.note


def test_a_job_that_tolerates_it_completes_with_errors(here: Stating) -> None:
    here.submit(group(work(here), work(here)), on_partial="tolerate")
    here.turn(*here.ends(0, partial()), *here.ends(1, partial()))
    assert here.job == ("completed", None, "with-errors")
    assert here.note.startswith("2 tasks are partial, 4 items failed; the first task is anything [")


def test_a_partial_of_which_nothing_failed_is_a_success_with_counts(one: Stating) -> None:
    one.submit(work(one))
    one.turn(*one.ends(0, partial(errors=[])))
    assert (one.tasks, one.job) == (["completed"], ("completed", None, "ok"))
    assert [(row["processed"], row["failed"]) for row in one.rows("item_count")] == [(8, 0)]


def test_a_task_skips_itself_and_what_comes_next_takes_its_value(one: Stating) -> None:
    add = one.runner.app.tasks["add"]
    one.submit(chain(work(one), add.s(1)))
    one.turn(*one.ends(0, Skip("no paths", value=[])))
    assert one.tasks == ["skipped", "queued"]
    assert one.task(0)["note"] == "no paths"
    source = Source(task=one.task(0)["id"])
    with one.runner.database.read() as connection:
        assert inputs_of(connection, [source])[source] == one.task(0)["id"]
    one.turn(*one.ends(1))
    assert one.job == ("completed", None, "ok")


def test_a_task_that_an_operator_has_skipped_has_no_value(one: Stating) -> None:
    one.submit(chain(work(one), work(one)))
    one.turn(one.tell(0, "started"), one.tell(0, "failed", exception="E()"))
    order(one.runner, "skip", one.job_id, one.task(0)["id"])
    one.turn()
    source = Source(task=one.task(0)["id"])
    with one.runner.database.read() as connection:
        assert inputs_of(connection, [source])[source] == NOTHING


def failed(here: Stating, arrival: int, process: str = PROCESS) -> Sequence[Event]:
    start, end = (here.tell(arrival, word, process=process, exception="E()") for word in ("started", "failed"))
    return [start, end]


@pytest.mark.parametrize(
    ("rule", "end"), [("fail", ("failed", "partial", None)), ("tolerate", ("canceled", None, None))]
)
def test_without_the_failed_task_a_job_has_failed_because_of_the_partial_one(
    rule: str, end: tuple[str, str | None, str | None], here: Stating
) -> None:
    here.submit(group(work(here), work(here)), on_partial=rule)
    here.turn(*here.ends(0, partial()), *failed(here, 1))
    assert here.job == ("failed", "task", None)
    order(here.runner, "cancel", here.job_id, here.task(1)["id"])
    here.turn()
    assert (here.tasks, here.job) == (["partial", "canceled"], end)
    assert rule == "tolerate" or here.task(0)["id"] in here.note


def test_a_failure_that_met_the_rule_and_turns_out_to_be_partial_is_the_reason(here: Stating) -> None:
    here.submit(group(chain(work(here), work(here)), work(here)), on_failure="cancel")
    here.turn(*failed(here, 0, "first"))
    assert here.job[:2] == ("failed", "task")
    received = here.tell(0, "received", process="second")
    here.turn(received, *here.ends(0, partial(), process="second"))
    assert (here.tasks, here.job[:2]) == (["partial", "canceled", "canceled"], ("failed", "partial"))
    assert here.task(0)["id"] in here.note


# ---- whatever the order ----------------------------------------------------------------------------------


@pytest.mark.parametrize("order_of", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 3, 0, 1), (3, 0, 2, 1), (0, 3, 1, 2)])
def test_in_whatever_order_it_is_told_rows_and_states_are_the_same(order_of: Sequence[int], one: Stating) -> None:
    one.submit(work(one))
    told = one.ends(0, partial())
    for number in order_of:
        one.turn(told[number])
    one.turn(*told)
    assert (one.tasks, one.job[:2]) == (["partial"], ("failed", "partial"))
    assert [row["label"] for row in one.rows("item_error")] == ["i", "j"]
    assert [(row["processed"], row["failed"]) for row in one.rows("item_count")] == [(8, 2)]


def test_the_errors_of_an_attempt_that_its_worker_has_executed_twice_are_those_of_the_last_time(here: Stating) -> None:
    """The message was handed back, and came to the same process again."""
    here.submit(work(here))
    here.turn(here.tell(0, "started"), *here.states(0, partial()), here.tell(0, "rejected", requeue=True))
    here.turn(*here.ends(0, partial(errors=[ItemError(item="k", message="cannot be read")], processed=9)))
    assert (here.tasks, here.job[:2]) == (["partial"], ("failed", "partial"))
    assert [row["label"] for row in here.rows("item_error")] == ["k"]


@pytest.mark.parametrize("end", ["failed", "retried"])
def test_what_an_execution_has_stated_that_fails_has_no_effect(end: str, one: Stating) -> None:
    one.submit(work(one))
    one.turn(one.tell(0, "started"), *one.states(0, partial()), one.tell(0, end, exception="E()"))
    assert one.tasks == ["failed" if end == "failed" else "soft-failed"]
    assert one.rows("item_count") == []


def test_what_a_process_states_that_does_not_have_the_task_has_no_effect(one: Stating) -> None:
    one.submit(work(one))
    one.turn(*one.states(0, partial(), process="other"), one.tell(0, "succeeded", process="other"), *one.ends(0))
    assert (one.tasks, one.job) == (["completed"], ("completed", None, "ok"))
    assert one.rows("item_count") == []


def test_the_items_are_counted_that_the_execution_states_which_decides(one: Stating) -> None:
    one.submit(work(one))
    one.turn(*one.ends(0, partial(), process="first"))
    one.turn(one.tell(0, "started", process="second"), one.tell(0, "succeeded", process="second"))
    assert (one.tasks, one.job) == (["completed"], ("completed", None, "ok"))
    assert (one.task(0)["note"], one.rows("item_count")) == (None, [])


# ---- requeue ---------------------------------------------------------------------------------------------


def test_a_plain_requeue_runs_partial_tasks_again_and_what_is_behind_them(here: Stating) -> None:
    here.submit(group(chain(work(here), work(here)), work(here)))
    for number, returned in ((0, partial()), (1, None), (2, None)):
        here.turn(*here.ends(number, returned))
    assert here.job == ("failed", "partial", None)
    order(here.runner, "requeue", here.job_id)
    for _ in range(3):  # reset, let go, sent
        here.turn()
    assert here.tasks == ["queued", "pending", "completed"]
    assert here.rows("item_count") == []
    for number, returned in ((0, partial(errors=[], processed=10)), (1, None)):
        here.turn(*here.ends(number, returned))
    assert here.job == ("completed", None, "ok")
    assert [(row["processed"], row["failed"]) for row in here.rows("item_count")] == [(10, 0)]


# ---- many ------------------------------------------------------------------------------------------------


def test_ten_thousand_item_errors_are_kept_and_of_more_the_number(here: Stating) -> None:
    here.submit(work(here))
    errors = [ItemError(item=f"/data/{number}", message=f"no. {number}") for number in range(MOST_ERRORS + 5)]
    told = here.ends(0, partial(errors=errors))
    assert max(len(str(one.fields)) for one in told) < 300_000
    for event_ in told:
        here.turn(event_)
    here.turn(*told[1:3])  # a batch that comes twice
    rows = here.rows("item_error")
    assert sorted(row["number"] for row in rows) == list(range(MOST_ERRORS))
    assert here.task(0)["note"] == "10,005 failed of 10,013 items, the first: /data/0: no. 0"
