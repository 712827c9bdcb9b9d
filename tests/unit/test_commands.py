"""Command tasks, called in this process: what runs, where, with which environment, and what comes of it."""

import errno
import fcntl
import hashlib
import json
import os
import signal
import stat
from collections.abc import Iterator
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from celery import Task

from jobrunner import CommandResult, CommandTask, JobRunner
from jobrunner.commands import NAME, Command
from jobrunner.commands.progress import say
from jobrunner.commands.specification import OPTIONS
from jobrunner.embedded.guardian import alive
from jobrunner.errors import (
    CommandFailedError,
    InvalidParametersError,
    NoVerdictError,
    OutsideJobError,
    TemporaryFailureError,
    WorkDirectoryError,
)
from tests.apps import new_runner
from tests.waiting import until
from workers.work_directory import Attempt, work_directory


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobRunner]:
    monkeypatch.setenv("JOBRUNNER_HOME", str(tmp_path / "home"))
    runner = new_runner(tmp_path)
    runner.prepare_tasks()
    yield runner
    runner.database.close()


def run(runner: JobRunner, argv: Any, **options: Any) -> CommandResult:
    return CommandResult.read(runner.app.tasks[NAME](**runner.command(argv, **options).kwargs))


def shell(runner: JobRunner, line: str, **options: Any) -> CommandResult:
    return run(runner, line, **options, shell=True)  # noqa: S604  on purpose


def registered(runner: JobRunner, task: CommandTask) -> Any:
    runner.app.register_task(task)
    runner.prepare_tasks()
    return task


# ---- what comes of it --------------------------------------------------------------------------------------------


def test_a_command_that_ends_with_0_returns_a_record_of_what_came_of_it(runner: JobRunner) -> None:
    record = shell(
        runner, "echo made; echo a warning >&2; printf abc > a.txt; mkdir b; touch b/c.txt", outputs=["**/*.txt"]
    )
    assert (record.exit_code, record.stdout, record.stderr) == (0, "made\n", "a warning\n")
    assert (record.stdout_bytes, record.stderr_bytes) == (5, 10)
    assert 0 < record.seconds < 30
    assert [(one.path, one.size) for one in record.outputs] == [("a.txt", 3), ("b/c.txt", 0)]
    assert record.outputs[0].sha256 == hashlib.sha256(b"abc").hexdigest()
    assert (Path(record.work_directory) / ".command/stdout").read_text() == "made\n"
    assert (Path(record.work_directory) / ".command/stderr").read_text() == "a warning\n"


def test_the_value_is_plain_json_and_reads_back_as_the_record(runner: JobRunner) -> None:
    value = runner.app.tasks[NAME](["touch", "a"], outputs=["a"])
    assert json.loads(json.dumps(value)) == value
    assert CommandResult.read(value).as_value() == value


@pytest.mark.parametrize("code", [1, 2, 127, 255])
def test_any_other_exit_code_is_a_failure_that_says_what_the_command_has_said(runner: JobRunner, code: int) -> None:
    with pytest.raises(CommandFailedError, match=rf"exit code {code}\.(?s:.*)no luck"):
        shell(runner, f"echo no luck >&2; exit {code}")


def test_exit_code_111_is_a_temporary_failure(runner: JobRunner) -> None:
    with pytest.raises(TemporaryFailureError, match="exit code 111"):
        shell(runner, "exit 111")


def test_which_exit_codes_mean_what_is_the_tasks_to_say(runner: JobRunner) -> None:
    codes: dict[str, Any] = {"success": [0, 3], "temporary": [4, -9]}
    assert shell(runner, "exit 3", **codes).exit_code == 3
    for ended in ("exit 4", "kill -9 $$"):
        with pytest.raises(TemporaryFailureError):
            shell(runner, ended, **codes)
    with pytest.raises(CommandFailedError, match="exit code 111"):
        shell(runner, "exit 111", **codes)


def test_a_command_that_a_signal_has_ended_has_failed_and_the_error_names_it(runner: JobRunner) -> None:
    with pytest.raises(CommandFailedError, match="was ended by SIGSEGV"):
        shell(runner, "kill -SEGV $$")


def test_an_executable_that_is_missing_is_a_clear_error_with_a_remedy(runner: JobRunner) -> None:
    with pytest.raises(CommandFailedError, match=r"'not-there' cannot be run .* No such file.* Install it there"):
        run(runner, ["not-there", "1"])


