"""The command line: data on stdout, messages on stderr, and the exit code that says what came of it."""

import json
import math
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from celery import chord, group

from jobrunner import JobRunner, cli
from jobrunner.cli.output import tasks_line
from jobrunner.embedded import broker
from jobrunner.failure_policy import FailurePolicy
from jobrunner.records import Attempt, HistoryLine, Standing, WorkerFailure
from jobrunner.settings import OPTIONS, Settings, variable
from jobrunner.store import leases, tracking
from jobrunner.store.migrations import HEAD
from tests.apps import count_rows, nobody, read_rows, store
from tests.builders import MIDNIGHT
from tests.commands import Ended, Run
from tests.process import ROOT


def submitted(jobs: JobRunner, **options: Any) -> str:
    add, total = jobs.app.tasks["add"], jobs.app.tasks["total"]
    return store(jobs, chord([add.s(1, 2), add.s(3, 4)], total.s()), **options)


def update(jobs: JobRunner, statement: str) -> None:
    with jobs.database.write() as connection:
        connection.exec_driver_sql(statement)


# ---- reading -----------------------------------------------------------------------------------------------


def test_an_empty_list_is_told_on_stderr_and_is_an_empty_list_for_programs(jobs: JobRunner, run: Run) -> None:
    assert count_rows(jobs.database)["job"] == 0
    assert run("list") == Ended(0, "", "No jobs yet; `jobrunner submit` adds one.\n")
    assert run("list", "--json") == Ended(0, "[]\n", "")


def test_list_shows_the_newest_jobs_first(jobs: JobRunner, run: Run) -> None:
    first, second = submitted(jobs, name="first"), submitted(jobs, name="second", key="k")
    found = run("list", "--json").json
    assert [(job["id"], job["name"], job["key"]) for job in found] == [(second, "second", "k"), (first, "first", None)]
    assert found[0]["state"] == "queued"
    assert found[0]["counts"] == {"pending": 3}
    assert found[0]["submitted_at"].endswith("+00:00")
    lines = run("list").out.splitlines()
    assert lines[0].split() == ["JOB", "NAME", "STATE", "TASKS", "SUBMITTED", "TOOK"]
    assert lines[1].split()[:4] == [second, "second", "queued", "0/3"]
    assert [job["name"] for job in run("list", "--json", "--limit", "1").json] == ["second"]


def test_list_leaves_out_what_ended_long_ago_unless_asked_for_all(jobs: JobRunner, run: Run) -> None:
    submitted(jobs, name="old")
    update(jobs, "UPDATE job SET state = 'completed', ended_at = 1")
    submitted(jobs, name="new")
    assert [job["name"] for job in run("list", "--json").json] == ["new"]
    assert [job["name"] for job in run("list", "--all", "--json").json] == ["new", "old"]


def test_list_can_leave_out_what_had_nothing_to_do(jobs: JobRunner, run: Run) -> None:
    submitted(jobs, name="idle")
    update(jobs, "UPDATE job SET state = 'completed', outcome = 'noop', ended_at = submitted_at")
    submitted(jobs, name="busy")
    assert [job["name"] for job in run("list", "--json").json] == ["busy", "idle"]
    assert [job["name"] for job in run("list", "--json", "--no-noop").json] == ["busy"]
    assert run("list").out.splitlines()[2].split()[1:4] == ["idle", "completed", "(noop)"]


def test_list_says_why_a_job_has_failed(jobs: JobRunner, run: Run) -> None:
    submitted(jobs, name="job")
    update(jobs, "UPDATE job SET state = 'failed', reason = 'partial', ended_at = submitted_at")
    assert "failed (partial)" in run("list").out


def test_a_value_of_several_lines_is_one_line_of_the_table(jobs: JobRunner, run: Run) -> None:
    job = submitted(jobs)
    update(jobs, "UPDATE task SET note = '{' || char(10) || '  one' || char(10) || '}' WHERE arrival = 0")
    lines = run("tasks", job).out.splitlines()
    assert len(lines) == 4
    assert "{ one }" in lines[1]


def test_programs_get_null_for_a_number_that_json_does_not_have(jobs: JobRunner, run: Run) -> None:
    job = store(jobs, jobs.app.tasks["add"].s(math.nan, y=-math.inf))
    found = json.loads(run("tasks", job, "--json").out, parse_constant=pytest.fail)
    assert found[0]["parameters"] == {"0": None, "y": None}


def test_show_says_what_a_job_waits_for(jobs: JobRunner, run: Run) -> None:
    job = submitted(jobs, name="nightly", key="k")
    shown = run("show", job)
    assert (shown.code, shown.err) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in shown.out.splitlines())
    assert lines["job"] == job
    assert lines["key"] == "k"
    assert lines["state"] == "queued"
    assert lines["tasks"] == "3: 3 pending"
    assert lines["waits"].startswith("no tracker is running")
    found = run("show", job, "--json").json
    assert (found["id"], found["waits"]) == (job, lines["waits"])


