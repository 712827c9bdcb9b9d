"""Orders as programs give them: what is refused before a row is written, what is written, and how an answer is read."""

import itertools
import json
import os
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import chord
from sqlalchemy import update

from jobrunner import Job, JobRunner, Order
from jobrunner.errors import InvalidParametersError, NotFoundError, RefusedError, UnreachableError, WaitTimeoutError
from jobrunner.markdown import code, table
from jobrunner.order_kinds import JOB_ORDERS, TASK_ORDERS, OrderKind, orders_taken, refusal
from jobrunner.orders import give, whoami
from jobrunner.states import ENDED_JOB, JobState, TaskState
from jobrunner.store import schema
from jobrunner.store.database import Database
from tests.answering import answer, answering, reply, take
from tests.apps import count_rows, new_runner, nobody, read_rows, sqlite_url, store

# ---- which order is taken in which state -------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "state"), list(itertools.product(OrderKind, [*JobState, *TaskState])))
def test_an_order_is_refused_in_the_states_that_do_not_take_it_and_the_refusal_names_what_they_take(
    kind: OrderKind, state: JobState | TaskState
) -> None:
    takes: Any = JOB_ORDERS if isinstance(state, JobState) else TASK_ORDERS
    text = refusal(kind, state)
    assert (text is None) == (state in takes.get(kind, ()))
    if text is not None:
        what = "job" if isinstance(state, JobState) else "task"
        assert text.startswith(f"A {what} that is {state} cannot be ")
        assert f"; it takes: {', '.join(orders_taken(state))}." in text
        assert text.endswith(".")


@pytest.mark.parametrize(
    ("kind", "state", "text"),
    [
        ("cancel", JobState.COMPLETED, "A job that is completed cannot be canceled; it takes: requeue, set."),
        (
            "pause",
            JobState.FAILED,
            "A job that is failed cannot be paused; it takes: cancel, requeue, set. Requeue it to run it again.",
        ),
        (
            "requeue",
            JobState.ACTIVE,
            (
                "A job that is active cannot be requeued; it takes: pause, resume, cancel, set, unblock."
                " Pause or cancel it first, or wait for its end."
            ),
        ),
        (
            "resume",
            JobState.CANCEL_REQUESTED,
            (
                "A job that is cancel-requested cannot be resumed; it takes: cancel, set."
                " Wait until it is canceled, then requeue it."
            ),
        ),
        (
            "requeue",
            TaskState.ACTIVE,
            (
                "A task that is active cannot be requeued; it takes: cancel, skip, fail."
                " Cancel it first, or wait for its end."
            ),
        ),
        ("skip", TaskState.COMPLETED, "A task that is completed cannot be skipped; it takes: requeue."),
        (
            "pause",
            TaskState.QUEUED,
            "A task that is queued cannot be paused; it takes: cancel, skip, fail. Name its job.",
        ),
    ],
    ids=str,
)
def test_a_refusal_says_what_to_do(kind: str, state: JobState | TaskState, text: str) -> None:
    assert refusal(OrderKind(kind), state) == text


def test_an_observed_job_can_be_canceled_and_changed_and_its_tasks_take_nothing() -> None:
    assert refusal(OrderKind.CANCEL, JobState.ACTIVE, observed=True) is None
    assert refusal(OrderKind.SET, JobState.COMPLETED, observed=True) is None
    assert (
        refusal(OrderKind.PAUSE, JobState.ACTIVE, observed=True)
        == "A job that is only observed and active cannot be paused; it takes: cancel, set."
    )
    assert (
        refusal(OrderKind.CANCEL, TaskState.ACTIVE, observed=True)
        == "A task of a job that is only observed takes no orders. Cancel the whole job."
    )


@pytest.mark.parametrize("kind", OrderKind)
def test_every_order_says_what_it_does(kind: OrderKind) -> None:
    assert kind.__doc__
    assert kind.__doc__.endswith(".")


# ---- what is written ---------------------------------------------------------------------------------------


