"""Jobs that wait for others, on the command line: how they are submitted, and what is said of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from jobrunner import JobRunner
from jobrunner.store import leases
from jobrunner.store.schema import job
from tests.apps import SHOP, count_rows, new_runner, nobody, store
from tests.builders import MIDNIGHT
from tests.commands import Run


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobRunner]:
    """Return a runner with a user's module beside it, on a database that a tracker leads."""
    (tmp_path / "shop.py").write_text(SHOP.format(broker=nobody(tmp_path)))
    runner = new_runner(tmp_path)
    with runner.database.write() as connection:
        leases.acquire(connection, "tracker", 60)
    yield runner
    runner.database.close()


def applied(jobs: JobRunner, state: str | None = None, job_id: str | None = None) -> None:
    """Let a tracker have taken up all jobs, and have moved all of them, or one."""
    with jobs.database.write() as connection:
        connection.execute(update(job).values(applied_at=MIDNIGHT))
        if state is not None:
            connection.execute(update(job).where((job.c.id == job_id) | (job_id is None)).values(state=state))


def submit(run: Run, *options: str) -> str:
    ended = run("submit", "-A", "shop", "nightly", "region=eu", *options)
    assert ended.code == 0, ended.err
    return ended.out.strip()


@pytest.mark.usefixtures("jobs")
def test_a_job_is_submitted_after_others_by_id_or_key(run: Run) -> None:
    first = submit(run, "--key", "first")
    second = submit(run)
    third = submit(run, "--after", "first", "--after", second)
    found = run("show", third, "--json").json
    assert (found["state"], found["unmet"]) == ("waiting", 2)
    after = [{name: one[name] for name in ("wanted", "id", "state", "met_at")} for one in found["after"]]
    assert sorted(after, key=lambda one: one["id"]) == [
        {"wanted": "first", "id": first, "state": "queued", "met_at": None},
        {"wanted": second, "id": second, "state": "queued", "met_at": None},
    ]


@pytest.mark.usefixtures("jobs")
def test_a_job_after_one_that_does_not_exist_yet_is_told_of_on_stderr(run: Run) -> None:
    ended = run("submit", "-A", "shop", "nightly", "region=eu", "--after", "tomorrow")
    assert (ended.code, len(ended.out.split())) == (0, 1)
    assert ended.err == "It waits for tomorrow: no job has that id or key yet.\n"
    assert run("submit", "-A", "shop", "nightly", "region=eu", "--after", "tomorrow", "--quiet").err == ""


def test_show_and_list_say_in_one_sentence_what_a_job_waits_for(jobs: JobRunner, run: Run) -> None:
    first = submit(run, "--key", "first")
    second = submit(run, "--after", "first")
    applied(jobs)
    waits = f"for job nightly [{first}], which is queued"
    assert f"waits      {waits}\n" in run("show", second).out
    assert waits in run("list").out
    assert [one["waits"] for one in run("list", "--json").json] == [waits, None]
    applied(jobs, "failed", first)
    assert (
        f"waits      for job nightly [{first}], which has failed: `jobrunner requeue {first}`\n"
        in run("show", second).out
    )


def test_who_waits_for_a_paused_job_is_told_how_that_goes_on(jobs: JobRunner, run: Run) -> None:
    first = submit(run, "--key", "first")
    second = submit(run, "--after", "first")
    applied(jobs)
    applied(jobs, "paused", first)
    waits = f"waits      for job nightly [{first}], which is paused: `jobrunner resume {first}`\n"
    assert waits in run("show", second).out


def test_of_many_that_it_waits_for_those_are_named_first_that_do_not_complete(jobs: JobRunner, run: Run) -> None:
    first = submit(run, "--key", "x")
    last = submit(run, *(f"--after={name}" for name in ("x", "a", "b", "c")))
    applied(jobs, "canceled", first)
    assert run("show", last, "--json").json["waits"] == (
        f"for 4 jobs: job nightly [{first}], which was canceled: `jobrunner requeue {first}`; a job with the key or id"
        " a, which has not been submitted yet: `jobrunner submit NAME --key a`; a job with the key or id b, which has"
        " not been submitted yet: `jobrunner submit NAME --key b`; …"
    )


def test_what_is_met_is_not_waited_for(jobs: JobRunner, run: Run) -> None:
    submit(run, "--key", "first")
    applied(jobs, "completed")
    last = submit(run, "--after", "first")
    applied(jobs)
    found = run("show", last, "--json").json
    assert (found["state"], found["waits"], len(found["after"])) == ("queued", None, 1)
    assert found["after"][0]["met_at"] is not None


def test_a_job_that_has_failed_is_waited_for_only_with_the_option(jobs: JobRunner, run: Run) -> None:
    first = submit(run, "--key", "first")
    applied(jobs, "failed")
    refused = run("submit", "-A", "shop", "nightly", "region=eu", "--after", "first")
    assert (refused.code, refused.out) == (4, "")
    assert f"job nightly [{first}], which has failed" in refused.err
    submit(run, "--after", "first", "--wait-for-failed")
    assert count_rows(jobs.database)["job"] == 2


@pytest.mark.parametrize(("options", "code"), [(["--key", "a", "--after", "a"], 2), (["--after", ""], 2)])
def test_a_mistake_in_what_is_waited_for_is_told(jobs: JobRunner, run: Run, options: list[str], code: int) -> None:
    for more in ([], ["--dry-run"]):
        ended = run("submit", "-A", "shop", "nightly", "region=eu", *options, *more)
        assert ended.code == code
        assert "wait" in ended.err
    assert count_rows(jobs.database)["job"] == 0


def test_a_circle_is_refused_with_4(jobs: JobRunner, run: Run) -> None:
    store(jobs, jobs.app.tasks["add"].s(1, 2), key="a", after=["b"])
    ended = run("submit", "-A", "shop", "nightly", "region=eu", "--key", "b", "--after", "a")
    assert ended.code == 4
    assert "would wait for itself" in ended.err