def test_what_is_not_executable_is_a_clear_error(runner: JobRunner, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("#!/bin/sh\n")
    with pytest.raises(CommandFailedError, match="Permission denied"):
        run(runner, [str(tmp_path / "text")])


def test_what_cannot_be_run_just_now_is_a_temporary_failure(runner: JobRunner, tmp_path: Path) -> None:
    with (tmp_path / "script").open("w") as script:  # it is being installed
        script.write("#!/bin/sh\n")
        script.flush()
        (tmp_path / "script").chmod(0o700)
        with pytest.raises(TemporaryFailureError, match="cannot be run on this machine: Text file busy"):
            run(runner, [str(tmp_path / "script")])


def test_a_minder_that_is_killed_leaves_no_verdict_and_no_command(runner: JobRunner, tmp_path: Path) -> None:
    with pytest.raises(NoVerdictError, match="without saying how"):
        shell(runner, f"echo $$ > {tmp_path}/pid; kill -9 $PPID; sleep 1000")
    until(lambda: not alive(int((tmp_path / "pid").read_text())), what="the command to end")


# ---- outputs -----------------------------------------------------------------------------------------------------


def test_a_pattern_may_match_nothing_and_a_file_that_is_named_must_be_there(runner: JobRunner) -> None:
    assert run(runner, ["true"], outputs=["*.png"]).outputs == ()
    for line in ("true", "mkdir a.png", "ln -s a.png a.png"):
        with pytest.raises(CommandFailedError, match=r"made no file 'a\.png'"):
            shell(runner, line, outputs=["a.png"])


@pytest.mark.parametrize(
    ("pattern", "found"), [("**", ["a", "b/c", "b/d/e"]), ("b/**", ["b/c", "b/d/e"]), ("**/d/*", ["b/d/e"])]
)
def test_two_stars_stand_for_any_folders(runner: JobRunner, pattern: str, found: list[str]) -> None:
    line = "mkdir -p b/d; touch a b/c b/d/e"
    assert [one.path for one in shell(runner, line, outputs=[pattern]).outputs] == found


def test_two_stars_within_a_name_are_refused_before_anything_runs(runner: JobRunner) -> None:
    with pytest.raises(InvalidParametersError, match="within a name"):
        runner.command(["true"], outputs=["a**"])


def test_what_matches_and_is_no_file_is_left_out(runner: JobRunner) -> None:
    line = "mkdir a.d; mkfifo a.pipe; ln -s a.loop a.loop; ln -s nothing a.nothing; touch a.file"
    assert [one.path for one in shell(runner, line, outputs=["a.*"]).outputs] == ["a.file"]


def test_what_is_ours_in_a_work_directory_is_no_output(runner: JobRunner) -> None:
    assert [one.path for one in run(runner, ["touch", "a"], outputs=["*", "**/*", ".*/*"]).outputs] == ["a"]


@pytest.mark.parametrize("pattern", ["/etc/passwd", "../a", "a/../../b", "", "a\0b", 3])
def test_an_output_that_would_escape_the_work_directory_is_refused_before_anything_runs(
    runner: JobRunner, pattern: Any
) -> None:
    with pytest.raises(InvalidParametersError, match="no path inside of the work directory"):
        runner.command(["true"], outputs=[pattern])


@pytest.mark.parametrize("link", ["ln -s /etc/passwd a.txt", "ln -s /etc sub; ln -s sub/passwd a.txt"])
def test_an_output_that_leads_out_by_a_link_fails_the_task(runner: JobRunner, link: str) -> None:
    with pytest.raises(CommandFailedError, match=r"'a\.txt' leads out of the work directory, to '/etc/passwd'"):
        shell(runner, link, outputs=["*.txt"])


def test_files_behind_a_link_to_a_folder_outside_are_refused_as_well(runner: JobRunner) -> None:
    with pytest.raises(CommandFailedError, match="leads out of the work directory"):
        shell(runner, "ln -s /etc sub", outputs=["sub/passwd"])


# ---- the work directory ------------------------------------------------------------------------------------------


def test_a_command_runs_in_a_directory_of_its_own_that_nobody_else_may_read(runner: JobRunner, tmp_path: Path) -> None:
    first, second = (shell(runner, "pwd; ls -A") for _ in range(2))
    for record in (first, second):
        assert record.stdout == f"{record.work_directory}\n.command\n"
        path = Path(record.work_directory)
        made = [path, *(one for one in path.parents if one.is_relative_to(tmp_path / "home/work"))]
        assert [stat.S_IMODE(one.stat().st_mode) for one in made] == [0o700] * 5
    assert first.work_directory != second.work_directory


def test_its_folders_are_the_date_the_job_the_task_and_the_attempt(tmp_path: Path) -> None:
    with work_directory(tmp_path / "work", Attempt("job", "task", "2.1")) as directory:
        assert directory.path.parts[-3:] == ("job", "task", "2.1")
        assert directory.path.parents[3] == tmp_path / "work"


@pytest.mark.parametrize("odd", ["../../x", "..", ".", "a/b", "x" * 300, "/etc", ".hidden", "a\nb"])
def test_an_id_that_would_lead_elsewhere_is_not_used_as_a_name(tmp_path: Path, odd: str) -> None:
    with work_directory(tmp_path / "work", Attempt(odd, odd, "1.0")) as directory:
        assert directory.path.is_relative_to(tmp_path / "work")
        assert len(directory.path.relative_to(tmp_path / "work").parts) == 4
        assert odd not in directory.path.parts


def test_a_link_among_its_folders_is_refused(tmp_path: Path) -> None:
    with work_directory(tmp_path / "work", Attempt("job", "task", "1.0")) as directory:
        day = directory.path.parents[2]
    (day / "other").symlink_to(tmp_path)
    with (
        pytest.raises(WorkDirectoryError, match="leads out of it"),
        work_directory(tmp_path / "work", Attempt("other", "task", "1.0")),
    ):
        pass


def test_a_work_root_that_cannot_be_written_is_a_clear_error_with_a_remedy(runner: JobRunner, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/work").write_text("no folder")
    with pytest.raises(WorkDirectoryError, match=r"No work directory can be made in .*home/work.*JOBRUNNER_WORK_ROOT"):
        run(runner, ["true"])


def test_a_work_directory_that_cannot_be_made_whole_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk that is full, which does not go well with workers that have ever fewer descriptors."""

    def is_full(_path: Path, _mode: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "mkfifo", is_full)
    with (
        pytest.raises(WorkDirectoryError, match="No space left on device"),
        work_directory(tmp_path, Attempt("job", "task", "1.0")),
    ):
        pass
    (lock,) = tmp_path.glob("*/job/task/1.0/.command/lock")
    with lock.open() as again:
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)


# ---- the environment ---------------------------------------------------------------------------------------------


def test_the_environment_passed_on_is_a_stated_list(runner: JobRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    monkeypatch.setenv("LC_NUMERIC", "C")
    record = run(runner, ["env"], env={"WIDTH": "640"})
    told = dict(line.split("=", 1) for line in record.stdout.splitlines())
    allowed = {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ"}
    given = {"WIDTH", "PWD", "TMPDIR"} | {f"JOBRUNNER_{name}" for name in ("JOB", "TASK", "ATTEMPT", "PROGRESS")}
    assert {name for name in told if not name.startswith("LC_")} <= allowed | given
    assert given <= told.keys()
    assert (told["PATH"], told["LC_NUMERIC"], told["WIDTH"]) == (os.environ["PATH"], "C", "640")
    assert Path(told["TMPDIR"]).is_relative_to(record.work_directory)


def test_a_command_hears_the_signals_that_its_worker_ignores(runner: JobRunner) -> None:
    with pytest.raises(CommandFailedError, match="SIGINT"):
        run(runner, ["python3", "-c", "import os, signal; signal.signal(2, signal.SIG_DFL); os.kill(os.getpid(), 2)"])
    status = run(runner, ["grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"]).stdout
    masks = [int(line.split()[1], 16) for line in status.splitlines()]
    assert [[one.name for one in signal.Signals if mask & 1 << one - 1] for mask in masks] == [[], []]


# ---- what is run -------------------------------------------------------------------------------------------------


def test_there_is_no_shell_unless_it_is_asked_for(runner: JobRunner) -> None:
    assert run(runner, ["echo", "$HOME", "; exit 3", "*"]).stdout == "$HOME ; exit 3 *\n"
    assert shell(runner, "echo $((1 + 2))").stdout == "3\n"
    for options in ({"argv": "echo 1"}, {"argv": ["echo", "1"], "shell": True}):
        with pytest.raises(InvalidParametersError, match="needs shell=True"):
            runner.command(**options)


@pytest.mark.parametrize(
    "odd",
    [
        {"argv": []},
        {"argv": [""]},
        {"argv": iter(["true"])},
        {"argv": {"true"}},
        {"success": 3},
        {"argv": ["echo", 1]},
        {"argv": ["echo", "a\0b"]},
        {"argv": ["echo", "\ud800"]},
        {"env": {"A": 1}},
        {"env": {"A=B": "c"}},
        {"env": {"": "c"}},
        {"timeout": -1},
        {"timeout": "60"},
        {"timeout": float("nan")},
        {"grace": float("inf")},
        {"grace": None},
        {"outputs": "*.png"},
        {"success": ["0"]},
    ],
)
def test_what_is_no_command_is_refused_where_it_is_made(runner: JobRunner, odd: dict[str, Any]) -> None:
    with pytest.raises(InvalidParametersError):
        runner.command(**{"argv": ["true"], **odd})


def test_a_command_is_a_signature_that_takes_nothing_from_the_task_before(runner: JobRunner) -> None:
    made = runner.command(["convert", "a.png"], env={"A": "b"}, timeout=60, outputs=("*.png",))
    assert (made.task, made.immutable, made.args) == (NAME, True, ())
    assert made.kwargs == {"argv": ["convert", "a.png"], "environment": {"A": "b"}, "timeout": 60, "outputs": ["*.png"]}


class Greet(CommandTask):
    name = "greet"
    outputs = ("greeting",)

    def argv(self, whom: str, *, loudly: bool = False) -> list[str]:
        return ["sh", "-c", 'printf "$GREETING $1" > greeting', "greet", whom.upper() if loudly else whom]

    def environment(self, *_: Any, **__: Any) -> dict[str, str]:
        return {"GREETING": "hello"}

    def result(self, record: CommandResult) -> str:
        return (Path(record.work_directory) / record.outputs[0].path).read_text()


def test_a_class_says_what_to_run_for_its_arguments_and_what_its_value_is(runner: JobRunner) -> None:
    greet = registered(runner, Greet())
    assert greet("you") == "hello you"
    assert greet("you", loudly=True) == "hello YOU"


# ---- progress ----------------------------------------------------------------------------------------------------


def test_progress_outside_of_a_command_task_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "unread")
    (tmp_path / "file").write_text("")
    for environment, problem in (
        ({}, "JOBRUNNER_PROGRESS is not set"),
        ({"JOBRUNNER_PROGRESS": str(tmp_path / "gone")}, "it has ended"),
        ({"JOBRUNNER_PROGRESS": str(tmp_path / "unread")}, "it has ended"),
        ({"JOBRUNNER_PROGRESS": str(tmp_path / "file")}, "names no pipe"),
    ):
        with pytest.raises(OutsideJobError, match=rf"{problem}.*Call it in what a command task runs"):
            say(0.5, "half", environment)
    assert (tmp_path / "file").read_text() == ""


def test_what_a_script_says_is_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reading = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    say(0.25, "a\nquarter " + "x" * 5_000, {"JOBRUNNER_PROGRESS": str(tmp_path / "pipe")})
    line = os.read(reading, 10_000).decode()
    os.close(reading)
    assert line.startswith("0.25 a quarter xxx")
    assert (line.count("\n"), len(line)) == (1, len("0.25 ") + 1_000 + 1)


def test_an_option_of_a_command_is_the_same_everywhere_it_is_named() -> None:
    """In `Command`, in `CommandTask` and in `jobs.command`: each with the same default."""
    usual = {one.name: one.default for one in fields(Command) if one.name in OPTIONS}
    assert {name: vars(CommandTask)[name] for name in OPTIONS} == usual
    given = signature(JobRunner.command).parameters
    assert {name: given[name].default for name in given.keys() - {"self", "argv", "env"}} == usual
    ours = {name for name, value in vars(CommandTask).items() if not (name.startswith("_") or callable(value))}
    of_tasks = {"abstract", "passed_on", *(name for name in ours if hasattr(Task, name) or "retry" in name)}
    assert ours - of_tasks == set(OPTIONS)