@pytest.fixture
def jobs(any_database_url: str, tmp_path: Path) -> Iterator[JobRunner]:
    runner = new_runner(tmp_path, database=any_database_url)
    yield runner
    runner.database.close()


@pytest.fixture
def job(jobs: JobRunner) -> Job:
    return Job(submitted(jobs), database=jobs.database)


def submitted(jobs: JobRunner, **options: Any) -> str:
    add, total = jobs.app.tasks["add"], jobs.app.tasks["total"]
    return store(jobs, chord([add.s(1, 2), add.s(3, 4)], total.s()), **options)


def change(jobs: JobRunner, job_id: str, **values: Any) -> None:
    with jobs.database.write() as connection:
        connection.execute(update(schema.job).where(schema.job.c.id == job_id).values(values))


ON_JOBS: list[tuple[Callable[[Job], Order], str, dict[str, Any]]] = [
    (lambda job: job.pause(), "pause", {}),
    (lambda job: job.resume(), "resume", {}),
    (lambda job: job.cancel(), "cancel", {"grace": 10.0}),
    (lambda job: job.cancel(grace=3), "cancel", {"grace": 3.0}),
    (lambda job: job.cancel(grace=None), "cancel", {"grace": None}),
    (lambda job: job.requeue(), "requeue", {"scope": None}),
    (lambda job: job.requeue("all"), "requeue", {"scope": "all"}),
    (lambda job: job.requeue(items="failed"), "requeue", {"scope": None, "items": "failed"}),
    (lambda job: job.set(priority=-100), "set", {"priority": -100}),
    (lambda job: job.set(labels={"a": "b", "c": None}), "set", {"labels": {"a": "b", "c": None}}),
    (lambda job: job.set(priority=0, note="mine"), "set", {"priority": 0, "note": "mine"}),
    (lambda job: job.set(note=""), "set", {"note": None}),
]  # fmt: skip


def test_an_order_about_a_job_is_a_row_with_what_who_and_why(jobs: JobRunner, job: Job) -> None:
    given = [order(job) for order, _, _ in ON_JOBS]
    rows = {row["id"]: row for row in read_rows(jobs.database, "orders")}
    assert [(rows[one.id]["kind"], json.loads(rows[one.id]["arguments"])) for one in given] == [
        (kind, arguments) for _, kind, arguments in ON_JOBS
    ]
    assert sorted(rows) == [one.id for one in given], "they are applied in the order in which they were given"
    for row in rows.values():
        assert (row["job_id"], row["task_id"], row["applied_at"], row["answer"]) == (job.id, None, None, None)
        assert "@" in row["asked_by"]
    order = job.pause(why="the disk is full", by="anna")
    row = next(row for row in read_rows(jobs.database, "orders") if row["id"] == order.id)
    assert (row["why"], row["asked_by"]) == ("the disk is full", "anna")


def test_who_orders_is_the_user_and_the_machine_also_where_the_user_has_no_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOGNAME", "anna")
    assert whoami() == f"anna@{socket.gethostname()}"
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    assert whoami() == f"4000000@{socket.gethostname()}"


def test_of_a_task_as_of_a_job_failed_items_alone_may_be_requeued(jobs: JobRunner, job: Job) -> None:
    task = job.task(job.tasks()[0].id)
    task.requeue(items="failed")
    (row,) = read_rows(jobs.database, "orders")
    assert (row["task_id"], json.loads(row["arguments"])) == (task.id, {"items": "failed"})
    with pytest.raises(InvalidParametersError, match="no items of a task"):
        task.requeue(items="some")


def test_an_order_about_a_task_names_it_and_its_job(jobs: JobRunner, job: Job) -> None:
    task = job.task(job.tasks()[0].id)
    for order in (task.cancel(), task.requeue(), task.skip(why="known"), task.fail()):
        assert (order.job_id, order.task_id) == (job.id, task.id)
    rows = read_rows(jobs.database, "orders")
    assert [(row["kind"], row["job_id"], row["task_id"]) for row in rows] == [
        (kind, job.id, task.id) for kind in ("cancel", "requeue", "skip", "fail")
    ]
    assert [json.loads(row["arguments"]) for row in rows] == [{"grace": 10.0}, {}, {}, {}]


