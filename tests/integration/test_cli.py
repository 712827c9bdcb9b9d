"""The command line: data on stdout, messages on stderr, and the exit code that says what came of it."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from celery import chord

from jobrunner import JobRunner, cli
from tests.apps import SHOP, count_rows, new_runner, nobody, store


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    code: object
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ended]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run commands in a folder with a user's module `shop` and, once there is one, the database `jobs.db`."""
    (tmp_path / "shop.py").write_text(SHOP.format(broker=nobody(tmp_path)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("APP", "BROKER", "RESULT_BACKEND", "HOME"):
        monkeypatch.delenv(f"JOBRUNNER_{name}", raising=False)
    monkeypatch.setenv("JOBRUNNER_DATABASE", f"sqlite:///{tmp_path / 'jobs.db'}")

    def command(*arguments: str) -> Ended:
        monkeypatch.setattr("sys.argv", ["jobrunner", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return Ended(ended.value.code, out, err)

    yield command
    sys.modules.pop("shop", None)


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobRunner]:
    runner = new_runner(tmp_path)
    yield runner
    runner.database.close()


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


def test_tasks_lists_the_plan_in_order(jobs: JobRunner, run: Run) -> None:
    job = submitted(jobs)
    found = run("tasks", job, "--json").json
    assert [(task["name"], task["arrival"], task["sequence"], task["state"]) for task in found] == [
        ("add", 0, 0, "pending"),
        ("add", 1, 0, "pending"),
        ("total", 2, 1, "pending"),
    ]
    assert [task["success"] for task in found] == [None] * 3
    lines = run("tasks", job).out.splitlines()
    assert lines[0].split() == ["TASK", "SEQ", "NAME", "STATE", "TRIES", "RUNTIME", "NOTE"]
    assert [line.split()[:4] for line in lines[1:]] == [
        [task["id"], str(task["sequence"]), task["name"], task["state"]] for task in found
    ]


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
    assert failed.err == "nightly failed: 3 of 3 tasks in 1.0 s; add failed\n"


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
    assert run("db", "upgrade") == Ended(0, f"{path} is at schema 0001 now.\n", "")
    assert run("db", "upgrade") == Ended(0, f"{path} is at schema 0001 already.\n", "")
    assert run("list").code == 0


def test_a_tracker_says_which_brokers_it_can_work_with(run: Run) -> None:
    run("db", "upgrade")
    ended = run("tracker", "-b", "memory://")
    assert ended.code == 2
    assert "Use Redis or Valkey as broker." in ended.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",), ("show", "x"), ("tasks", "x"), ("watch", "x"), ("submit", "nightly", "region=eu", "-A", "shop"),
        ("tracker", "-b", "memory://"),
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


def test_a_database_url_that_cannot_be_read_is_a_usage_mistake(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBRUNNER_DATABASE", "jobs.db")
    ended = run("list")
    assert (ended.code, ended.out) == (2, "")
    assert "'jobs.db' is no database URL" in ended.err


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
