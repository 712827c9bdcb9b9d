"""Commands that order something: one result per object, and the exit code that says what came of all of them."""

import json
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import chord
from sqlalchemy import update

from jobrunner import JobRunner
from jobrunner.condition import why_unanswered
from jobrunner.order_kinds import OrderKind
from jobrunner.order_records import Answer, Requeue
from jobrunner.records import Attempt, HistoryLine
from jobrunner.states import TaskState
from jobrunner.store import leases, schema, tracking
from jobrunner.store.held import held_view
from jobrunner.store.orders import read_orders
from jobrunner.store.schema import COUNTERS
from tests.answering import answer, answering, take
from tests.apps import count_rows, new_runner, read_rows, store
from tests.builders import MIDNIGHT
from tests.commands import Ended, Run


@pytest.fixture
def jobs(any_database_url: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobRunner]:
    assert callable(run)  # it has chosen a database of its own, first
    monkeypatch.setenv("JOBRUNNER_DATABASE", any_database_url)
    runner = new_runner(tmp_path, database=any_database_url)
    yield runner
    runner.database.close()


def submitted(jobs: JobRunner, **options: Any) -> str:
    add, total = jobs.app.tasks["add"], jobs.app.tasks["total"]
    return store(jobs, chord([add.s(1, 2), add.s(3, 4)], total.s()), **options)


def change(jobs: JobRunner, job_id: str, **values: Any) -> None:
    with jobs.database.write() as connection:
        connection.execute(update(schema.job).where(schema.job.c.id == job_id).values(values))


def fail_first(jobs: JobRunner, job_id: str) -> str:
    """Let the first task of a job be failed, and return its id."""
    task = jobs.get(job_id).tasks()[0].id
    with jobs.database.write() as connection:
        connection.execute(update(schema.task).where(schema.task.c.id == task).values(state=TaskState.FAILED))
    return task


def answered(jobs: JobRunner, run: Run, *arguments: str, refused: tuple[str, ...] = ()) -> Ended:
    """Run a command while orders are answered: as done, or refused where they are about these."""

    def made(row: Any) -> Answer:
        if (row.task_id or row.job_id) in refused:
            return answer("refused", f"cannot be {row.kind}d")
        return answer("done", f"{row.kind}d")

    with answering(jobs.database.url.render_as_string(hide_password=False), made):
        return run(*arguments)


def ordered(jobs: JobRunner) -> list[tuple[str, str, str | None, Any]]:
    """Return kind, job, task and arguments of all orders, in order."""
    rows = read_rows(jobs.database, "orders")
    return [(row["kind"], row["job_id"], row["task_id"], json.loads(row["arguments"])) for row in rows]