def test_submit_takes_what_failures_mean_and_show_says_so(jobs: JobRunner, run: Run) -> None:
    submit = ("submit", "-A", "shop", "nightly", "region=eu", "--json")
    job = run(*submit, "--threshold", "0.1", "--propagate-failures").json
    assert (job["failure_rule"], job["threshold"], job["propagate"]) == ("threshold", 10, True)
    assert "failures   after 10 percent of its tasks nothing more starts, propagate\n" in run("show", job["id"]).out
    job = run(*submit, "--on-failure", "cancel", "--no-propagate-failures").json
    assert (job["failure_rule"], job["threshold"], job["propagate"]) == ("cancel", None, False)
    assert "failures   after the first nothing more starts, do not propagate\n" in run("show", job["id"]).out
    job = run(*submit).json
    assert (job["failure_rule"], job["threshold"], job["propagate"]) == ("continue", None, None)
    assert count_rows(jobs.database)["job"] == 3
    assert "failures" not in run("show", job["id"]).out


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_threshold_that_is_no_share_is_refused_and_nothing_is_written(
    jobs: JobRunner, run: Run, dry: tuple[str, ...]
) -> None:
    assert run("submit", "-A", "shop", "nightly", "region=eu", "--threshold", "10", *dry) == Ended(
        2,
        "",
        "error: The threshold 10.0 is no share of the tasks in whole percents.\n"
        "\nhint: Give 0.01 to 0.99; on_failure='cancel' starts nothing more after the first failure.\n",
    )
    assert count_rows(jobs.database)["job"] == 0


def test_show_says_that_a_job_fails_by_its_rule_and_what_it_waits_for(jobs: JobRunner, run: Run) -> None:
    job = submitted(jobs, policy=FailurePolicy.of(on_failure="cancel"))
    lead(jobs)
    update(jobs, "UPDATE job SET state = 'active', applied_at = 1, will_fail = 'task', note = 'nothing more starts'")
    update(jobs, "UPDATE job SET held = 1, chore = 1, hold_version = 1, n_pending = 2, n_active = 1")
    update(jobs, "UPDATE task SET state = 'active', delivery = 1 WHERE arrival = 0")
    started = int(Standing.STARTED)
    update(
        jobs,
        "INSERT INTO attempt (task_id, delivery, retries, process, celery_id, standing, worker) "  # noqa: S608
        f"SELECT id, 1, 0, 'p', celery_id, {started}, 'w1@host' FROM task WHERE arrival = 0",
    )
    shown = dict(line.split(maxsplit=1) for line in run("show", job).out.splitlines())
    assert shown["because"] == "nothing more starts"
    assert re.fullmatch(r"it fails \(task\) after this: 1 task still runs: add \[.*\] on w1@host", shown["waits"])
    assert run("show", job, "--json").json["will_fail"] == "task"


def test_a_job_that_may_grow_says_so_and_is_never_done_before_its_end(jobs: JobRunner, run: Run) -> None:
    job = submitted(jobs, name="nightly")
    update(jobs, "UPDATE job SET state = 'under-construction', n_pending = 2, n_completed = 1")
    for _ in ("under construction", "active with a task that discovers"):
        assert run("list").out.splitlines()[1].split()[3] == "1/3+"
        assert "tasks      3+: 2 pending, 1 completed, growing\n" in run("show", job).out
        assert (run("show", job, "--json").json["share"], run("show", job, "--json").json["growing"]) == (1 / 3, True)
        assert tasks_line(jobs.get(job).progress) == "1 of 3+ tasks, growing"
        update(jobs, "UPDATE job SET state = 'active', discovering = 1")
    update(jobs, "UPDATE job SET discovering = 0, n_pending = 0, n_completed = 3")
    progress = jobs.get(job).progress
    assert (progress.done, progress.total, progress.share, progress.growing) == (3, 3, 0.99, False)
    update(jobs, "UPDATE job SET state = 'completed'")
    assert jobs.get(job).progress.share == 1.0


def test_the_share_of_a_job_without_tasks_is_nothing_until_it_has_ended(jobs: JobRunner) -> None:
    job = store(jobs, group([], app=jobs.app))
    assert jobs.get(job).progress.share == 0.0
    update(jobs, "UPDATE job SET state = 'completed'")
    assert jobs.get(job).progress.share == 1.0


def lead(jobs: JobRunner, *, seconds: float = 60, trouble: str | None = None, drained_ago: float | None = None) -> None:
    """Hold the lease, with the event log read to its end so many seconds ago."""
    with jobs.database.write() as connection:
        leases.acquire(connection, "tracker", 60)
        leases.renew(connection, "tracker", seconds, trouble, drained_ago)


def test_show_and_list_say_how_far_behind_the_tracker_is(jobs: JobRunner, run: Run) -> None:
    job = submitted(jobs)
    lead(jobs, drained_ago=75)
    assert re.search(
        r"^tracker    1 min \d+ s behind: what happened since may not show yet$", run("show", job).out, re.MULTILINE
    )
    assert re.fullmatch(r"The tracker is 1 min \d+ s behind: what .* yet\.\n", run("list").err)
    for found in (run("show", job, "--json").json, run("list", "--json").json[0]):
        assert 75 <= found["behind_seconds"] < 100


def test_they_say_nothing_of_a_moment(jobs: JobRunner, run: Run) -> None:
    job = submitted(jobs)
    lead(jobs, drained_ago=-60)  # in a minute, however slow this machine is
    assert "behind" not in run("show", job).out
    assert run("list").err == ""
    assert run("list", "--json").json[0]["behind_seconds"] is None


def test_of_a_job_that_has_ended_they_say_nothing_either(jobs: JobRunner, run: Run) -> None:
    job = submitted(jobs)
    lead(jobs, drained_ago=75)
    update(jobs, "UPDATE job SET state = 'completed', ended_at = submitted_at")
    assert "behind" not in run("show", job).out
    assert run("list").err == ""
    assert run("show", job, "--json").json["behind_seconds"] is None


def test_list_says_why_nothing_moves(jobs: JobRunner, run: Run) -> None:
    submitted(jobs)
    assert run("list").err == "No tracker is running: this is what the last one knew.\n"
    lead(jobs, trouble="the broker cannot be reached (gone)")
    assert run("list").err == "The tracker waits: the broker cannot be reached (gone).\n"
    lead(jobs, seconds=-1, drained_ago=7200)
    assert run("list").err == "No tracker is running: this is what the last one knew 2 h 0 min ago.\n"


