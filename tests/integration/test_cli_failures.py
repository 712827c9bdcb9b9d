"""What people see of attempts and failures, on the command line; what happened was told to a tracker in memory."""

import re
from dataclasses import replace

import pytest
from celery import group

from jobrunner import JobRunner
from jobrunner.cli.bar import share_with
from jobrunner.cli.failures import FailureWatch
from jobrunner.cli.output import stamp
from jobrunner.store.attempts import running_reports
from tests.apps import store, take_turn
from tests.builders import MIDNIGHT, event, moment
from tests.commands import Run
from tracker.recover import give_up_worker
from tracker.turn import Turn


@pytest.fixture
def job(jobs: JobRunner) -> str:
    """A job of three tasks: the first has failed twice and then for good, the second runs, of the third nobody told."""
    add = jobs.app.tasks["add"]
    job_id = store(jobs, group(add.si(1, 2) for _ in range(3)), name="nightly")
    take_turn(jobs)
    first, second, _ = jobs.get(job_id).tasks()
    for retries, (end, worker) in enumerate([("retried", "w1@host"), ("retried", "w2@host"), ("failed", "w1@host")]):
        fields = {"exception": f"KeyError({retries})", "traceback": "Traceback"}
        start = event("started", uuid=first.id, retries=retries, worker=worker, at=10 * retries)
        take_turn(
            jobs, start, event(end, uuid=first.id, retries=retries, worker=worker, at=10 * retries + 1.5, fields=fields)
        )
    report = {"progress": 0.997, "message": "nearly"}
    take_turn(jobs, event("started", uuid=second.id, at=1), event("progress", uuid=second.id, at=2, fields=report))
    foreign = {"uuid": second.id, "worker": "w3@host", "source": "another"}
    take_turn(jobs, event("failed", at=3, fields={"exception": "ValueError('not mine')"}, **foreign))
    return job_id


def test_each_attempt_is_shown_with_its_worker(job: str, run: Run) -> None:
    head, *lines = run("tasks", job, "--attempts").out.splitlines()
    assert head.split() == ["TASK", "NAME", "TRY", "WORKER", "STARTED", "TOOK", "OUTCOME", "NOTE"]
    assert [re.sub(r" +", " ", line)[37:].strip() for line in lines] == [
        f"add 1 w1@host {stamp(moment(0))} 1.500 s retried KeyError(0)",
        f"add 2 w2@host {stamp(moment(10))} 1.500 s retried KeyError(1)",
        f"add 3 w1@host {stamp(moment(20))} 1.500 s failed KeyError(2)",
        f"add 1 w1@host {stamp(moment(1))} started 99%: nearly",
        "add 1 w3@host foreign ValueError('not mine')",
    ]


def test_programs_get_the_attempts_of_each_task(job: str, run: Run) -> None:
    first, second, third = run("tasks", job, "--attempts", "--json").json
    assert [(one["retries"], one["worker"], one["outcome"]) for one in first["attempts"]] == [
        (0, "w1@host", "retried"), (1, "w2@host", "retried"), (2, "w1@host", "failed"),
    ]  # fmt: skip
    assert [(one["progress"], one["foreign"]) for one in second["attempts"]] == [(0.997, False), (None, True)]
    assert (second["progress"], second["said"], third["attempts"]) == (0.997, "nearly", [])
    assert "attempts" not in run("tasks", job, "--json").json[0]


def test_a_running_task_is_shown_with_how_far_it_is(job: str, run: Run) -> None:
    assert run("tasks", job, "--state", "active").out.splitlines()[1].split()[-2:] == ["99%:", "nearly"]


def test_what_an_attempt_had_reported_that_is_lost_is_past(jobs: JobRunner, job: str, run: Run) -> None:
    with jobs.database.write() as connection:
        connection.exec_driver_sql("UPDATE task SET state = 'ready' WHERE state = 'active'")
    assert run("tasks", job, "--state", "ready", "--json").json[0]["progress"] == 0.0
    assert "99%" not in run("tasks", job).out


