"""Whole turns: whatever a late event corrects, jobs, tasks and plans end up where the events in order have led them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from celery import chain, group
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from jobrunner import JobRunner
from jobrunner.store.check import check
from tests.apps import new_runner, read_rows, store
from tests.builders import MIDNIGHT, event, moment
from tests.property.histories import History, stories, told
from tests.property.test_fold import disturbed, rows_after
from tracker.fold import Event, is_foreign
from tracker.folding import fold
from tracker.sending import take_ready
from tracker.turn import Turn


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobRunner]:
    made = new_runner(tmp_path_factory.mktemp("turns"))
    yield made
    made.database.close()


def new_job(runner: JobRunner) -> tuple[str, dict[str, str]]:
    """Store a job whose first two tasks, each followed by one and both by a join, are sent; return it and these."""
    add, total = runner.app.tasks["add"], runner.app.tasks["total"]
    job_id = store(runner, group(chain(add.s(1, one), add.s(2)) for one in range(2)) | total.s())
    with runner.database.write() as connection:
        turn = Turn(connection, MIDNIGHT)
        turn.take_up()
        sent = [one.letter.task_id for one in take_ready(turn) if one.letter.job_id == job_id]
        turn.settle()
    return job_id, dict(zip(("first", "second"), sent, strict=True))


def fold_all(runner: JobRunner, task_ids: dict[str, str], batches: Sequence[Sequence[tuple[str, Event]]]) -> None:
    for batch in batches:
        with runner.database.write() as connection:
            turn = Turn(connection, MIDNIGHT)
            fold(turn, [replace(one, uuid=task_ids[which]) for which, one in batch])
            turn.move_on()
            turn.settle()


def rows(runner: JobRunner, job_id: str) -> dict[str, list[dict[str, Any]]]:
    """Return what the tables have of a job, with places for ids: they differ from job to job."""
    tasks = sorted((row for row in read_rows(runner.database, "task") if row["job_id"] == job_id), key=_arrival)
    names = {row["id"]: row["arrival"] for row in tasks}
    return {
        "job": [
            {name: row[name] for name in row if name.startswith(("state", "reason", "total", "n_", "ended_at"))}
            for row in read_rows(runner.database, "job")
            if row["id"] == job_id
        ],
        "task": [
            {name: row[name] for name in ("state", "started_at", "ended_at", *["note"] * bool(row["delivery"]))}
            for row in tasks
        ],
        "attempt": sorted(
            ({**row, "task_id": names[row["task_id"]], "celery_id": ""} for row in _attempts(runner, names)), key=str
        ),
        "block": [
            {name: row[name] for name in ("kind", "position", "remaining")}
            for row in read_rows(runner.database, "block")
            if row["job_id"] == job_id
        ],
    }


def _arrival(row: dict[str, Any]) -> int:
    return int(row["arrival"])


def _attempts(runner: JobRunner, task_ids: dict[str, int]) -> list[dict[str, Any]]:
    return [row for row in read_rows(runner.database, "attempt") if row["task_id"] in task_ids]


def _can_be_corrected(history: History) -> bool:
    """Whether it is of one delivery and no success in it is foreign: what comes after a success may have run."""
    foreign = filter(is_foreign, rows_after([history.events]))
    return history.delivery == 1 and all(one.outcome != "succeeded" for one in foreign)


once = stories().filter(_can_be_corrected)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(st.data())
def test_a_job_ends_up_where_its_history_has_led_it_in_whatever_batches_that_is_told(
    runner: JobRunner, data: st.DataObject
) -> None:
    histories = {which: data.draw(once, label=which) for which in ("first", "second")}
    events = [(which, one) for which, history in histories.items() for one in history.events]
    found = []
    for batches in ([events], disturbed(data, events)):
        job_id, task_ids = new_job(runner)
        fold_all(runner, task_ids, batches)
        found.append(rows(runner, job_id))
    forward, other = found
    assert other == forward
    states = [row["state"] for row in other["task"]]
    assert states[:3:2] == [history.state for history in histories.values()]
    assert check(runner.database) == []


def test_a_failed_job_goes_on_when_another_execution_of_its_task_turns_out_to_run(runner: JobRunner) -> None:
    job_id, task_ids = new_job(runner)
    done = [("second", told("started", at=1)), ("second", told("succeeded", at=2))]
    failed = [("first", told("started", at=1)), ("first", told("failed", at=2))]
    fold_all(runner, task_ids, [[*failed, ("second", told("started", at=1)), ("second", told("failed", at=2))]])
    before = rows(runner, job_id)
    assert [row["state"] for row in before["job"] + before["task"]] == [
        *("failed", "failed", "canceled", "failed", "canceled", "canceled")
    ]
    fold_all(runner, task_ids, [[(which, replace(one, source="other")) for which, one in done]])
    after = rows(runner, job_id)
    assert [row["state"] for row in after["job"] + after["task"]] == [
        *("active", "failed", "pending", "completed", "ready", "pending")
    ]
    assert check(runner.database) == []


def test_a_task_that_a_worker_does_not_know_is_sent_again_after_a_while(runner: JobRunner) -> None:
    _, task_ids = new_job(runner)
    unknown = event("failed", retries=None, fields={"exception": "NotRegistered('add')"})
    fold_all(runner, task_ids, [[("first", unknown)]])
    first, *_ = [row for row in read_rows(runner.database, "task") if row["id"] == task_ids["first"]]
    assert (first["state"], first["not_before"]) == ("ready", moment(1))
    assert first["note"] == "NotRegistered('add')"


def test_a_task_that_is_completed_is_not_sent_again_whatever_a_worker_does_not_know(runner: JobRunner) -> None:
    _, task_ids = new_job(runner)
    stranger = told("succeeded", at=3, worker="w2@host")
    unknown = event("failed", retries=1, worker="w3@host", source="w3", fields={"exception": "NotRegistered('add')"})
    fold_all(runner, task_ids, [[("first", stranger)], [("first", told("started", at=1)), ("first", unknown)]])
    first, *_ = [row for row in read_rows(runner.database, "task") if row["id"] == task_ids["first"]]
    assert first["state"] == "completed"


def test_reports_of_processes_that_do_not_have_the_task_are_counted_by_worker(runner: JobRunner) -> None:
    _, task_ids = new_job(runner)
    with runner.database.write() as connection:
        turn = Turn(connection, MIDNIGHT)
        for one in (told("started", at=1), told("succeeded", at=2, worker="w2@host")):
            fold(turn, [replace(one, uuid=task_ids["first"])])
        turn.settle()
    assert turn.foreign == {"w2@host": 1}