# ---- one by one --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (("pause",), {}),
        (("resume",), {}),
        (("cancel",), {"grace": 10.0}),
        (("cancel", "--grace", "2.5"), {"grace": 2.5}),
        (("cancel", "--let-finish"), {"grace": None}),
        (("requeue",), {"scope": None}),
        (("requeue", "--all"), {"scope": "all"}),
        (("requeue", "--incomplete"), {"scope": "incomplete"}),
        (("requeue", "--items", "failed"), {"scope": None, "items": "failed"}),
        (
            ("set", "--priority", "-5", "--note", "mine", "--label", "a=b", "--label", "c="),
            {"priority": -5, "note": "mine", "labels": {"a": "b", "c": None}},
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_orders_it_of_a_job_and_says_what_changed(
    jobs: JobRunner, run: Run, command: tuple[str, ...], arguments: dict[str, Any]
) -> None:
    job = submitted(jobs, key="k")
    ended = answered(jobs, run, *command, "k", "--reason", "the disk is full")
    assert (ended.code, ended.err) == (0, "")
    head, line = (one.split() for one in ended.out.splitlines())
    assert (head, line) == (["JOB", "OUTCOME", "WHAT"], [job, "done", f"{command[0]}d"])
    assert ordered(jobs) == [(command[0], job, None, arguments)]
    (row,) = read_rows(jobs.database, "orders")
    assert row["why"] == "the disk is full"
    assert "@" in row["asked_by"]


@pytest.mark.parametrize("command", ["cancel", "requeue", "skip", "fail"])
def test_an_order_about_a_task_names_it_by_its_id(jobs: JobRunner, run: Run, command: str) -> None:
    job = submitted(jobs)
    task = jobs.get(job).tasks()[1].id
    ended = answered(jobs, run, command, task, "--json")
    assert ended.code == 0
    (row,) = read_rows(jobs.database, "orders")
    assert ended.json == [
        {"kind": command, "job": job, "task": task, "outcome": "done", "text": f"{command}d", "order": row["id"]}
    ]
    assert ordered(jobs) == [(command, job, task, {"grace": 10.0} if command == "cancel" else {})]


def test_jobs_and_tasks_may_be_named_together_and_each_once(jobs: JobRunner, run: Run) -> None:
    first, second = submitted(jobs, key="one"), submitted(jobs)
    task = jobs.get(second).tasks()[0].id
    ended = answered(jobs, run, "requeue", first, "one", task, "--all", "--yes")
    assert (ended.code, ended.out.splitlines()[0].split()) == (0, ["JOB", "TASK", "OUTCOME", "WHAT"])
    assert ordered(jobs) == [("requeue", first, None, {"scope": "all"}), ("requeue", second, task, {})]


def test_failed_items_may_be_requeued_of_jobs_and_of_tasks_and_not_with_a_scope(jobs: JobRunner, run: Run) -> None:
    job = submitted(jobs)
    task = jobs.get(job).tasks()[0].id
    assert answered(jobs, run, "requeue", job, task, "--items", "failed", "--yes").code == 0
    failed = {"items": "failed"}
    assert ordered(jobs) == [("requeue", job, None, {"scope": None} | failed), ("requeue", job, task, failed)]
    assert run("requeue", job, "--items", "failed", "--all").code == 2


def test_every_object_has_its_own_result_and_the_exit_code_tells_the_worst(jobs: JobRunner, run: Run) -> None:
    first, second = submitted(jobs), submitted(jobs)
    some = answered(jobs, run, "pause", first, second, "nowhere", "--json", refused=(second,))
    assert some.code == 4
    assert {one["job"]: (one["outcome"], one["order"] is None) for one in some.json} == {
        first: ("done", False),
        second: ("refused", False),
        "nowhere": ("not-found", True),
    }
    gone = answered(jobs, run, "pause", first, "nowhere")
    assert gone.code == 3
    assert "There is no job 'nowhere' in " in gone.out
    assert run("skip", first).code == 3, "a job is no task"
    assert count_rows(jobs.database)["orders"] == 3


def test_quiet_prints_only_what_was_not_done(jobs: JobRunner, run: Run) -> None:
    first, second = submitted(jobs), submitted(jobs)
    assert answered(jobs, run, "pause", first, second, "--quiet") == Ended(0, "", "")
    assert answered(jobs, run, "pause", first, second, "--quiet", "--json") == Ended(0, "", "")
    ended = answered(jobs, run, "pause", first, second, "--quiet", refused=(second,))
    assert (ended.code, len(ended.out.splitlines())) == (4, 2)


# ---- waiting -----------------------------------------------------------------------------------------------


def test_without_a_tracker_the_order_stands_and_the_command_says_so(jobs: JobRunner, run: Run) -> None:
    job = submitted(jobs)
    late = run("cancel", job, "--timeout", "0.05")
    assert late.code == 124
    assert "ordered" in late.out
    assert "no tracker is running" in late.out
    assert late.err.startswith("The order stands without an answer after 0.05 s, and will be carried out when")
    assert [kind for kind, *_ in ordered(jobs)] == ["cancel"]
    (one,) = run("cancel", job, "--timeout", "0", "--json").json
    assert (one["outcome"], one["text"].partition(":")[0]) == ("ordered", "no tracker is running")


def test_nobody_need_wait(jobs: JobRunner, run: Run) -> None:
    job = submitted(jobs)
    ended = run("pause", job, "--no-wait")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[1].split() == [job, "ordered"]


# ---- by filter ---------------------------------------------------------------------------------------------


def test_a_filter_orders_it_of_all_that_fit_and_are_in_a_state_that_makes_sense(jobs: JobRunner, run: Run) -> None:
    active, failed, old = (submitted(jobs, name=name) for name in ("a", "b", "b"))
    change(jobs, active, state="active", labels='{"team": "x"}')
    change(jobs, failed, state="failed", labels='{"team": "x"}')
    change(jobs, old, submitted_at=datetime.now(UTC) - timedelta(hours=3))

    def chosen(*arguments: str) -> list[str]:
        return [one["job"] for one in answered(jobs, run, *arguments, "--json").json]

    assert chosen("pause", "--label", "team=x") == [active]
    assert chosen("requeue", "--labeled", "team=x") == [failed]
    assert chosen("cancel", "--name", "b") == [old], "what has failed stays so, unless it is asked for"
    assert chosen("cancel", "--name", "b", "--state", "failed") == [failed]
    assert chosen("set", "--labeled", "team=x", "--label", "team=y") == [active, failed]
    assert chosen("set", "--older-than", "2h", "--priority", "1") == [old]
    assert chosen("set", "--state", "active", "--state", "failed", "--priority", "1") == [active, failed]
    assert chosen("pause", "--older-than", "1d") == []
    assert run("pause", "--older-than", "1d").err == "No job is meant by that.\n"
    assert run("pause", "--older-than", "1d", "--quiet") == Ended(0, "", "")


def test_tasks_are_chosen_by_job_state_and_name(jobs: JobRunner, run: Run) -> None:
    first, second = submitted(jobs, key="one"), submitted(jobs)
    failed, other = fail_first(jobs, first), fail_first(jobs, second)

    def chosen(*arguments: str) -> set[str]:
        return {one["task"] for one in answered(jobs, run, *arguments, "--yes", "--json").json}

    assert chosen("skip", "--job", "one") == {failed}
    assert chosen("skip", "--name", "add") == {failed, other}
    assert chosen("skip", "--name", "total") == set()
    assert chosen("fail", "--job", second) == {one.id for one in jobs.get(second).tasks()} - {other}
    change(jobs, second, labels='{"team": "x"}')
    assert chosen("skip", "--label", "team=x") == {other}


@pytest.mark.parametrize("command", ["cancel", "requeue", "skip", "fail"])
def test_what_harms_several_objects_needs_a_yes(jobs: JobRunner, run: Run, command: str) -> None:
    job = submitted(jobs)
    tasks = [one.id for one in jobs.get(job).tasks()]
    ended = run(command, *tasks)
    assert (ended.code, ended.out) == (2, "")
    assert f"This would {command} 3 tasks, and there is no terminal to ask on: say --yes." in ended.err
    assert count_rows(jobs.database)["orders"] == 0
    assert answered(jobs, run, command, *tasks, "--yes").code == 0
    assert answered(jobs, run, command, tasks[0]).code == 0, "one alone is what was typed"


@pytest.mark.parametrize(("said", "code"), [("y", 0), ("n", 130)])
def test_on_a_terminal_it_asks(
    jobs: JobRunner, run: Run, monkeypatch: pytest.MonkeyPatch, said: str, code: int
) -> None:
    first, second = submitted(jobs, name="one"), submitted(jobs, name="two")
    ours, theirs = os.openpty()
    with os.fdopen(ours, "r+b", buffering=0) as person, os.fdopen(theirs, "r", encoding="utf-8") as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        person.write(f"{said}\n".encode())
        ended = answered(jobs, run, "cancel", first, second)
    assert ended.code == code
    assert ended.err.startswith(f"  {first}  one  queued\n  {second}  two  queued\nCancel 2 jobs?")
    assert count_rows(jobs.database)["orders"] == (2 if code == 0 else 0)


# ---- mistakes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("pause",), "Name jobs, or choose them by --state, --name, --labeled or --older-than."),
        (("skip",), "Name tasks, or choose them by --state, --name, --labeled, --older-than or --job."),
        (("pause", "JOB", "--state", "active"), "Name jobs, or choose them by a filter; not both."),
        (("pause", "--state", "soft-failed"), "'soft-failed' is not one of"),
        (("pause", "--older-than", "soon"), "'soon' is none: write it as 90s, 30m, 12h or 7d."),
        (("pause", "--label", "team"), "'team' has no value: write it as team=VALUE."),
        (("pause", "--label", "team="), "'team' has no value: write it as team=VALUE."),
        (("pause", "--label", "a b=c"), "'a b' is no name of a label."),
        (("pause", "JOB", "--reason", ""), "The reason has 0 characters."),
        (("cancel", "JOB", "--grace", "-1"), "The grace of -1 s is not between 0 and 86400."),
        (("cancel", "JOB", "--grace", "1", "--let-finish"), "--grace and --let-finish exclude each other."),
        (("set", "JOB"), "Nothing is to be set."),
        (("set", "JOB", "--priority", "101"), "The priority 101 is no whole number from -100 to 100."),
        (("set", "JOB", "--label", "x"), "'x' has no value: write it as x=VALUE."),
        (("pause", "0"), "Several jobs match '0'."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_ends_with_2_before_anything_is_ordered(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], problem: str
) -> None:
    jobs = new_runner(tmp_path)
    job, _ = submitted(jobs), submitted(jobs)
    ended = run(*(job if one == "JOB" else one for one in arguments))
    assert (ended.code, ended.out) == (2, "")
    assert problem in ended.err
    assert count_rows(jobs.database)["orders"] == 0
    jobs.database.close()


# ---- what is shown -----------------------------------------------------------------------------------------


def lead(jobs: JobRunner) -> None:
    """Hold the lease, as a tracker does."""
    with jobs.database.write() as connection:
        leases.acquire(connection, "tracker", 60)
        leases.renew(connection, "tracker", 60, None, -60)


def waits(run: Run, job: str) -> str | None:
    return run("show", job, "--json").json["waits"]


def test_show_tells_what_operators_want_and_have_set(jobs: JobRunner, run: Run) -> None:
    job = submitted(jobs)
    assert not {"intent", "run", "priority", "note", "labels"} & {
        line.split()[0] for line in run("show", job).out.splitlines()
    }
    change(jobs, job, intent="pause", run=2, priority=-5, annotation="ask anna", labels='{"b": "2", "a": "1"}')
    lines = run("show", job).out.splitlines()
    for line in ("intent     pause", "run        2", "priority   -5", "note       ask anna", "labels     a=1, b=2"):
        assert line in lines
    found = run("show", job, "--json").json
    assert (found["intent"], found["run"], found["annotation"], found["labels"]) == (
        "pause", 2, "ask anna", {"a": "1", "b": "2"},
    )  # fmt: skip


def test_a_paused_job_says_who_has_paused_it_and_why_and_how_it_goes_on(jobs: JobRunner, run: Run) -> None:
    add = jobs.app.tasks["add"]
    job = jobs.submit(add.s(1, 2), paused=True).id
    assert waits(run, job) == f"submitted paused: `jobrunner resume {job}`"
    with jobs.database.write() as connection:
        fixed = {"job_id": job, "task_id": None, "at": MIDNIGHT}
        lines = [
            HistoryLine(**fixed, line="paused", trigger="pause", who="bert@host"),
            HistoryLine(**fixed, line="resumed", trigger="resume", who="bert@host"),
            HistoryLine(**fixed, line="pausing", trigger="pause", who="anna@host", why="the disk is full"),
            HistoryLine(**fixed, line="paused", trigger="pause"),
        ]
        tracking.insert_history(connection, lines)
    assert waits(run, job) == f"paused by anna@host (the disk is full): `jobrunner resume {job}`"
    assert run("list", "--json").json[0]["state"] == "paused"
    assert run("list").out.splitlines()[1].split()[2] == "paused"


def test_a_job_that_is_being_stopped_says_what_still_runs_and_who_has_not_acknowledged(
    jobs: JobRunner, run: Run
) -> None:
    job = submitted(jobs)
    tasks = [one.id for one in jobs.get(job).tasks()]
    lead(jobs)
    with jobs.database.write() as connection:
        connection.execute(update(schema.task).values(state="active", delivery=1))
        for name, snapshot in (("w1@host", 6), ("w2@host", 7), ("w3@host", None)):
            tracking.save_worker(connection, name, name, 1, online=True, now=MIDNIGHT)
            connection.execute(update(schema.worker).where(schema.worker.c.name == name).values(snapshot=snapshot))
        tracking.save_worker(connection, "gone@host", "gone", 1, online=False, now=MIDNIGHT)
        held = {"delivery": 1, "retries": 0, "worker": "w1@host", "process": "one", "started_at": MIDNIGHT}
        opened = [
            Attempt(task_id=tasks[0], celery_id=tasks[0], standing=8, **held),
            Attempt(task_id=tasks[1], celery_id=tasks[1], standing=9, **held),
            Attempt(task_id=tasks[2], celery_id=tasks[2], standing=4, **held),
        ]
        tracking.insert_attempts(connection, opened)
    for state in ("pausing", "cancel-requested"):
        change(jobs, job, state=state, applied_at=MIDNIGHT, hold_version=7)
        assert waits(run, job) == (
            f"1 task still runs: add [{tasks[0]}] on w1@host;"
            " 2 workers have not acknowledged the order: w1@host, w3@host (see `jobrunner workers`)"
        )
    change(jobs, job, hold_version=None)
    assert waits(run, job) == f"1 task still runs: add [{tasks[0]}] on w1@host"


@pytest.mark.parametrize(
    ("what", "done"),
    [({"incomplete": True}, "9 done, 1 to go"), ({"all": True}, "9 done, 2 to go"), ({"after": "task"}, "9 done")],
    ids=["incomplete", "all", "task"],
)
def test_a_job_that_is_being_requeued_says_how_far_that_is(
    jobs: JobRunner, run: Run, what: dict[str, Any], done: str
) -> None:
    job = submitted(jobs)
    lead(jobs)
    counts = {COUNTERS[TaskState.PENDING]: 1, COUNTERS[TaskState.COMPLETED]: 1, COUNTERS[TaskState.FAILED]: 1}
    change(jobs, job, state="requeueing", applied_at=MIDNIGHT, requeue=Requeue(**what, reset=9).dumps(), **counts)
    assert waits(run, job) == f"its tasks are being reset: {done}"


def test_an_unanswered_order_tells_what_it_waits_for(jobs: JobRunner, run: Run) -> None:
    job = submitted(jobs)
    lead(jobs)
    (one,) = run("pause", job, "--timeout", "0", "--json").json
    assert one["text"] == "the tracker has not taken it up yet"
    change(jobs, job, state="cancel-requested", hold_version=1)
    with jobs.database.write() as connection:
        tracking.save_worker(connection, "w1@host", "w1", 1, online=True, now=MIDNIGHT)
    take(jobs.database)
    with jobs.database.read() as connection:
        order, view = read_orders(connection, [one["order"]])[one["order"]], jobs.get(job).view
        why = why_unanswered(order, view, leases.tracker_status(connection), held_view(connection, view))
    assert why == "1 worker has not acknowledged the order: w1@host (see `jobrunner workers`)"


def test_the_whole_history_is_a_table_newest_last(jobs: JobRunner, run: Run) -> None:
    job = submitted(jobs)
    task = jobs.get(job).tasks()[0].id
    with jobs.database.write() as connection:
        fixed = {"job_id": job, "at": MIDNIGHT}
        lines = [HistoryLine(**fixed, task_id=None, line=f"decided {n}") for n in range(60)]
        told = {"old": "active", "new": "pausing", "trigger": "pause", "who": "anna@host", "why": "the disk is full"}
        lines += [
            HistoryLine(**fixed, task_id=None, line="pausing", **told),
            HistoryLine(**fixed, task_id=task, line="ran again", trigger="input-lost"),
        ]
        tracking.insert_history(connection, lines)
    out = run("show", job, "--history").out.split("\n\n")[1].splitlines()
    assert out[0].split() == ["WHEN", "OBJECT", "FROM", "TO", "TRIGGER", "WHO", "WHAT"]
    assert len(out) == 63
    assert out[-2].split(maxsplit=7)[2:] == [
        "job",
        "active",
        "pausing",
        "pause",
        "anna@host",
        "pausing (the disk is full)",
    ]
    assert out[-1].split()[2:] == ["task", task, "input-lost", "ran", "again"]
    last = run("show", job, "--json", "--history").json["history"][-2]
    assert {name: last[name] for name in told} == told
    assert (last["task_id"], last["line"]) == (None, "pausing")
    decided = [one["line"] for one in run("show", job, "--json").json["history"]]
    assert decided == [*(f"decided {n}" for n in range(11, 60)), "ran again"]
    assert len(run("show", job, "--json", "--history").json["history"]) == 62


def test_submit_paused_holds_the_job(jobs: JobRunner, run: Run) -> None:
    ended = run("submit", "-A", "shop", "nightly", "region=eu", "--paused", "--json")
    assert (ended.code, ended.json["state"], ended.json["intent"]) == (0, "paused", "pause")
    assert [row["held"] for row in read_rows(jobs.database, "job")] == [True]


@pytest.mark.parametrize("kind", [one for one in OrderKind if one is not OrderKind.UNBLOCK])  # given of workers
def test_the_help_of_an_order_says_what_it_does(run: Run, kind: OrderKind) -> None:
    said = " ".join(run(str(kind), "--help").out.split())
    assert str(kind.__doc__) in said