def test_show_tells_of_a_running_task_how_far_it_is(jobs: JobRunner, job: str, run: Run) -> None:
    second = jobs.get(job).tasks()[1]
    assert f"running    add [{second.id}] 99%: nearly\n" in run("show", job).out
    (one,) = run("show", job, "--json").json["running"]
    assert (one["task_id"], one["progress"], one["said"]) == (second.id, 0.997, "nearly")
    take_turn(jobs, event("succeeded", uuid=second.id, at=9))
    assert "running    " not in run("show", job).out


def test_the_bar_counts_what_running_tasks_have_reported_and_is_full_when_the_job_has_ended(
    jobs: JobRunner, job: str
) -> None:
    with jobs.database.read() as connection:
        reports = running_reports(connection, job)
    progress = jobs.get(job).progress
    assert (progress.share, share_with(progress, ())) == (1 / 3, 1 / 3)
    assert share_with(progress, reports) == pytest.approx((1 + 0.997) / 3)
    assert share_with(replace(progress, share=0.9), reports) == 0.99
    assert share_with(replace(progress, share=1.0), reports) == 1.0


def test_tasks_are_listed_by_state(job: str, run: Run) -> None:
    def states(*options: str) -> list[str]:
        return [one["state"] for one in run("tasks", job, "--json", *options).json]

    assert states() == ["failed", "active", "queued"]
    assert states("--state", "failed") == ["failed"]
    assert states("--state", "queued", "--state", "failed") == ["failed", "queued"]
    assert states("--state", "soft-failed") == []
    assert len(run("tasks", job, "--attempts", "--state", "failed").out.splitlines()) == 1 + 3
    refused = run("tasks", job, "--state", "lost")
    assert (refused.code, "'soft-failed'" in refused.err) == (2, True)


def test_show_groups_what_attempts_have_failed_with(job: str, run: Run) -> None:
    assert run("show", job, "--errors").out.splitlines()[-2:][0].split() == [
        "ERROR", "ATTEMPTS", "TASKS", "FIRST", "LAST", "WORKERS",
    ]  # fmt: skip
    last = run("show", job, "--errors").out.splitlines()[-1].split()
    assert (last[:3], last[-2:]) == (["KeyError(#)", "3", "1"], ["w1@host,", "w2@host"])
    (one,) = run("show", job, "--errors", "--json").json["errors"]
    assert (one["error"], one["attempts"], one["workers"]) == ("KeyError(#)", 3, ["w1@host", "w2@host"])
    assert (one["first_at"], one["last_at"]) == ("2026-11-22T00:00:01.500000+00:00", "2026-11-22T00:00:21.500000+00:00")
    assert "errors" not in run("show", job, "--json").json


def test_show_says_if_nothing_has_failed(jobs: JobRunner, run: Run) -> None:
    job = store(jobs, jobs.app.tasks["add"].si(1, 2))
    assert run("show", job, "--errors").err == "No attempt of it has failed.\n"
    assert run("show", job, "--errors", "--json").json["errors"] == []


def test_watch_says_how_much_had_failed_before(job: str, run: Run) -> None:
    watched = run("watch", job, "--timeout", "0")
    assert watched.err.startswith(f"Failed attempts until now: 3; `jobrunner show --errors {job}` groups them.\n")
    assert "KeyError" not in watched.err


@pytest.mark.parametrize(("retries", "word"), [(2, "soft-failed"), (3, "failed")])
def test_watch_says_whether_a_task_that_was_lost_with_its_worker_is_tried_again(
    jobs: JobRunner, retries: int, word: str
) -> None:
    job = store(jobs, jobs.app.tasks["add"].si(1, 2))
    take_turn(jobs)
    (one,) = jobs.get(job).tasks()
    take_turn(jobs, event("started", uuid=one.id, retries=retries))
    watch = FailureWatch(jobs.database, job)
    with jobs.database.write() as connection:
        turn = Turn(connection, MIDNIGHT)
        give_up_worker(turn, "w1@host", living_source=None, redelivers=True)
        turn.move_on()
        turn.settle()
    (line,) = watch.news(last=True)
    assert line[10:].startswith(f"{word}  add [{one.id}], try {retries + 1}, w1@host: ")
