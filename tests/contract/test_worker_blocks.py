"""Workers that fail one task of a name after the other, in turns of the tracker, on both databases."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import group

from jobrunner import JobRunner
from jobrunner.records import WorkerFailure
from jobrunner.snapshot import Refusal, Sent, Snapshot
from jobrunner.states import FailureReason, JobState, TaskState
from jobrunner.store import tracking
from tests.apps import (
    answer_to,
    check_counters,
    job_row,
    live,
    new_runner,
    order,
    read_rows,
    snapshot_of,
    store,
    take_turn,
    task_row,
)
from tests.builders import MIDNIGHT, by_process, held_message, moment, raw_event
from tracker.events import read_events
from tracker.sending import Outgoing

SICK, WELL = "sick@host", "well@host"


@pytest.fixture
def runner(tmp_path: Path, any_database_url: str) -> Iterator[JobRunner]:
    made = new_runner(tmp_path, database=any_database_url)
    yield made
    made.database.close()


@pytest.fixture
def tasks(runner: JobRunner) -> list[str]:
    """Eight tasks of one name, which were sent."""
    store(runner, group(runner.app.tasks["add"].s(1, number) for number in range(8)))
    return sorted(one.letter.task_id for one in turn(runner))


def told(type_: str, uuid: str, worker: str = SICK, at: float = 0, **fields: Any) -> dict[str, Any]:
    return raw_event(type=f"task-{type_}", uuid=uuid, hostname=worker, timestamp=moment(at).timestamp(), **fields)


def ran(how: str, uuid: str, worker: str = SICK, at: float = 0, **fields: Any) -> list[dict[str, Any]]:
    """What a worker tells of a task that it has run."""
    failed = {"exception": "ValueError('no')"} if how != "succeeded" else {}
    return [told("started", uuid, worker, at, **fields), told(how, uuid, worker, at + 0.5, **failed | fields)]


def turn(runner: JobRunner, *events: dict[str, Any], later: float = 0) -> list[Outgoing]:
    """Do a turn, so many seconds later than the first, and return what it puts into the outbox."""
    taken = take_turn(runner, *read_events(by_process(*events)).events, later=later)
    check_counters(runner.database)
    return taken


def blocked(runner: JobRunner) -> list[str]:
    """Return who is blocked for `add` in the only job."""
    return sorted(snapshot_of(runner).blocked.get(job_row(runner)["id"], {}).get("add", []))


def block(runner: JobRunner, tasks: list[str], worker: str = SICK) -> None:
    for at, one in enumerate(tasks[:3]):
        turn(runner, *ran("failed", one, worker, at))
    assert worker in blocked(runner)


# ---- who is blocked ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["failed", "retried"])
def test_a_worker_on_which_three_tasks_of_a_name_fail_in_a_row_gets_no_more_of_that_job(
    runner: JobRunner, tasks: list[str], how: str
) -> None:
    live(runner, SICK, WELL)
    before = snapshot_of(runner).version
    turn(runner, *ran(how, tasks[0]), *ran(how, tasks[1], at=1))
    assert blocked(runner) == []
    turn(runner, *ran(how, tasks[2], at=2))
    assert blocked(runner) == [SICK]
    snapshot = Snapshot.loads(snapshot_of(runner).dumps())
    assert snapshot.version > before
    message = Sent(root_id=job_row(runner)["id"], celery_id=tasks[5], name="add")
    assert snapshot.refusal(message, SICK) is Refusal.BLOCKED
    assert snapshot.refusal(message, WELL) is None
    assert snapshot.refusal(Sent(root_id=message.root_id, celery_id="1", name="total"), SICK) is None
    assert snapshot.refusal(Sent(root_id="other", celery_id="1", name="add"), SICK) is None
    (line,) = (row["line"] for row in read_rows(runner.database, "history") if "gets no more" in row["line"])
    assert line == (
        "sick@host gets no more add of this job: 3 of them in a row have failed there, the last with ValueError('no');"
        " `jobrunner workers unblock sick@host` lifts that"
    )


def test_a_success_begins_the_count_anew(runner: JobRunner, tasks: list[str]) -> None:
    live(runner, SICK, WELL)
    turn(runner, *ran("failed", tasks[0]), *ran("failed", tasks[1], at=1))
    turn(runner, *ran("succeeded", tasks[2], at=2))
    turn(runner, *ran("failed", tasks[3], at=3), *ran("failed", tasks[4], at=4))
    assert blocked(runner) == []
    turn(runner, *ran("failed", tasks[5], at=5))
    assert blocked(runner) == [SICK]


def test_one_task_that_fails_again_and_again_blocks_nobody(runner: JobRunner, tasks: list[str]) -> None:
    live(runner, SICK, WELL)
    for retries in range(6):
        turn(runner, *ran("retried", tasks[0], at=retries, retries=retries))
    assert blocked(runner) == []


def test_what_is_told_twice_counts_once_and_in_the_order_in_which_it_was(runner: JobRunner, tasks: list[str]) -> None:
    live(runner, SICK, WELL)
    events = [*ran("failed", tasks[2], at=9), *ran("succeeded", tasks[1], at=5), *ran("failed", tasks[0], at=1)]
    turn(runner, *events, *ran("failed", tasks[3], at=0))
    turn(runner, *events)
    (row,) = read_rows(runner.database, "worker_failure")
    assert (row["failures"], row["last_task"]) == (1, tasks[2])


def test_a_worker_on_its_own_is_blocked_only_for_what_has_used_up_its_tries(
    runner: JobRunner, tasks: list[str]
) -> None:
    live(runner, SICK)
    live(runner, WELL, queues=("other",))
    for one in tasks[:4]:
        turn(runner, *ran("retried", one))
    assert blocked(runner) == []
    block(runner, tasks[4:])


def test_the_last_worker_that_is_not_blocked_is_one_on_its_own(runner: JobRunner, tasks: list[str]) -> None:
    live(runner, SICK, WELL)
    block(runner, tasks)
    for one in tasks[3:]:
        turn(runner, *ran("retried", one, WELL))
    assert blocked(runner) == [SICK]


def test_the_last_worker_is_not_blocked_for_bad_inputs_if_it_has_succeeded_with_others(
    runner: JobRunner, tasks: list[str]
) -> None:
    live(runner, SICK)
    turn(runner, *ran("succeeded", tasks[0]))
    for one in tasks[1:6]:
        turn(runner, *ran("failed", one))
    assert blocked(runner) == []
    live(runner, WELL)  # now another one may try
    turn(runner, *ran("failed", tasks[6]))
    assert blocked(runner) == [SICK]


def test_to_ask_for_another_try_without_an_error_is_no_failure(runner: JobRunner, tasks: list[str]) -> None:
    live(runner, SICK, WELL)
    for one in tasks:
        turn(runner, *ran("retried", one, exception="None"))
    assert blocked(runner) == []


# ---- what becomes of what comes to them --------------------------------------------------------------------


def refuse(runner: JobRunner, uuid: str, worker: str = SICK, at: float = 20, **fields: Any) -> list[Outgoing]:
    return turn(runner, told("held", uuid, worker, at, reason="blocked", **fields), later=at)


def test_what_comes_to_a_blocked_worker_rests_and_goes_out_again(runner: JobRunner, tasks: list[str]) -> None:
    live(runner, SICK, WELL)
    block(runner, tasks)
    assert refuse(runner, tasks[5]) == []
    row = task_row(runner, tasks[5])
    assert (row["state"], row["handed_back"]) == (TaskState.READY, 0)
    assert row["note"] == "waits for another worker: sick@host is blocked for such tasks of this job"
    assert turn(runner, later=20.9) == []
    (again,) = turn(runner, later=21)
    assert (again.letter.task_id, again.letter.delivery, again.avoid) == (tasks[5], 2, ())


@pytest.mark.parametrize("whole", [False, True])
def test_when_every_worker_is_blocked_what_comes_to_one_has_failed(
    runner: JobRunner, tasks: list[str], whole: bool
) -> None:
    live(runner, SICK, WELL)
    block(runner, tasks)
    block(runner, tasks[3:], WELL)
    message = {"message": held_message()} if whole else {}
    assert refuse(runner, tasks[6], **message) == []
    row = task_row(runner, tasks[6])
    assert (row["state"], row["reason"]) == (TaskState.FAILED, FailureReason.NO_WORKERS)
    assert row["note"] == (
        "no worker is left for add: sick@host, well@host, where 3 of this job in a row have failed;"
        " `jobrunner workers unblock` lifts that for each of them, and a requeue of the job for all"
    )
    assert refuse(runner, tasks[7], WELL) == []
    job = job_row(runner)
    assert (job["state"], job["reason"]) == (JobState.FAILED, FailureReason.NO_WORKERS)
    assert "no worker is left for add: sick@host, well@host" in job["note"]
    assert refuse(runner, tasks[6], **message) == [], "told twice"
    assert task_row(runner, tasks[6]) == row


def test_a_worker_that_takes_tasks_from_another_queue_is_of_no_help(runner: JobRunner, tasks: list[str]) -> None:
    live(runner, SICK)
    live(runner, WELL, queues=("other",))
    block(runner, tasks)
    refuse(runner, tasks[6])
    assert task_row(runner, tasks[6])["reason"] == FailureReason.NO_WORKERS


def test_what_nobody_is_there_for_waits(runner: JobRunner, tasks: list[str]) -> None:
    live(runner, SICK)
    block(runner, tasks)
    with runner.database.write() as connection:
        tracking.lose_worker(connection, SICK)
    refuse(runner, tasks[6])
    assert task_row(runner, tasks[6])["state"] == TaskState.READY


# ---- what lifts it -----------------------------------------------------------------------------------------


def test_a_requeue_lifts_all_blocks_of_its_job(runner: JobRunner, tasks: list[str]) -> None:
    live(runner, SICK)
    block(runner, tasks)
    for one in tasks[3:]:
        refuse(runner, one)
    assert job_row(runner)["state"] == JobState.FAILED
    order(runner, "requeue", job_row(runner)["id"])
    version = snapshot_of(runner).version
    turn(runner)
    assert (blocked(runner), read_rows(runner.database, "worker_failure")) == ([], [])
    assert snapshot_of(runner).version > version


def test_what_is_known_of_workers_in_jobs_that_have_ended_is_forgotten_their_blocks_later(runner: JobRunner) -> None:
    job_id = store(runner, runner.app.tasks["add"].s(1, 2))
    with runner.database.write() as connection:
        rows = [WorkerFailure(job_id=job_id, name="add", worker=one, failures=1) for one in (SICK, WELL)]
        rows[0].blocked_at = MIDNIGHT
        tracking.save_worker_failures(connection, [], rows)
        assert not tracking.forget_failures(connection, moment(10))
    assert len(read_rows(runner.database, "worker_failure")) == 2
    (sent,) = turn(runner)
    turn(runner, *ran("succeeded", sent.celery_id, WELL))
    with runner.database.write() as connection:
        assert not tracking.forget_failures(connection, MIDNIGHT)
    assert [row["worker"] for row in read_rows(runner.database, "worker_failure")] == [SICK]
    with runner.database.write() as connection:
        assert tracking.forget_failures(connection, moment(10))
    assert read_rows(runner.database, "worker_failure") == []


def test_an_order_lets_one_worker_try_again_and_says_so_in_the_history(runner: JobRunner, tasks: list[str]) -> None:
    live(runner, SICK, WELL)
    block(runner, tasks)
    block(runner, tasks[3:], WELL)
    job_id = job_row(runner)["id"]
    version = snapshot_of(runner).version
    given = [order(runner, "unblock", job_id, worker=SICK, name=name) for name in ("total", "add", None)]
    turn(runner)
    answers = [answer_to(runner, one) for one in given]
    assert [one and one.text for one in answers] == [
        "It was not blocked.",
        "sick@host gets add again.",
        "It was not blocked.",
    ]
    assert blocked(runner) == [WELL]
    assert snapshot_of(runner).version > version
    lines = [row for row in read_rows(runner.database, "history") if row["trigger"] == "unblock"]
    assert [(row["line"], row["who"]) for row in lines] == [("sick@host gets add again", "tester")]
    turn(runner, *ran("failed", tasks[6], at=30))
    assert blocked(runner) == [WELL], "it begins to count anew"
