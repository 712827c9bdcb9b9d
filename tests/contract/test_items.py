"""Requeue of failed items in a turn: which tasks run again with only those, and which are refused."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pytest
from celery import chain, group
from sqlalchemy import update

from jobrunner.order_kinds import OrderKind
from jobrunner.records import Letter
from jobrunner.statements import MOST_ERRORS, ItemError, Partial
from jobrunner.store import schema, tracking
from jobrunner.wire import LOST
from tests.apps import order, read_rows
from tests.builders import moment
from tests.requeued import Requeued
from tracker.items import items_of
from workers.statements import in_parts, statement_of

PATHS = ("/a", "/b")
LONG = "x" * 5_000


def end_partial(job: Requeued, arrival: int, items: Sequence[Any] = PATHS, **numbers: int) -> None:
    """Let a task name these items as failed, and of their number say what is given."""
    errors = [ItemError(item=one, message="no such file") for one in items]
    returned: Partial[Any] = Partial("value", errors=errors, processed=8, **numbers)
    statement = statement_of(returned)
    assert statement is not None
    parts = [job.tell(arrival, "stated", errors=part, first=first) for first, part in in_parts(errors)]
    stated = job.tell(arrival, "stated", statement=asdict(statement))
    job.turn(job.tell(arrival, "started"), *parts, stated, job.tell(arrival, "succeeded"))


def items(job: Requeued, arrival: int = 0) -> Any:
    """Return what alone the task takes that was sent."""
    letter = letter_of(job, arrival)
    return None if letter.only_items is None else json.loads(items_of(job.runner.database, letter))


def letter_of(job: Requeued, arrival: int) -> Letter:
    """Return the letter with which a task would be sent again."""
    id_ = job.tasks()[arrival]["id"]
    with job.runner.database.write() as connection:
        connection.execute(update(schema.task).where(schema.task.c.id == id_).values(state="ready"))
        (letter,) = (one for one in tracking.take_ready(connection, moment(), 500) if one.task_id == id_)
        connection.rollback()
    return letter


def failed_items(job: Requeued, arrival: int | None = None) -> str:
    """Order that failed items are requeued, and return the answer."""
    return job.requeue(arrival, items="failed").text


def two_in_a_row(job: Requeued) -> Requeued:
    """Let the first of two tasks name two failed items, and the second take what came of the others."""
    job.submit(chain(job.leaf(), job.leaf()))
    end_partial(job, 0)
    job.run(1)
    return job


@pytest.fixture
def job(on_any: Requeued) -> Requeued:
    return on_any


@pytest.fixture
def done(job: Requeued) -> Requeued:
    return two_in_a_row(job)


def test_a_partial_task_runs_again_with_only_its_failed_items_and_then_what_comes_after_it(on_each: Requeued) -> None:
    job = two_in_a_row(on_each)
    assert failed_items(job) == "It is queued: 2 tasks run again, 1 of them with only the items that failed."
    assert job.states() == {0: "queued", 1: "pending"}
    assert items(job) == list(PATHS)
    job.run_all()
    assert (job.job()["state"], job.deliveries()) == ("completed", {0: 2, 1: 2})
    assert items(job, 1) is None


def test_one_task_runs_again_with_only_its_failed_items(on_each: Requeued) -> None:
    job = on_each
    job.submit(group(job.leaf(), job.leaf()))
    end_partial(job, 0)
    end_partial(job, 1, ["/c"])
    assert failed_items(job, 1).endswith(": 1 tasks run again, 1 of them with only the items that failed.")
    assert (job.states(), items(job, 1)) == ({0: "partial", 1: "queued"}, ["/c"])


def test_nothing_else_of_the_job_runs_again(job: Requeued) -> None:
    job.submit(group(chain(job.leaf(), job.leaf()), job.leaf(), chain(job.leaf(), job.leaf())))
    end_partial(job, 0)
    job.run(1, 2)
    job.fail(3)
    failed_items(job)
    assert job.states() == {0: "queued", 1: "pending", 2: "completed", 3: "failed", 4: "canceled"}
    job.run_all()
    assert job.job()["state"] == "failed"
    assert job.deliveries() == {0: 2, 1: 2, 2: 1, 3: 1, 4: 0}


def test_every_delivery_of_the_new_run_has_the_items(done: Requeued) -> None:
    failed_items(done)
    done.turn(done.tell(0, "unknown"))
    assert items(done) == list(PATHS)


def test_a_task_of_which_the_result_backend_has_lost_the_items_gets_them_anew(done: Requeued) -> None:
    failed_items(done)
    done.turn(done.tell(0, "started"), done.tell(0, "failed", **{LOST: []}))
    assert (done.states()[0], done.deliveries()[0], items(done)) == ("queued", 3, list(PATHS))


def test_a_task_that_ends_partial_again_takes_the_newest_items(done: Requeued) -> None:
    failed_items(done)
    end_partial(done, 0, ["/b"])
    done.run(1)
    failed_items(done)
    assert items(done) == ["/b"]


@pytest.mark.parametrize("how", ["failed", "canceled"])
def test_a_task_that_does_not_end_well_with_its_items_takes_the_same_once_more(done: Requeued, how: str) -> None:
    failed_items(done)
    if how == "failed":
        done.fail(0)
    else:
        done.order(OrderKind.CANCEL)
    assert set(done.states().values()) <= {how, "canceled"}
    assert failed_items(done).startswith("It is queued: 2 tasks run again, 1 of them with only")
    assert items(done) == list(PATHS)


@pytest.mark.parametrize("arrival", [None, 0])
def test_any_other_requeue_lets_a_task_take_all_it_took(done: Requeued, arrival: int | None) -> None:
    failed_items(done)
    done.fail(0)
    done.requeue(arrival)
    assert (done.states()[0], items(done)) == ("queued", None)


def test_a_requeue_of_the_whole_job_that_comes_before_the_other_is_done_has_its_way(
    done: Requeued, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracker.requeue.BATCH", 1)
    order(done.runner, OrderKind.REQUEUE, done.job_id, items="failed")
    done.turn()
    assert [row["only_items"] for row in done.tasks().values()].count(1) == 1
    assert done.requeue(scope="all").text == "It is queued: 2 tasks run again."
    assert items(done) is None


def test_while_tasks_of_a_job_are_reset_failed_items_are_refused(
    done: Requeued, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracker.requeue.BATCH", 1)
    order(done.runner, OrderKind.REQUEUE, done.job_id)
    done.turn()
    assert "requeueing. Give the order again" in failed_items(done)


def test_what_a_task_has_sent_for_its_other_items_stays(done: Requeued) -> None:
    done.send(0, "sent-1")
    done.run(2)
    failed_items(done)
    assert done.states() == {0: "queued", 1: "pending", 2: "completed"}


# ---- what would be forgotten, and what cannot --------------------------------------------------------------


def test_of_two_partial_tasks_in_a_row_the_last_one_goes_first(job: Requeued) -> None:
    job.submit(chain(job.leaf(), job.leaf(), job.leaf()))
    end_partial(job, 0)
    end_partial(job, 1, ["/c"])
    job.run(2)
    answer = failed_items(job)
    assert answer.startswith("It is queued: 2 tasks run again, 1 of them with only the items that failed. Not with its")
    assert f"add [{job.tasks()[0]['id']}] comes before tasks that have not ended well" in answer
    assert (job.states(), items(job, 1)) == ({0: "partial", 1: "queued", 2: "pending"}, ["/c"])
    job.run_all()
    failed_items(job)
    assert (job.states(), items(job)) == ({0: "queued", 1: "pending", 2: "pending"}, list(PATHS))
    assert items(job, 1) is None


@pytest.mark.parametrize("arrival", [None, 0])
def test_what_has_not_processed_the_other_items_must_do_so_first(job: Requeued, arrival: int | None) -> None:
    job.submit(chain(group(job.leaf(), job.leaf()), job.leaf()))
    end_partial(job, 0)
    job.fail(1)
    assert "that have not ended well with its other items. Let these end well" in failed_items(job, arrival)
    assert (job.states()[0], job.job()["state"]) == ("partial", "failed")


def test_in_a_paused_job_what_comes_next_must_have_run_with_the_other_items(job: Requeued) -> None:
    job.submit(chain(job.leaf(), job.leaf()))
    job.turn(job.tell(0, "started"))
    order(job.runner, OrderKind.PAUSE, job.job_id)
    end_partial(job, 0)
    assert (job.job()["state"], job.states()) == ("paused", {0: "partial", 1: "ready"})
    assert "that have not ended well with its other items." in failed_items(job)
    job.order(OrderKind.RESUME)
    job.run_all()
    failed_items(job)
    assert (job.states(), items(job)) == ({0: "queued", 1: "pending"}, list(PATHS))


@pytest.mark.parametrize(
    ("named", "said", "why"),
    [
        ([], {"failed": 2}, "has named no items that failed."),
        (PATHS, {"failed": 3}, "has 3 items that were not processed, and only 2 are known."),
        (PATHS, {"aborted": 1}, "has 3 items that were not processed, and only 2 are known."),
        (["/a", LONG], {}, "has failed items that are too long or no JSON (1 of 2)."),
        ([{1, 2}], {}, "has failed items that are too long or no JSON (1 of 1)."),
    ],
)
def test_a_task_is_refused_whose_failed_items_are_not_all_known(
    job: Requeued, named: Sequence[Any], said: dict[str, int], why: str
) -> None:
    job.submit(job.leaf())
    end_partial(job, 0, named, **said)
    answer = job.requeue(items="failed")
    assert answer.outcome == "refused"
    assert answer.text == f"add [{job.tasks()[0]['id']}] {why} Requeue it without --items."


def test_as_many_items_as_are_kept_run_again_and_with_more_the_task_is_refused(job: Requeued) -> None:
    job.submit(group(job.leaf(), job.leaf()))
    end_partial(job, 0, range(MOST_ERRORS))
    end_partial(job, 1, range(MOST_ERRORS + 1))
    assert "has 10,001 items that were not processed, and only 10,000 are known." in failed_items(job)
    assert items(job) == list(range(MOST_ERRORS))


def test_a_task_is_refused_that_takes_no_argument(job: Requeued) -> None:
    job.submit(job.runner.app.tasks["anything"].si(name="value"))
    end_partial(job, 0)
    assert "takes no argument in whose place they could be." in failed_items(job)


def test_a_task_is_refused_that_has_added_others(job: Requeued) -> None:
    job.submit(job.leaf())
    job.add(0, job.leaf())
    job.run_all()
    end_partial(job, 0)
    assert "has added tasks to the job, which would be removed." in failed_items(job)


@pytest.mark.parametrize(("arrival", "who"), [(None, "Job {job} has no task that has"), (0, "Task {task} has not")])
def test_without_a_partial_task_there_is_nothing_to_do(job: Requeued, arrival: int | None, who: str) -> None:
    job.submit(job.leaf())
    job.run_all()
    said = who.format(job=job.job_id, task=job.tasks()[0]["id"])
    assert failed_items(job, arrival) == f"{said} ended partial. Requeue it without --items."


def test_what_a_task_has_sent_is_requeued_with_that_task_only(job: Requeued) -> None:
    job.submit(job.leaf())
    job.send(0, "sent-1")
    end_partial(job, 1)
    job.run(0)
    assert job.job()["reason"] == "partial"
    assert "was sent by other tasks, and only those can send it again. Requeue it without" in failed_items(job)


def test_tasks_that_can_run_and_the_answer_tells_of_those_that_cannot(job: Requeued) -> None:
    job.submit(group(job.leaf(number) for number in range(6)))
    end_partial(job, 0)
    for arrival in range(1, 6):
        end_partial(job, arrival, [], failed=1)
    answer = failed_items(job)
    assert answer.startswith("It is queued: 1 tasks run again, 1 of them with only the items that failed. Not with its")
    assert answer.endswith("Requeue it without --items. … and 2 more.")
    assert list(job.states().values()) == ["queued", *["partial"] * 5]


def test_the_items_of_tasks_that_are_gone_are_no_empty_list(done: Requeued) -> None:
    failed_items(done)
    with done.runner.database.write() as connection:
        connection.execute(schema.item_error.delete())
    with pytest.raises(LookupError, match="delivery 1 are gone"):
        items(done)


def test_the_history_says_who_had_failed_items_requeued(done: Requeued) -> None:
    failed_items(done)
    told = {row["line"]: row for row in read_rows(done.runner.database, "history")}
    task = done.tasks()[0]
    line = told[f"{task['name']} [{task['id']}] runs again with only its 2 items that failed"]
    assert (line["task_id"], line["trigger"], line["who"]) == (task["id"], "requeue", "tester")
