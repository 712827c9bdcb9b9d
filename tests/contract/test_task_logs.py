"""What tasks have logged, from events to those who read it: on both databases."""

from typing import Any

import pytest
from celery import chain

from jobrunner import JobRunner, ids
from jobrunner.errors import NotFoundError
from jobrunner.log_lines import LONGEST_PART, write_line
from jobrunner.store import tracking
from jobrunner.store.attempts import list_attempts
from jobrunner.store.logs import read_log
from tests.apps import order, read_rows, store, take_turn
from tests.builders import MIDNIGHT, event
from tracker.fold import Event


@pytest.fixture
def job_id(runner: JobRunner) -> str:
    """A job of one task, which was sent."""
    made = store(runner, chain(runner.app.tasks["add"].s(1, 2)))
    take_turn(runner)
    return made


def task_of(runner: JobRunner) -> dict[str, Any]:
    (row,) = read_rows(runner.database, "task")
    return row


def logged(runner: JobRunner, number: int, *texts: str, retries: int = 0, **known: Any) -> Event:
    """Tell a part of the log of the job's one task."""
    task = task_of(runner)
    lines = "\n".join(write_line(MIDNIGHT.timestamp(), "INFO", text) for text in texts)
    told = {"uuid": ids.celery_id(task["id"], task["delivery"]), "source": "p", "retries": retries, **known}
    return event("logged", fields={"number": number, "text": lines}, **told)


def happened(runner: JobRunner, type_: str, *, retries: int = 0, source: str = "p") -> Event:
    task = task_of(runner)
    return event(type_, uuid=ids.celery_id(task["id"], task["delivery"]), retries=retries, source=source)


def texts(runner: JobRunner, job_id: str, **which: Any) -> list[str]:
    return [line.text for line in runner.get(job_id).task(task_of(runner)["id"]).logs(**which)]


def test_a_log_is_kept_however_often_and_in_whatever_order_its_parts_are_told(runner: JobRunner, job_id: str) -> None:
    parts = [logged(runner, 0, "a", "b"), logged(runner, 1, "c")]
    take_turn(runner, parts[1], parts[1], happened(runner, "started"))
    take_turn(runner, *parts)
    assert texts(runner, job_id) == ["a", "b", "c"]
    assert len(read_rows(runner.database, "log_part")) == 2


@pytest.mark.parametrize("at_once", [True, False])
def test_the_log_of_an_attempt_that_its_worker_has_executed_twice_is_that_of_the_last_time(
    runner: JobRunner, job_id: str, at_once: bool
) -> None:
    """The message was handed back, and came to the same process again."""
    first = [happened(runner, "started"), *(logged(runner, number, f"old {number}", at=number) for number in range(3))]
    second = [logged(runner, 0, "new 0", at=9), logged(runner, 1, "new 1", at=10)]
    for told in [first + second] if at_once else [first, second, second[:1]]:
        take_turn(runner, *told)
    assert texts(runner, job_id) == ["new 0", "new 1"]


def test_a_part_that_is_missing_is_told_in_its_place(runner: JobRunner, job_id: str) -> None:
    take_turn(runner, happened(runner, "started"), logged(runner, 0, "a"), logged(runner, 3, "b"))
    assert texts(runner, job_id) == ["a", "A part is missing here: it was lost, or had no room.", "b"]


def test_a_log_moves_nothing_and_makes_no_attempt(runner: JobRunner, job_id: str) -> None:
    before = task_of(runner)
    take_turn(runner, logged(runner, 0, "a"))
    assert task_of(runner) == before
    assert read_rows(runner.database, "attempt") == []
    assert texts(runner, job_id) == []  # nobody has told yet that there is an attempt
    take_turn(runner, happened(runner, "started"))
    assert texts(runner, job_id) == ["a"]


def test_of_a_task_that_nobody_knows_nothing_is_kept(runner: JobRunner, job_id: str) -> None:
    take_turn(runner, logged(runner, 0, "a", uuid=ids.uuid7()))
    assert read_rows(runner.database, "log_part") == []
    assert runner.get(job_id).view.total == 1


def test_text_is_bounded_and_clean(runner: JobRunner, job_id: str) -> None:
    odd = logged(runner, 0)
    fields = {"number": 0, "text": "a\x00b\ud800" + "x" * 2 * LONGEST_PART}
    take_turn(runner, happened(runner, "started"), event("logged", uuid=odd.uuid, source="p", fields=fields))
    (row,) = read_rows(runner.database, "log_part")
    assert len(row["text"]) == LONGEST_PART
    assert texts(runner, job_id)[0].startswith("a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}x")


# ---- attempts ----------------------------------------------------------------------------------------------


@pytest.fixture
def tried(runner: JobRunner, job_id: str) -> str:
    """A job whose task was tried twice, and had another process report of its second try; sent again, and once more."""
    for retries in (0, 1):
        take_turn(
            runner, happened(runner, "started", retries=retries), logged(runner, 0, f"{retries}", retries=retries)
        )
        if not retries:
            take_turn(runner, happened(runner, "retried", retries=retries))
    take_turn(runner, happened(runner, "failed", retries=1))
    order(runner, "requeue", job_id)
    for _ in range(3):
        take_turn(runner)
    assert task_of(runner)["delivery"] == 2
    take_turn(runner, happened(runner, "started"), logged(runner, 0, "sent again"))
    return job_id


def test_the_log_of_the_last_attempt_is_read_or_that_of_the_one_with_a_number(runner: JobRunner, tried: str) -> None:
    assert texts(runner, tried) == ["sent again"]
    assert texts(runner, tried, attempt=1) == ["sent again"]
    assert texts(runner, tried, attempt=1, delivery=1) == ["0"]
    assert texts(runner, tried, attempt=2) == ["1"]
    assert texts(runner, tried, attempt=3) == []


def test_a_process_that_did_not_have_the_task_is_read_only_where_there_is_nobody_else(
    runner: JobRunner, job_id: str
) -> None:
    take_turn(runner, happened(runner, "started"), logged(runner, 0, "ours"), happened(runner, "succeeded"))
    take_turn(runner, happened(runner, "failed", source="q"), logged(runner, 0, "theirs", source="q"))
    assert texts(runner, job_id) == ["ours"]


def test_there_is_no_log_of_a_task_of_another_job(runner: JobRunner, job_id: str) -> None:
    take_turn(runner, happened(runner, "started"), logged(runner, 0, "a"))
    task_id = task_of(runner)["id"]
    with pytest.raises(NotFoundError, match="has no task"):
        runner.get(ids.uuid7()).task(task_id).logs()
    with pytest.raises(NotFoundError, match="has no task"):
        runner.get(job_id).task(ids.uuid7()).logs()


def test_a_log_is_read_on_from_where_one_was(runner: JobRunner, job_id: str) -> None:
    take_turn(runner, happened(runner, "started"), logged(runner, 0, "a"), logged(runner, 1, "b"))
    with runner.database.read() as connection:
        (view,) = list_attempts(connection, job_id)
        assert [(number, line.text) for number, line in read_log(connection, view, after=0)] == [(1, "b")]


@pytest.mark.usefixtures("job_id")
def test_what_a_deleted_task_has_logged_is_deleted(runner: JobRunner) -> None:
    """Of tasks that a requeue deletes; those that were only added have never run."""
    take_turn(runner, happened(runner, "started"), logged(runner, 0, "a"))
    task_id = task_of(runner)["id"]
    with runner.database.write() as connection:
        tracking.delete_offspring(connection, {task_id}, ())
    assert read_rows(runner.database, "log_part") == []