def test_an_order_changes_nothing_but_the_table_of_orders(jobs: JobRunner, job: Job) -> None:
    before = read_rows(jobs.database, "job")
    job.cancel()
    assert read_rows(jobs.database, "job") == before


def test_the_tracker_is_woken_after_an_order_is_written(jobs: JobRunner, job: Job) -> None:
    seen: list[int] = []
    Job(job.id, database=jobs.database, wake=lambda: seen.append(count_rows(jobs.database)["orders"])).pause()
    assert seen == [1]


def test_orders_about_many_jobs_are_one_transaction(jobs: JobRunner) -> None:
    ids = [submitted(jobs) for _ in range(3)]
    given = give(jobs.database, OrderKind.PAUSE, [(one, None) for one in ids], by="anna")
    assert [one.job_id for one in given] == ids
    assert len({row["asked_at"] for row in read_rows(jobs.database, "orders")}) == 1


BAD: list[Callable[[Job], Order]] = [
    lambda job: job.cancel(grace=-1),
    lambda job: job.cancel(grace=float("nan")),
    lambda job: job.cancel(grace=float("inf")),
    lambda job: job.cancel(grace=True),
    lambda job: job.cancel(grace="10"),  # type: ignore[arg-type]
    lambda job: job.cancel(grace=100_000),
    lambda job: job.task(job.tasks()[0].id).cancel(grace=-1),
    lambda job: job.requeue("some"),
    lambda job: job.requeue(items="some"),
    lambda job: job.requeue("all", items="failed"),
    lambda job: job.set(),
    lambda job: job.set(priority=101),
    lambda job: job.set(priority=True),
    lambda job: job.set(priority=1.5),  # type: ignore[arg-type]
    lambda job: job.set(note="\0"),
    lambda job: job.set(note="x" * 1_001),
    lambda job: job.set(labels={"a b": "c"}),
    lambda job: job.set(labels={'a"': "c"}),
    lambda job: job.set(labels={"": "c"}),
    lambda job: job.set(labels={"a": ""}),
    lambda job: job.set(labels={"a": 7}),  # type: ignore[dict-item]
    lambda job: job.pause(why=""),
    lambda job: job.pause(why="\ud800"),
    lambda job: job.pause(by="x" * 256),
]


@pytest.mark.parametrize("order", BAD, ids=range(len(BAD)))
def test_what_does_not_fit_is_refused_with_a_remedy_before_a_row_is_written(
    tmp_path: Path, order: Callable[[Job], Order]
) -> None:
    runner = new_runner(tmp_path)
    job = Job(submitted(runner), database=runner.database)
    with pytest.raises(InvalidParametersError) as caught:
        order(job)
    assert caught.value.remedy.endswith(".")
    assert count_rows(runner.database)["orders"] == 0
    runner.database.close()


def test_what_is_not_there_is_told_at_once(jobs: JobRunner, job: Job) -> None:
    with pytest.raises(NotFoundError, match="There is no job nowhere in"):
        Job("nowhere", database=jobs.database).pause()
    other = Job(submitted(jobs), database=jobs.database)
    with pytest.raises(NotFoundError, match=f"Job {job.id} has no task "):
        job.task(other.tasks()[0].id).skip()
    assert count_rows(jobs.database)["orders"] == 0


def test_without_a_database_nothing_is_ordered(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError):
        Job("any", database=Database(sqlite_url(tmp_path))).pause()


# ---- what becomes of it ------------------------------------------------------------------------------------


def test_an_order_has_no_answer_until_it_is_done_and_the_handle_tells_it(jobs: JobRunner, job: Job) -> None:
    order = job.pause()
    assert order.answer is None
    take(jobs.database)
    assert order.answer is None, "pausing is not paused"
    reply(jobs.database, lambda row: answer("done", f"{row.kind}d"))
    assert order.answer == answer("done", "paused")
    assert order.wait(0) == answer("done", "paused")
    assert order.result(0) == "paused"