def hear(jobs: JobRunner, *last_events: str) -> list[str]:
    """Store a job, and let these be the last events of its first tasks; return the ids of all."""
    ids = [task.id for task in jobs.get(submitted(jobs)).tasks()]
    told = [
        Attempt(task_id=id_, delivery=1, retries=0, celery_id=id_, standing=4, last_event=event)
        for id_, event in zip(ids, last_events, strict=False)
    ]
    with jobs.database.write() as connection:
        tracking.insert_attempts(connection, told)
    return ids


def test_tasks_are_listed_by_their_last_event(jobs: JobRunner, run: Run) -> None:
    first, second, third = hear(jobs, "task-retried", "task-received")
    update(jobs, f"UPDATE task SET state = 'queued', sent_at = 1, delivery = 1 WHERE id = '{third}'")  # noqa: S608
    (job,) = (job["id"] for job in run("list", "--json").json)

    def listed(*options: str) -> list[str]:
        return [task["id"] for task in run("tasks", job, "--json", *options).json]

    assert [task["last_event"] for task in run("tasks", job, "--json").json] == [
        "task-retried", "task-received", "task-sent",
    ]  # fmt: skip
    assert listed("--active") == [second, third]
    assert listed("--inactive") == [first]
    for name in ("retired", "retried", "task-retried"):
        assert listed("--event", name) == [first]
    assert listed("--active", "--event", "retried") == []
    assert len(run("tasks", job, "--event", "sent").out.splitlines()) == 2


def test_a_task_that_has_ended_is_inactive_whatever_was_told_last(jobs: JobRunner, run: Run) -> None:
    first, _, _ = hear(jobs, "task-started")
    update(jobs, f"UPDATE task SET state = 'failed' WHERE id = '{first}'")  # noqa: S608
    (job,) = (job["id"] for job in run("list", "--json").json)
    assert run("tasks", job, "--json", "--active").json == []
    assert [task["id"] for task in run("tasks", job, "--json", "--inactive").json] == [first]


def test_an_event_that_no_task_can_have_had_last_is_a_usage_mistake(jobs: JobRunner, run: Run) -> None:
    ended = run("tasks", submitted(jobs), "--event", "online")
    assert (ended.code, ended.out) == (2, "")
    assert "'online' is none of sent, received, started, succeeded, failed, revoked, retried." in ended.err


def test_tasks_lists_the_plan_in_order(jobs: JobRunner, run: Run) -> None:
    job = submitted(jobs)
    found = run("tasks", job, "--json").json
    assert [(task["name"], task["arrival"], task["sequence"], task["state"]) for task in found] == [
        ("add", 0, 0, "pending"),
        ("add", 1, 0, "pending"),
        ("total", 2, 1, "pending"),
    ]
    assert [task["success"] for task in found] == [None] * 3
    assert [task["parameters"] for task in found] == [{"0": 1, "1": 2}, {"0": 3, "1": 4}, {}]
    assert [(task["progress"], task["created_by"]) for task in found] == [(0.0, None)] * 3
    lines = run("tasks", job).out.splitlines()
    assert lines[0].split() == ["TASK", "SEQ", "NAME", "STATE", "TRIES", "RUNTIME", "NOTE"]
    assert [line.split()[:4] for line in lines[1:]] == [
        [task["id"], str(task["sequence"]), task["name"], task["state"]] for task in found
    ]


def test_the_progress_of_a_task_is_all_once_it_has_ended_well_and_unknown_if_it_has_not(
    jobs: JobRunner, run: Run
) -> None:
    job = submitted(jobs)
    update(jobs, "UPDATE task SET state = 'completed' WHERE arrival = 0")
    update(jobs, "UPDATE task SET state = 'failed' WHERE arrival = 1")
    assert [task["progress"] for task in run("tasks", job, "--json").json] == [1.0, None, 0.0]


# ---- dry runs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("--json",)], ids=str)
def test_a_dry_run_makes_nothing_and_asks_nobody(run: Run, tmp_path: Path, options: tuple[str, ...]) -> None:
    before = sorted(tmp_path.iterdir())  # no database, and a broker that nobody serves
    ended = run("submit", "-A", "shop", "nightly", "region=eu", "--key", "k", "--dry-run", *options)
    assert (ended.code, ended.err) == (0, "")
    assert [path for path in sorted(tmp_path.iterdir()) if path.name != "__pycache__"] == before


def test_a_dry_run_shows_the_tree_levels_and_counts_and_folds_what_is_alike(run: Run) -> None:
    ended = run("submit", "-A", "shop", "nightly", "region=eu", "number=1000", "--dry-run")
    assert ended.out.splitlines() == [
        "nightly: 1,001 tasks in 2 levels, the widest of 1,000",
        "└── chain of 2",
        "    ├── group of 1,000",
        "    │   ├── shop.add  sequence 0",
        "    │   ├── shop.add  sequence 0",
        "    │   ├── shop.add  sequence 0",
        "    │   └── … and 997 more like it",
        "    └── shop.total  sequence 1",
        "levels   1,000, 1",
        "tasks    1,000 shop.add, 1 shop.total",
        "refused  nothing; whether a key or an id is taken, only the database knows",
    ]
    found = run("submit", "-A", "shop", "nightly", "region=eu", "number=1000", "--dry-run", "--barrier", "--json").json
    assert (found["total"], found["levels"], found["barrier"], found["refused"]) == (1001, [1000, 1], True, [])
    assert found["tree"]["children"][0]["children"][-1] == {"kind": "more", "number": 997}


