"""What becomes of a task whose input is lost, and of the producers of it: on both databases."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from celery import chain, group

from jobrunner import JobRunner, ids
from tests.apps import check_counters, job_row, new_runner, read_rows, store, take_turn
from tests.builders import event
from tracker.fold import Event
from tracker.replay import MOST_DELIVERIES


@pytest.fixture
def runner(tmp_path: Path, database_url: str) -> Iterator[JobRunner]:
    made = new_runner(tmp_path, database=database_url)

    @made.task(name="again", shared=False, replayable=True)
    def again(*_: Any) -> None:
        """Do nothing, as often as need be."""

    yield made
    check_counters(made.database)
    made.database.close()


@pytest.fixture
def turn(runner: JobRunner) -> Callable[..., None]:
    """One turn of the tracker: events, by arrival of their tasks in the only job, and what they lead to."""

    def run(*told: tuple[int, str] | tuple[int, str, list[str] | None]) -> None:
        tasks = rows(runner)
        take_turn(runner, *(_event(tasks[arrival], *what) for arrival, *what in told))

    return run


def decided(runner: JobRunner) -> list[dict[str, Any]]:
    """History, apart from the moves of jobs."""
    return [row for row in read_rows(runner.database, "history") if row["new"] is None]


def _event(task: Mapping[str, Any], type_: str, lost: list[str] | None = None) -> Event:
    fields = {} if lost is None else {"lost": lost, "exception": "InputLostError()"}
    return event(type_, uuid=ids.celery_id(task["id"], task["delivery"]), fields=fields)


def rows(runner: JobRunner) -> list[dict[str, Any]]:
    return sorted(read_rows(runner.database, "task"), key=lambda row: int(row["arrival"]))


def states(runner: JobRunner) -> list[tuple[str, int]]:
    return [(row["state"], row["delivery"]) for row in rows(runner)]


def test_a_replayable_producer_runs_again_and_its_consumer_after_it(
    runner: JobRunner, turn: Callable[..., None]
) -> None:
    again, total = runner.app.tasks["again"], runner.app.tasks["total"]
    store(runner, group(again.si(1), again.si(2)) | total.s())
    turn()
    turn((0, "succeeded"), (1, "succeeded"))
    first, _, consumer = rows(runner)
    turn((2, "failed", [first["id"]]))
    assert states(runner) == [("queued", 2), ("completed", 1), ("pending", 1)]
    assert job_row(runner)["state"] == "active"
    (line,) = decided(runner)
    assert (line["job_id"], line["task_id"]) == (first["job_id"], first["id"])
    assert line["line"] == f"ran again: its value was lost when task {consumer['id']} needed it"
    turn((0, "succeeded"))
    assert states(runner) == [("completed", 2), ("completed", 1), ("queued", 2)]
    turn((2, "succeeded"))
    assert job_row(runner)["state"] == "completed"
    assert rows(runner)[2]["reason"] is None


def test_a_producer_that_may_not_run_again_is_named_and_nothing_runs(
    runner: JobRunner, turn: Callable[..., None]
) -> None:
    again, total = runner.app.tasks["again"], runner.app.tasks["total"]
    store(runner, group(again.si(1), runner.app.tasks["add"].si(1, 1)) | total.s())
    turn()
    turn((0, "succeeded"), (1, "succeeded"))
    first, second, consumer = rows(runner)
    turn((2, "failed", [first["id"], second["id"]]))
    assert states(runner) == [("completed", 1), ("completed", 1), ("failed", 1)]
    ended = job_row(runner)
    assert (ended["state"], ended["reason"], rows(runner)[2]["reason"]) == ("failed", "input-lost", "input-lost")
    assert ended["note"].startswith(
        f"total [{consumer['id']}] failed: the value of add [{second['id']}] is no longer in the result backend, and"
        f" that task is not replayable. `jobrunner requeue --all {ended['id']}` makes it anew"
    )
    assert decided(runner) == []


def test_producers_whose_input_is_lost_as_well_wait_for_theirs(runner: JobRunner, turn: Callable[..., None]) -> None:
    again = runner.app.tasks["again"].s
    store(runner, chain(again(), group(again(), again()), again()))
    turn()
    turn((0, "succeeded"))
    turn((1, "succeeded"), (2, "succeeded"))
    root, left, right, _ = (row["id"] for row in rows(runner))
    turn((3, "failed", [left, right]))
    assert states(runner) == [("completed", 1), ("queued", 2), ("queued", 2), ("pending", 1)]
    # Told in one turn: the second finds that its producer is on its way already.
    turn((1, "failed", [root]), (2, "failed", [root]))
    assert states(runner) == [("queued", 2), ("pending", 2), ("pending", 2), ("pending", 1)]
    assert len(decided(runner)) == 3
    turn((0, "succeeded"))
    assert states(runner) == [("completed", 2), ("queued", 3), ("queued", 3), ("pending", 1)]
    turn((1, "succeeded"), (2, "succeeded"))
    turn((3, "succeeded"))
    assert job_row(runner)["state"] == "completed"


def test_a_consumer_that_was_sent_for_an_earlier_value_takes_the_present_one(
    runner: JobRunner, turn: Callable[..., None]
) -> None:
    again = runner.app.tasks["again"].s
    store(runner, chain(again(), group(again(), again())))
    turn()
    turn((0, "succeeded"))
    root = rows(runner)[0]["id"]
    turn((1, "failed", [root]))
    turn((0, "succeeded"))
    assert states(runner) == [("completed", 2), ("queued", 2), ("queued", 1)]
    turn((2, "failed", [root]))
    assert states(runner) == [("completed", 2), ("queued", 2), ("queued", 2)]


def test_a_consumer_and_its_producer_that_find_their_input_lost_in_one_turn_both_run_again(
    runner: JobRunner, turn: Callable[..., None]
) -> None:
    again = runner.app.tasks["again"].s
    store(runner, chain(again(), again(), group(again(), again())))
    turn()
    turn((0, "succeeded"))
    turn((1, "succeeded"))
    first, second, _, _ = (row["id"] for row in rows(runner))
    turn((2, "failed", [second]))
    turn((3, "failed", [second]), (1, "failed", [first]))
    assert states(runner) == [("queued", 2), ("pending", 2), ("pending", 1), ("pending", 1)]


def test_a_lost_list_of_inputs_is_written_anew(runner: JobRunner, turn: Callable[..., None]) -> None:
    add, total = runner.app.tasks["add"], runner.app.tasks["total"]
    store(runner, group(add.s(1, 1), add.s(2, 2)) | total.s())
    turn()
    turn((0, "succeeded"), (1, "succeeded"))
    turn((2, "failed", []))
    assert states(runner) == [("completed", 1), ("completed", 1), ("queued", 2)]


def test_a_value_that_is_lost_again_and_again_is_given_up(runner: JobRunner, turn: Callable[..., None]) -> None:
    store(runner, chain(runner.app.tasks["again"].s(), runner.app.tasks["again"].s()))
    turn()
    for number in range(1, MOST_DELIVERIES + 1):
        turn((0, "succeeded"))
        producer = rows(runner)[0]
        turn((1, "failed", [ids.celery_id(producer["id"], number)]))
    assert states(runner) == [("completed", MOST_DELIVERIES), ("failed", MOST_DELIVERIES)]
    assert "was sent 20 times already" in job_row(runner)["note"]
