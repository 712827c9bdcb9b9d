"""What people see of partial and skipped tasks, on the command line; what happened was told to a tracker in memory."""

from dataclasses import asdict

import pytest
from celery import group

from jobrunner import ItemError, JobRunner, Partial, Skip
from jobrunner.cli.failures import FailureWatch
from tests.apps import store, take_turn
from tests.builders import event
from tests.commands import Run
from workers.statements import errors_of, in_parts, statement_of


def end(jobs: JobRunner, task_id: str, returned: object) -> None:
    """Tell that a task has ended, and what it has stated."""
    statement = statement_of(returned)
    assert statement is not None
    told = [{"errors": part, "first": first} for first, part in in_parts(errors_of(returned))]
    stated = [event("stated", uuid=task_id, fields=one) for one in (*told, {"statement": asdict(statement)})]
    take_turn(jobs, event("started", uuid=task_id), *stated, event("succeeded", uuid=task_id))


def errors(number: int) -> list[ItemError]:
    return [ItemError(item=f"/data/{one}", message=f"no {one}", details={"line": one}) for one in range(number)]


@pytest.fixture
def job(jobs: JobRunner) -> str:
    """A job of three tasks: one has failed 5 of 13 items, one another item, one was skipped."""
    add = jobs.app.tasks["add"]
    job_id = store(jobs, group(add.si(1, 2) for _ in range(3)), name="nightly")
    take_turn(jobs)
    first, second, third = jobs.get(job_id).tasks()
    end(jobs, first.id, Partial(None, errors=errors(5), processed=8))
    end(jobs, second.id, Partial(None, errors=[ItemError(item=7, message="odd", type="ValueError")], skipped=1))
    end(jobs, third.id, Skip("no paths"))
    return job_id


def test_errors_of_items_are_shown_in_groups_and_one_by_one(job: str, jobs: JobRunner, run: Run) -> None:
    first, second, _ = jobs.get(job).tasks()
    told = run("show", "--errors", job)
    lines = [line.split() for line in told.out.splitlines()]
    assert [line for line in lines if line[:1] in (["no"], ["ValueError:"])] == [
        ["no", "#", "5", "1"],
        ["ValueError:", "odd", "1", "1"],
    ]
    assert lines[-7:] == [
        ["ITEM", "ERROR", "TASK"],
        *([f"/data/{one}", "no", str(one), first.id] for one in range(5)),
        ["7", "ValueError:", "odd", second.id],
    ]
    assert "more" not in told.err


def test_they_are_shown_a_page_at_a_time(job: str, run: Run) -> None:
    page = run("show", "--errors", job, "--limit", "2", "--offset", "3")
    assert [line.split()[0] for line in page.out.splitlines()[-2:]] == ["/data/3", "/data/4"]
    assert page.err == "… and 1 more: --offset 5\n"
    last = run("show", "--errors", job, "--limit", "1", "--offset", "5")
    assert last.out.splitlines()[-1].split()[0] == "7"
    assert last.err == "… and 1 more that differ\n"
    beyond = run("show", "--errors", job, "--offset", "6")
    assert ("ITEM " in beyond.out, beyond.err) == (False, "There are 6 item errors, none of them from --offset 6 on.\n")


def test_programs_get_them_with_details(job: str, jobs: JobRunner, run: Run) -> None:
    first, second, third = jobs.get(job).tasks()
    told = run("show", "--errors", job, "--limit", "1", "--json").json
    assert told["items"] == {"processed": 8, "skipped": 1, "failed": 6, "aborted": 0}
    assert told["item_errors"] == {
        "total": 6,
        "groups": [{"error": "no #", "items": 5, "tasks": 1, "names": ["add"]}],
        "more_groups": 1,
        "offset": 0,
        "errors": [
            {
                "task_id": first.id,
                "name": "add",
                "number": 0,
                "item": "/data/0",
                "label": "/data/0",
                "type": None,
                "message": "no 0",
                "details": {"line": 0},
            }
        ],
    }
    assert "item_errors" not in run("show", job, "--json").json
    assert [one["items"] and one["items"]["failed"] for one in run("tasks", job, "--json").json] == [5, 1, None]
    assert (second.items and second.items.skipped, third.items) == (1, None)


def test_a_job_shows_how_many_items_were_processed_and_why_it_has_failed(job: str, jobs: JobRunner, run: Run) -> None:
    lines = run("show", job).out.splitlines()
    assert "state      failed (partial)" in lines
    assert "items      processed 8, skipped 1, failed 6, aborted 0" in lines
    first = jobs.get(job).tasks()[0].id
    named = f"add [{first}] partial: 5 failed of 13 items, the first: /data/0: no 0"
    assert f"because    2 tasks are partial, 6 items failed; the first task is {named}" in lines
    notes = [line.split(maxsplit=5)[-1] for line in run("tasks", job, "--state", "skipped").out.splitlines()[1:]]
    assert notes[0].endswith("no paths")


def test_a_job_of_which_no_item_failed_says_so(jobs: JobRunner, run: Run) -> None:
    job = store(jobs, jobs.app.tasks["add"].si(1, 2))
    take_turn(jobs)
    assert run("show", "--errors", job).err == "No attempt of it has failed.\n"
    assert "items " not in run("show", job).out


def test_watch_tells_of_tasks_that_are_skipped_or_end_partial(jobs: JobRunner) -> None:
    add = jobs.app.tasks["add"]
    job = store(jobs, group(add.si(1, 2) for _ in range(3)))
    take_turn(jobs)
    first, second, third = jobs.get(job).tasks()
    end(jobs, first.id, Skip("before"))
    watch = FailureWatch(jobs.database, job)
    end(jobs, second.id, Skip("no paths"))
    end(jobs, third.id, Partial(None, errors=errors(1)))
    assert sorted(line[10:] for line in watch.news(last=True)) == [
        f"partial  add [{third.id}]: 1 failed of 1 item, the first: /data/0: no 0",
        f"skipped  add [{second.id}]: no paths",
    ]
    assert watch.news(last=True) == []


def test_watch_names_some_of_many_tasks_that_are_skipped_and_counts_the_others(jobs: JobRunner) -> None:
    job = store(jobs, group(jobs.app.tasks["add"].si(1, 2) for _ in range(22)))
    take_turn(jobs)
    watch = FailureWatch(jobs.database, job)
    with jobs.database.write() as connection:
        connection.exec_driver_sql("UPDATE task SET state = 'skipped', note = 'no paths', ended_at = queued_at")
    *named, more = watch.news(last=True)
    assert len(named) == 20
    assert more == "… and 2 more were skipped or ended partial: see `jobrunner tasks --state`"
    assert watch.news(last=True) == []


@pytest.mark.usefixtures("jobs")
def test_a_job_may_be_told_to_tolerate_partial_tasks(run: Run) -> None:
    job = run("submit", "-A", "shop", "nightly", "region=eu", "--on-partial", "tolerate").out.strip()
    assert "failures   partial tasks are tolerated" in run("show", job).out.splitlines()
    assert run("show", job, "--json").json["partial_rule"] == "tolerate"
    assert run("submit", "-A", "shop", "nightly", "region=eu", "--on-partial", "never").code == 2