def test_a_dry_run_of_what_would_be_refused_says_so_and_ends_with_2(run: Run) -> None:
    ended = run("submit", "-A", "shop", "nothing", "--dry-run")
    assert ended.code == 2
    assert "refused  canvas: NoneType is no canvas." in ended.out
    (refused,) = run("submit", "-A", "shop", "nothing", "--dry-run", "--json").json["refused"]
    assert (refused["path"], refused["remedy"]) == ("canvas", "Pass a signature, chain, group or chord of tasks.")
    assert run("submit", "-A", "shop", "nightly", "region=eu", "--dry-run", "--wait").code == 2


def test_show_tells_how_a_job_completed_and_what_was_decided_about_it(jobs: JobRunner, run: Run) -> None:
    job = submitted(jobs)
    update(jobs, "UPDATE job SET state = 'completed', outcome = 'noop', started_at = submitted_at")
    with jobs.database.write() as connection:
        lines = [HistoryLine(job_id=job, task_id=None, at=MIDNIGHT, line=f"decided {n}") for n in range(60)]
        tracking.insert_history(connection, lines)
    lines = run("show", job).out.splitlines()
    assert "state      completed (noop)" in lines
    assert [line.rpartition("  ")[2] for line in lines if line.startswith("history")][::49] == [
        "decided 10",
        "decided 59",
    ]
    assert [one["line"] for one in run("show", job, "--json").json["history"]][-1] == "decided 59"


def test_tasks_shows_what_a_task_has_created_below_it(jobs: JobRunner, run: Run) -> None:
    job = submitted(jobs)
    first, second, third = (task["id"] for task in run("tasks", job, "--json").json)
    created = (
        "UPDATE task SET created_by = (SELECT id FROM task AS creator WHERE creator.arrival = {}) WHERE arrival = {}"
    )
    update(jobs, created.format(0, 2))
    assert [task["created_by"] for task in run("tasks", job, "--json").json] == [None, None, first]
    assert [line.split()[:4:2] for line in run("tasks", job).out.splitlines()[1:]] == [
        [first, "add"], [third, "└"], [second, "add"],
    ]  # fmt: skip
    update(jobs, created.format(2, 0))  # in a circle, as odd events may say
    assert {line.split()[0] for line in run("tasks", job).out.splitlines()[1:]} == {first, second, third}


def test_watch_ends_with_the_job_and_its_exit_code(jobs: JobRunner, run: Run) -> None:
    job = submitted(jobs, name="nightly")
    assert run("watch", job, "--timeout", "0").code == 124
    update(jobs, "UPDATE job SET state = 'completed', ended_at = 2, started_at = 1, n_pending = 0, n_completed = 3")
    assert run("watch", job) == Ended(0, "", "nightly completed: 3 of 3 tasks in 1.0 s\n")
    watched = run("watch", job, "--json")
    assert (watched.code, watched.json["state"]) == (0, "completed")
    update(jobs, "UPDATE job SET state = 'failed', reason = 'task', note = 'add failed'")
    failed = run("watch", job)
    assert (failed.code, failed.out) == (1, "")
    assert failed.err == "nightly failed (task): 3 of 3 tasks in 1.0 s; add failed\n"


# ---- which job is meant ------------------------------------------------------------------------------------


def test_a_job_is_found_by_its_key_and_by_the_beginning_or_end_of_its_id(jobs: JobRunner, run: Run) -> None:
    job = submitted(jobs, key="nightly@2026-11-22")
    other = submitted(jobs, key="nightly@2026-11-23")
    for reference in (job, "nightly@2026-11-22", job[-8:]):
        assert run("show", reference, "--json").json["id"] == job
        assert len(run("tasks", reference, "--json").json) == 3
    update(jobs, f"DELETE FROM job WHERE id = '{other}'")  # noqa: S608  ids of our own
    assert run("show", job[:8], "--json").json["id"] == job


@pytest.mark.parametrize("command", ["show", "tasks", "watch"])
def test_a_reference_that_two_jobs_match_is_refused(jobs: JobRunner, run: Run, command: str) -> None:
    first, second = submitted(jobs), submitted(jobs)
    shared = next(first[:end] for end in range(len(first), 0, -1) if second.startswith(first[:end]))
    ended = run(command, shared)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"error: Several jobs match {shared!r}.")
    assert "hint: Give more of the id." in ended.err


@pytest.mark.parametrize("command", ["show", "tasks", "watch"])
@pytest.mark.parametrize("reference", ["nowhere", "%", "_" * 36])
def test_a_job_that_is_not_there_is_told_with_where_it_looked(
    jobs: JobRunner, run: Run, command: str, reference: str
) -> None:
    submitted(jobs)
    ended = run(command, reference)
    assert (ended.code, ended.out) == (3, "")
    assert ended.err.startswith(f"error: There is no job {reference!r} in {jobs.database.where}.")


# ---- the database ------------------------------------------------------------------------------------------


def test_db_upgrade_makes_the_database_and_says_where(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    assert run("db", "upgrade") == Ended(0, f"{path} is at schema {HEAD} now.\n", "")
    assert run("db", "upgrade") == Ended(0, f"{path} is at schema {HEAD} already.\n", "")
    assert run("list").code == 0


def test_a_tracker_knows_its_levels_of_logging(run: Run) -> None:
    ended = run("tracker", "-l", "foo")
    assert ended.code == 2
    assert "'foo' is not one of" in ended.err


def test_a_tracker_says_which_brokers_it_can_work_with(run: Run) -> None:
    run("db", "upgrade")
    ended = run("tracker", "-b", "memory://")
    assert ended.code == 2
    assert "Use Redis, Valkey or RabbitMQ as broker." in ended.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",), ("show", "x"), ("tasks", "x"), ("watch", "x"), ("workers",),
        ("submit", "nightly", "region=eu", "-A", "shop"), ("tracker", "-b", "memory://"),
    ],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