def test_waiting_ends_with_the_answer(jobs: JobRunner, job: Job) -> None:
    order = job.pause()
    url = jobs.database.url.render_as_string(hide_password=False)
    with answering(url, lambda row: answer("done", row.kind)):
        assert order.result(30) == "pause"


def test_the_result_of_a_refused_order_is_an_error_that_says_why(jobs: JobRunner, job: Job) -> None:
    refused, gone = job.requeue(), job.resume()
    reply(jobs.database, lambda row: answer("refused" if row.id == refused.id else "not-found", f"no {row.kind}"))
    with pytest.raises(RefusedError, match="no requeue") as caught:
        refused.result(0)
    assert caught.value.exit_code == 4
    with pytest.raises(NotFoundError, match="no resume"):
        gone.result(0)
    assert refused.wait(0).outcome == "refused"


def test_a_time_out_says_that_the_order_stands(jobs: JobRunner, job: Job) -> None:
    order = job.pause()
    with pytest.raises(WaitTimeoutError, match=f"pause job {job.id} has no answer after 0 s: no tracker") as caught:
        order.wait(0)
    assert caught.value.exit_code == 124
    assert caught.value.remedy.startswith("It stands, and takes effect later")
    take(jobs.database)
    with pytest.raises(WaitTimeoutError, match="it is taken, and not done yet"):
        order.result(0.05)


# ---- finding -----------------------------------------------------------------------------------------------


def test_jobs_are_found_by_state_name_labels_and_age(jobs: JobRunner) -> None:
    first, second, third = submitted(jobs, name="a"), submitted(jobs, name="b"), submitted(jobs, name="b")
    change(jobs, first, labels='{"team": "x", "region": "eu"}', state="failed")
    change(jobs, second, labels='{"team": "x y"}', submitted_at=jobs.get(second).view.submitted_at - timedelta(days=2))

    def found(**chosen: Any) -> list[str]:
        return [one.id for one in jobs.find(**chosen)]

    assert found() == [second, first, third], "oldest first"
    assert found(name="b") == [second, third]
    assert found(states=[JobState.FAILED, JobState.ACTIVE]) == [first]
    assert found(labels={"team": "x"}) == [first]
    assert found(labels={"team": "x", "region": "us"}) == []
    assert found(labels={"team": "x y"}, name="b") == [second]
    assert found(older_than=timedelta(days=1)) == [second]
    assert found(states=[JobState.QUEUED], older_than=timedelta(days=3)) == []
    with pytest.raises(InvalidParametersError):
        jobs.find(labels={'x"': "y"})
    with pytest.raises(InvalidParametersError):
        jobs.find(name="\0")


# ---- submitted paused --------------------------------------------------------------------------------------


def test_a_job_submitted_paused_is_held_from_the_start(jobs: JobRunner) -> None:
    add = jobs.app.tasks["add"]
    job = jobs.submit(add.s(1, 2), key="k", paused=True)
    (row,) = read_rows(jobs.database, "job")
    assert (row["state"], row["intent"], row["held"], row["chore"]) == ("paused", "pause", True, False)
    assert job.state not in ENDED_JOB
    assert jobs.submit(add.s(1, 2), key="k").id == job.id, "how it is held is no part of its content"
    assert jobs.submit(add.s(1, 2), key="k").state is JobState.PAUSED


def test_the_broker_need_not_be_there_for_an_order(jobs: JobRunner, tmp_path: Path) -> None:
    assert jobs.app.conf.broker_url == nobody(tmp_path)
    order = jobs.get(submitted(jobs)).pause()
    assert order.answer is None


# ---- the page ----------------------------------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "orders.md"


def test_the_page_about_orders_has_all_of_them_and_what_they_are_about() -> None:
    about = (("a job", JOB_ORDERS), ("a task", TASK_ORDERS))
    rows = (
        (code(kind), " or ".join(what for what, kinds in about if kind in kinds), kind.__doc__ or "")
        for kind in OrderKind
    )
    assert table(("order", "of", "what it does"), rows) in PAGE.read_text()