def test_other_commands_make_no_database_and_say_where_they_looked(
    run: Run, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    ended = run(*arguments)
    assert (ended.code, ended.out) == (5, "")
    assert ended.err.startswith(f"error: There is no database at {tmp_path / 'jobs.db'}.\n\nhint: ")
    assert "jobrunner up" in ended.err
    assert not (tmp_path / "jobs.db").exists()


@pytest.mark.parametrize("name", ["JOBRUNNER_PROPAGATE_FAILURES", "CAF_JOB_TRACKING_PROPAGATE_FAILURES"])
def test_a_tracker_that_is_not_told_true_or_false_does_not_start(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run("db", "upgrade")
    monkeypatch.setenv(name, "yes")
    ended = run("tracker")
    assert (ended.code, ended.out) == (2, "")
    assert f"\n  {name}: propagate_failures is neither true nor false.\n" in ended.err


def test_a_tracker_makes_the_usual_database_where_none_is_configured(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOBRUNNER_DATABASE")
    assert run("tracker", "-b", "memory://").code == 2, "the broker is refused after that"
    assert (tmp_path / ".jobrunner" / "jobrunner.db").exists()
    assert run("list").err == "No jobs yet; `jobrunner submit` adds one.\n"


def test_a_tracker_makes_the_tables_of_a_configured_database_that_is_empty(run: Run, tmp_path: Path) -> None:
    (tmp_path / "jobs.db").touch()
    assert run("tracker", "-b", "memory://").code == 2
    assert run("list").code == 0


def test_a_tracker_refuses_a_database_with_an_older_schema_or_something_else_in_it(run: Run, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "jobs.db")
    other.execute("CREATE TABLE theirs (x)")
    ended = run("tracker", "-b", "memory://")
    assert (ended.code, "holds no jobrunner tables" in ended.err) == (5, True)
    other.execute("DROP TABLE theirs")
    run("db", "upgrade")
    other.execute("UPDATE alembic_version SET version_num = '0001'")
    other.commit()
    other.close()
    ended = run("tracker", "-b", "memory://")
    assert (ended.code, "hint: Run `jobrunner db upgrade`." in ended.err) == (5, True)


def test_a_database_url_that_cannot_be_read_is_a_usage_mistake(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBRUNNER_DATABASE", "jobs.db")
    ended = run("list")
    assert (ended.code, ended.out) == (2, "")
    assert "'jobs.db' is no database URL" in ended.err


# ---- settings ----------------------------------------------------------------------------------------------

SECRET = "redis://:secret@127.0.0.1:1/0?password=secret"  # noqa: S105  what nothing may print


def table(printed: str) -> dict[str, list[str]]:
    """Return the lines of tables by their first word."""
    return {words[0]: words[1:] for words in map(str.split, printed.splitlines()) if words}


def test_config_shows_every_setting_with_its_origin(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jobrunner.toml").write_text('broker = "redis://:secret@host/0"\n')
    monkeypatch.setenv("JOBRUNNER_RESULT_BACKEND", "redis://host/1")
    found = run("config", "--json").json
    assert list(found["settings"]) == list(OPTIONS)
    file = str(tmp_path / "jobrunner.toml")
    assert {name: (one["value"], one["origin"]) for name, one in found["settings"].items()} == {
        "home": (str(tmp_path / ".jobrunner"), "default"),
        "database": (f"sqlite:///{tmp_path / 'jobs.db'}", "JOBRUNNER_DATABASE"),
        "broker": ("redis://:***@host/0", file),
        "result_backend": ("redis://host/1", "JOBRUNNER_RESULT_BACKEND"),
        "app": (None, "default"),
        "event_log_limit": ("20000", "default"),
        "keep_logs": ("true", "default"),
        "log_limit": ("1000000", "default"),
        "log_rate": ("1000", "default"),
        "propagate_failures": ("false", "default"),
        "work_root": (None, "default"),
        "work_days": ("7", "default"),
        "work_megabytes": ("10000", "default"),
        "command_output_megabytes": ("10", "default"),
    }
    assert {name: (one["value"], one["origin"]) for name, one in found["used"].items()} == {
        "database": (str(tmp_path / "jobs.db"), "JOBRUNNER_DATABASE"),
        "broker": ("redis://:***@host/0", file),
        "result_backend": ("redis://host/1", "JOBRUNNER_RESULT_BACKEND"),
    }
    settings, used = run("config").out.split("\n\n")
    assert table(settings)["SETTING"] == table(used)["USED"] == ["VALUE", "ORIGIN"]
    assert table(settings)["broker"] == table(used)["broker"] == ["redis://:***@host/0", file]
    assert table(settings)["app"] == ["default"]
    assert table(used)["database"] == [str(tmp_path / "jobs.db"), "JOBRUNNER_DATABASE"]


def test_config_without_anything_set_tells_what_is_used(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOBRUNNER_DATABASE")
    used = run("config", "--json").json["used"]
    assert {one["origin"] for one in used.values()} == {"default"}
    assert used["database"]["value"] == str(tmp_path / ".jobrunner" / "jobrunner.db")
    assert used["broker"]["value"] == used["result_backend"]["value"] == broker.url(tmp_path / ".jobrunner")


def test_config_tells_the_broker_of_an_app_and_that_it_is_the_apps_own(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBRUNNER_BROKER", "redis://elsewhere")
    found = run("config", "-A", "shop", "--json").json
    assert found["settings"]["broker"]["origin"] == "JOBRUNNER_BROKER"
    assert found["used"] == {
        "app": {"value": "shop", "origin": "-A"},
        "database": {"value": str(tmp_path / "jobs.db"), "origin": "JOBRUNNER_DATABASE"},
        "broker": {"value": nobody(tmp_path), "origin": "the app"},
        "result_backend": {"value": nobody(tmp_path), "origin": "the app"},
    }
    monkeypatch.setenv("JOBRUNNER_APP", "shop")
    assert run("config", "--json").json["used"]["app"] == {"value": "shop", "origin": "JOBRUNNER_APP"}


def test_config_tells_what_an_app_without_broker_and_database_of_its_own_takes_from_the_settings(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBRUNNER_BROKER", "redis://:secret@host/0")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "bare.py").write_text(
        "from celery import Celery\nfrom jobrunner import JobRunner\n"
        f"app = Celery('bare', set_as_current=False)\nJobRunner(app, database='sqlite:///{tmp_path}/own.db')\n"
    )
    used = run("config", "-A", "bare", "--json").json["used"]
    assert used["broker"] == {"value": "redis://:***@host/0", "origin": "JOBRUNNER_BROKER"}
    assert used["result_backend"] == {"value": "redis://:***@host/0", "origin": "default"}
    assert used["database"] == {"value": str(tmp_path / "own.db"), "origin": "the app"}
    sys.modules.pop("bare")


@pytest.mark.parametrize("command", [("config",), ("list",), ("workers",), ("submit", "nightly", "-A", "shop")])
def test_mistakes_in_a_file_of_settings_end_with_2_and_a_sentence_each(
    run: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "jobrunner.toml").write_text('brokr = "redis://:secret@host"\nhome = 1\n')
    path = tmp_path / "jobrunner.toml"
    assert run(*command) == Ended(
        2,
        "",
        "error: The settings cannot be used.\n"
        f"  {path}: 'brokr' is no setting; did you mean broker?\n"
        f"  {path}: home is a number, not text.\n"
        f"\nhint: Correct this; the settings are {', '.join(OPTIONS)}.\n",
    )


def test_help_is_there_whatever_the_settings(run: Run, tmp_path: Path) -> None:
    (tmp_path / "jobrunner.toml").write_text("not toml")
    assert run("config", "--help").code == 0


def test_a_password_in_every_setting_is_in_no_output(
    jobs: JobRunner, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submitted(jobs)
    update(jobs, "UPDATE job SET applied_at = 1")
    for name in OPTIONS:
        if name != "database" and not isinstance(getattr(Settings(), name), int):  # which are no text
            monkeypatch.setenv(variable(name), SECRET)
    app = ("-A", "shop")
    everything = [run("config", *app), run("config", "--json", *app), run("list"), run("show", job), run("workers")]
    monkeypatch.delenv("JOBRUNNER_APP")
    everything += [run("config"), run("config", "--json"), run("tracker"), run("tracker", "-b", "foo://a:secret@h")]
    assert [ended.code for ended in everything] == [0] * 7 + [2, 2]
    assert "redis://:***@127.0.0.1:1/0?password=***" in everything[0].out
    assert everything[7].err.startswith("error: The broker of the Celery app 'jobrunner.tracker', 'redis://:***@")
    assert "hint: Write it as redis://:password@host:6379/0" in everything[7].err
    monkeypatch.setenv("JOBRUNNER_DATABASE", "postgresql://anna:secret@127.0.0.1:1/jobs?password=secret")
    everything += [run("list"), run("show", job), run("db", "upgrade"), run("config"), run("tracker")]
    monkeypatch.setenv("JOBRUNNER_DATABASE", "postgres:/anna:secret@host")
    everything += [run("list"), run("config"), run("db", "upgrade")]
    monkeypatch.setenv("JOBRUNNER_APP", "redis://anna:secret@host")
    everything += [run("config"), run("worker"), run("up")]
    assert all(ended.code in {0, 2, 5} for ended in everything)
    for ended in everything:
        assert "secret" not in ended.out + ended.err


# ---- workers -----------------------------------------------------------------------------------------------


def moments_ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def test_workers_shows_who_works_who_was_lost_and_what_they_hold(jobs: JobRunner, run: Run) -> None:
    submitted(jobs)
    update(jobs, "UPDATE task SET state = 'queued', delivery = 1, sent_at = 1")
    first, second, third = (task["id"] for task in read_rows(jobs.database, "task"))
    held = {"delivery": 1, "retries": 0, "worker": "w1@host", "process": "one"}
    with jobs.database.write() as connection:
        for name, source, ago in (("w1@host", "one", 60), ("w2@host", "two", 90), ("w3@host", "three", 90)):
            tracking.save_worker(connection, name, source, 7, online=True, now=moments_ago(ago))
        tracking.note_heard(connection, ["w1@host"], moments_ago(2))
        tracking.lose_worker(connection, "w2@host")
        tracking.save_worker(connection, "w3@host", "three", 7, online=False, now=moments_ago(30))
        tracking.lose_worker(connection, "w3@host")  # it has said goodbye: nobody misses it
        tracking.insert_attempts(
            connection,
            [
                Attempt(task_id=first, celery_id=first, standing=8, started_at=moments_ago(3), **held),
                Attempt(task_id=second, celery_id=second, standing=4, received_at=moments_ago(3), **held),
                Attempt(task_id=third, celery_id=third, standing=1, outcome="lost", **held),
            ],
        )
    found = run("workers", "--json").json
    assert [(one["name"], one["state"], one["pid"], one["active"], one["received"]) for one in found] == [
        ("w1@host", "online", 7, 1, 1),
        ("w2@host", "lost", 7, 0, 0),
        ("w3@host", "offline", 7, 0, 0),
    ]
    heard = [round((datetime.now(UTC) - datetime.fromisoformat(one["seen_at"])).total_seconds(), -1) for one in found]
    assert heard == [0, 90, 30]
    lines = run("workers").out.splitlines()
    assert lines[0].split() == ["WORKER", "STATE", "PID", "SINCE", "HEARD", "ACTIVE", "RECEIVED", "LOST"]
    assert lines[2].split()[:3] == ["w2@host", "lost", "7"]
    assert "1 min 30 s ago" in lines[2]


def test_workers_leaves_out_who_has_been_gone_for_long_unless_asked_for_all(jobs: JobRunner, run: Run) -> None:
    with jobs.database.write() as connection:
        for name, ago in (("long@host", 90_000), ("lately@host", 80_000), ("on@host", 90_000)):
            tracking.save_worker(connection, name, name, 7, online=name == "on@host", now=moments_ago(ago))
    assert [one["name"] for one in run("workers", "--json").json] == ["lately@host", "on@host"]
    assert [one["name"] for one in run("workers", "--json", "--all").json] == ["lately@host", "long@host", "on@host"]


def test_workers_shows_what_they_are_blocked_for_until_somebody_lifts_it(jobs: JobRunner, run: Run) -> None:
    job = submitted(jobs)
    with jobs.database.write() as connection:
        tracking.save_worker(connection, "sick@host", "one", 7, online=True, now=moments_ago(1))
        failures = [
            WorkerFailure(
                job_id=job, name=name, worker="sick@host", failures=3, last_task="x", blocked_at=moments_ago(9)
            )
            for name in ("shop.add", "shop.total")
        ]
        tracking.save_worker_failures(connection, [], failures)
    (found,) = run("workers", "--json").json
    assert [(one["task_name"], one["job_id"]) for one in found["blocked"]] == [("shop.add", job), ("shop.total", job)]
    lines = run("workers").out.splitlines()
    assert lines[3].split() == ["BLOCKED", "FOR", "TASKS", "OF", "JOB", "NAME", "SINCE"]
    assert lines[4].split()[:3] == ["sick@host", "shop.add", job]
    for wrong in (("well@host",), ("sick@host", "--task", "shop.other"), ("sick@host", "--job", "nobody")):
        assert run("workers", "unblock", *wrong).code == 3
    assert run("workers", "unblock", "sick@host", "--task", "shop.add", "--job", job, "--no-wait").code == 0
    assert run("workers", "unblock", "sick@host", "--no-wait", "--reason", "new disk").code == 0
    given = read_rows(jobs.database, "orders")
    assert [(one["kind"], one["job_id"], json.loads(one["arguments"]), one["why"]) for one in given] == [
        ("unblock", job, {"worker": "sick@host", "name": "shop.add"}, None),
        ("unblock", job, {"worker": "sick@host", "name": None}, "new disk"),
    ]


def test_no_workers_are_told_on_stderr_and_are_an_empty_list_for_programs(jobs: JobRunner, run: Run) -> None:
    with jobs.database.write() as connection:
        leases.acquire(connection, "tracker", 60)
    assert run("workers") == Ended(0, "", "No workers yet; `jobrunner worker` starts one.\n")
    assert run("workers", "--json") == Ended(0, "[]\n", "")


def test_workers_says_when_it_may_not_be_how_things_are(jobs: JobRunner, run: Run) -> None:
    ended = run("workers", "--json")
    assert (ended.out, ended.err) == ("[]\n", "No tracker is running: this is what the last one knew.\n")
    with jobs.database.write() as connection:
        leases.acquire(connection, "tracker", 60)
        leases.renew(connection, "tracker", 60, "the broker cannot be reached (gone)")
    assert run("workers", "--json").err == "The tracker waits: the broker cannot be reached (gone).\n"


# ---- submitting --------------------------------------------------------------------------------------------


def test_submit_prints_the_id_and_nothing_else(jobs: JobRunner, run: Run) -> None:
    ended = run("submit", "nightly", "region=eu", "number=3", "-A", "shop", "--key", "today")
    assert (ended.code, ended.err) == (0, "")
    shown = run("show", "today", "--json").json
    assert ended.out == f"{shown['id']}\n"
    assert (shown["name"], shown["total"]) == ("nightly", 4)
    again = run("-A", "shop", "submit", "nightly", "number=3", "region=eu", "--key", "today", "--json")
    assert again.json["id"] == shown["id"]
    other = run("-A", "shop", "submit", "nightly", "number=4", "region=eu", "--key", "today")
    assert (other.code, other.out) == (4, "")
    waited = (
        "submit",
        "nightly",
        "region=eu",
        "number=3",
        "-A",
        "shop",
        "--key",
        "today",
        "--wait",
        "--timeout",
        "0.1",
    )
    late = run(*waited)
    assert (late.code, late.out) == (124, ended.out)
    assert "is still queued after 0.1 s" in late.err
    update(jobs, "UPDATE job SET state = 'failed', ended_at = 2, note = 'shop.add failed'")
    failed = run(*waited, "--quiet")
    assert (failed.code, failed.out) == (1, "")
    assert "shop.add failed" in failed.err
    update(jobs, "UPDATE job SET state = 'completed'")
    assert run(*waited, "--quiet") == Ended(0, "", "")
    assert run("-A", "shop", "submit", "nightly", "number=3", "region=eu", "--key", "today", "--quiet").out == ""


def test_a_job_name_that_does_not_exist_is_not_found(jobs: JobRunner, run: Run) -> None:
    ended = run("submit", "hourly", "-A", "shop")
    assert (ended.code, ended.out) == (3, "")
    assert "There is no job named 'hourly' in the app 'shop'." in ended.err
    assert "nightly, nothing" in ended.err
    assert count_rows(jobs.database)["job"] == 0


def test_bad_parameters_are_told_all_at_once(jobs: JobRunner, run: Run) -> None:
    ended = run("submit", "nightly", "number=many", "verbose=perhaps", "color=red", "-A", "shop")
    assert (ended.code, ended.out) == (2, "")
    for part in ("color is unknown", "region is missing", "number='many'", "verbose='perhaps'"):
        assert part in ended.err
    assert "hint: It takes region: str, number: int = 2, verbose: bool = False." in ended.err
    assert count_rows(jobs.database)["job"] == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("submit", "nightly", "region", "-A", "shop"), "The parameter 'region' has no value."),
        (("submit", "nightly", "region=a", "region=b", "-A", "shop"), "The parameter 'region' is given twice."),
        (("submit", "nothing", "-A", "shop"), "canvas: NoneType is no canvas."),
        (("submit", "nightly", "region=eu", "-A", "shop", "--key", ""), "The key has 0 characters."),
        (("submit", "nightly", "region=eu", "-A", "shop", "--timeout", "1"), "--timeout goes with --wait."),
        (("submit", "nightly", "-A", "shop", "--wait", "--timeout", "soon"), "'soon' is not a valid float"),
        (("submit", "nightly", "-A", "nowhere.at_all"), "The Celery app 'nowhere.at_all' cannot be loaded"),
        (("submit", "nightly", "-A", "shop:missing"), "The Celery app 'shop:missing' cannot be loaded"),
        (("submit", "nightly", "-A", "shop:url"), "'shop:url' is no Celery app but of type str."),
        (("submit",), "Missing argument 'NAME'"),
        (("show",), "Missing argument 'JOB'"),
        (("list", "--limit", "0"), "0 is not in the range"),
        (("list", "--what"), "No such option"),
        (("dance",), "No such command 'dance'"),
        (("worker",), "A worker needs your code."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_in_what_was_typed_ends_with_2_and_a_sentence(
    jobs: JobRunner, run: Run, arguments: tuple[str, ...], problem: str
) -> None:
    ended = run(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert problem in ended.err
    assert "Traceback" not in ended.err
    assert count_rows(jobs.database)["job"] == 0


def test_a_broken_module_of_the_users_is_no_unknown_module(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import no_such_library\n")
    ended = run("submit", "nightly", "-A", "broken")
    assert ended.code == 2
    assert "no_such_library" in ended.err


# ---- start -------------------------------------------------------------------------------------------------


def test_no_command_starts_with_importing_what_only_a_few_need() -> None:
    program = "import sys, jobrunner.cli; print({'alembic', 'redis', 'tracker', 'workers', 'flower'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ---- help --------------------------------------------------------------------------------------------------


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        yield (*path, name), command


@pytest.mark.parametrize(
    ("path", "command"), list(commands(cli.cli)), ids=lambda one: " ".join(one) if isinstance(one, tuple) else ""
)
def test_help_tells_every_option_of_a_command(run: Run, path: tuple[str, ...], command: click.Command) -> None:
    ended = run(*path, "--help")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == run(*path, "-h").out
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            assert all(option in ended.out for option in parameter.opts)
    assert command.short_help
    assert command.help


def test_help_of_the_whole_tells_every_command(run: Run) -> None:
    ended = run("--help")
    assert ended.code == 0
    for name, command in cli.cli.commands.items():
        assert any(line.split()[:1] == [name] and str(command.short_help) in line for line in ended.out.splitlines()), (
            name
        )
    assert "jobrunner" in run("--version").out


def test_the_module_runs_as_the_command_does(tmp_path: Path) -> None:
    environment = {"JOBRUNNER_DATABASE": f"sqlite:///{tmp_path / 'jobs.db'}"}
    command = [sys.executable, "-m", "jobrunner.cli", "list"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (5, "")
    assert ended.stderr.startswith("error: There is no database at")


@pytest.mark.parametrize("reference", ["", "\udcff", "a" * 100_000])
def test_what_names_nothing_is_no_job_also_if_there_is_only_one(jobs: JobRunner, run: Run, reference: str) -> None:
    submitted(jobs)
    for command in ("show", "tasks", "watch", "events", "logs"):
        assert run(command, reference).code == 3
    for order in ("cancel", "pause", "requeue", "skip"):
        refused = run(order, reference, "--no-wait")
        assert (refused.code, ": see `jobrunner " in refused.out) == (3, True)
    assert count_rows(jobs.database)["orders"] == 0


def test_a_time_out_that_is_no_number_is_refused(jobs: JobRunner, run: Run) -> None:
    job = submitted(jobs)
    for command in (("watch", job), ("pause", job), ("submit", "-A", "shop", "nightly", "region=eu", "--wait")):
        ended = run(*command, "--timeout", "nan")
        assert (ended.code, "'nan' is no number of seconds" in ended.err) == (2, True)
    assert (count_rows(jobs.database)["orders"], count_rows(jobs.database)["job"]) == (0, 1)


@pytest.mark.parametrize("options", [["list", "--limit"], ["show", "x", "--limit"], ["show", "x", "--offset"]])
@pytest.mark.usefixtures("jobs")
def test_a_number_that_no_database_counts_to_is_refused(run: Run, options: list[str]) -> None:
    assert run(*options, str(10**20)).code == 2


def test_the_check_of_a_database_tells_programs(jobs: JobRunner, run: Run) -> None:
    assert run("db", "check", "--json").json == {"faults": [], "rejected_events": 0, "foreign_reports": 0}
    submitted(jobs)
    update(jobs, "UPDATE job SET n_pending = 7")
    found = run("db", "check", "--json")
    assert (found.code, len(found.json["faults"]), found.json["rejected_events"]) == (1, 1, None)


def test_a_share_that_is_none_is_refused(run: Run) -> None:
    assert run("progress", "nan").code == 2
