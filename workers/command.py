"""Runs the command of a command task: in its work directory, under its minder, until it has ended (H2).

The minder (`workers.minder`) is a process between the body and the command. The body hears it, and is where orders and
time limits arrive: whatever ends the body ends the command.
"""

import errno
import json
import logging
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from jobrunner.commands import Command, CommandResult
from jobrunner.commands.environment import ATTEMPT, JOB, PROGRESS, TASK, environment_of
from jobrunner.commands.outputs import collect
from jobrunner.errors import CommandFailedError, InvalidParametersError, NoVerdictError, TemporaryFailureError
from jobrunner.reports import report_of
from workers.canceled import grace_of
from workers.logs import keep
from workers.minder import PROGRAM
from workers.pruning import prune_now_and_then
from workers.verdict import retry_without_verdict
from workers.work_directory import Attempt, WorkDirectory, attempt_of, work_directory

logger = logging.getLogger(__name__)

#: Seconds between two looks whether a task was canceled, where nobody can signal its body.
_LOOK: Final = 0.5
#: Seconds that the minder gets beyond the grace of its command.
_MINDER_GRACE: Final = 10.0
#: Characters of what a command has written that its error has.
_SAID: Final = 500

#: Why a command may not start that would another time: it is no fault of its own.
_PASSING: Final = frozenset(
    {
        errno.EAGAIN,  # too many processes
        errno.ENOMEM,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.ETXTBSY,  # it is being installed
    }
)

_CHUNK: Final = 65_536
_MEGABYTE: Final = 1_000_000

_Told = Mapping[str, Any]


def run_command(task: Any, command: Command) -> CommandResult:
    """Run a command for a task, which is a `CommandTask`, and return what came of it.

    Raises:
        CommandFailedError: it has failed.
        Retry: it has failed, and is worth another attempt.
        TemporaryFailureError: the same, and its retries are used up.
        WorkDirectoryError: no work directory could be made for it.
    """
    settings, attempt = task.app.jobrunner.settings, attempt_of(task.request)
    prune_now_and_then(settings.work_folder, days=settings.work_days, limit=settings.work_megabytes * _MEGABYTE)
    with work_directory(settings.work_folder, attempt) as directory:
        told = _follow(task, command, _Minded(_specification(task, command, directory, attempt), directory.lock))
        _judge(task, command, directory, told)
        return CommandResult(
            exit_code=told["code"],
            seconds=round(told["seconds"], 3),
            stdout=_clean(told["stdout"]["tail"]),
            stderr=_clean(told["stderr"]["tail"]),
            stdout_bytes=told["stdout"]["bytes"],
            stderr_bytes=told["stderr"]["bytes"],
            outputs=collect(directory.path, command.outputs),
            work_directory=str(directory.path),
            worker=task.request.hostname,
        )


def _specification(task: Any, command: Command, directory: WorkDirectory, attempt: Attempt) -> _Told:
    ours = {name: str(directory.ours(name)) for name in ("stdout", "stderr", "progress", "tmp")}
    told = {
        JOB: attempt.job,
        TASK: attempt.task,
        ATTEMPT: attempt.name,
        PROGRESS: ours["progress"],
        "TMPDIR": ours["tmp"],
        "PWD": str(directory.path),
    }
    return {
        "argv": command.words,
        "environment": environment_of(os.environ, passed_on=task.passed_on, given=command.environment, told=told),
        "cwd": str(directory.path),
        "timeout": command.timeout,
        "grace": command.grace,
        "stdout": ours["stdout"],
        "stderr": ours["stderr"],
        "progress": ours["progress"],
        "limit": task.app.jobrunner.settings.command_output_megabytes * _MEGABYTE,
    }


# ---- while it runs ---------------------------------------------------------------------------------------------


class _Minded:
    """A command that runs, as its body sees it: through the minder."""

    def __init__(self, specification: _Told, lock: int) -> None:
        self._group: int | None = None
        self._popen = subprocess.Popen(  # noqa: S603  our own file
            [sys.executable, "-I", "-S", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            pass_fds=[lock],
            start_new_session=True,
        )
        self._input, self._output = (pipe.fileno() for pipe in (self._popen.stdin, self._popen.stdout) if pipe)
        self._say(json.dumps(specification))

    def told(self) -> Iterator[_Told]:
        """Yield what the minder tells, to its end; nothing of it now and then while it is silent."""
        begun = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            while True:
                if not selector.select(_LOOK):
                    yield {}
                    continue
                if not (data := os.read(self._output, _CHUNK)):
                    return
                *lines, begun = (begun + data).split(b"\n")
                for line in lines:
                    told = json.loads(line)
                    self._group = told.get("group", self._group)
                    yield told

    def end(self, grace: float) -> None:
        """Give the command so many seconds to end."""
        self._say(f"end {grace}")

    def wait(self) -> None:
        """Wait until the minder has told the end of the command."""
        while os.read(self._output, _CHUNK):
            pass

    def close(self) -> None:
        """Wait for the minder's end; whoever survives a minder that was killed is killed here."""
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                pipe.close()
        try:
            code = self._popen.wait(_MINDER_GRACE)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            code = self._popen.wait()
        if code and self._group is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._group, signal.SIGKILL)

    def _say(self, line: str) -> None:
        data = memoryview(f"{line}\n".encode())
        with suppress(BrokenPipeError):  # it has ended, and has told so, or never will
            while data:
                data = data[os.write(self._input, data) :]


def _follow(task: Any, command: Command, minded: _Minded) -> _Told:
    """Hear what the minder tells until the command has ended, and return its last word."""
    last: _Told = {}
    is_ending = False
    try:
        for told in minded.told():
            last = told or last
            _report(task, told)
            if not is_ending and (grace := grace_of(task.app, task.request)) is not None:
                minded.end(min(grace, command.grace))
                is_ending = True
    except BaseException:  # an order, a time limit, the end of the worker: the command ends before its body does
        minded.end(command.grace)
        minded.wait()
        raise
    finally:
        minded.close()
    return last


def _report(task: Any, told: _Told) -> None:
    """Pass on what concerns others: how far it is, and what goes to the task's log."""
    reports = getattr(task, "jobrunner_reports", None)
    if "progress" in told and reports is not None:
        with suppress(InvalidParametersError):  # a share above 1
            reports.add(report_of(told["progress"], None, told["message"]))
    if told.get("left_out"):
        keep(f"[{told['left_out']:,} bytes of output are left out here; the files of the command have more]")
    if "said" in told:
        keep(_clean(told["said"]))


# ---- what came of it -------------------------------------------------------------------------------------------


def _judge(task: Any, command: Command, directory: WorkDirectory, told: _Told) -> None:
    """Raise what an end means that is no success."""
    worker = task.request.hostname or "this machine"
    if "errno" in told:
        msg = f"{command.name!r} cannot be run on {worker}: {told['problem']}."
        if told["errno"] in _PASSING:
            remedy = "Another worker may have room, or this one may later."
            raise retry_without_verdict(task, TemporaryFailureError(msg, remedy))
        remedy = "Install it there, make it executable, or name its path; the worker's PATH is passed on."
        raise CommandFailedError(msg, remedy)
    if "code" not in told:
        msg = f"The minder of {command.name!r} has ended on {worker} without saying how the command has."
        raise retry_without_verdict(task, NoVerdictError(msg))
    code, by = told["code"], told["ended_by"]
    for name in ("stdout", "stderr"):
        if told[name]["problem"]:
            logger.warning("%s of %r could not be kept: %s.", name, command.name, told[name]["problem"])
    where = f" Its output is in {directory.path} on {worker}.{_said(told)}"
    if by == "timeout":
        msg = f"{command.name!r} had not ended after {command.timeout:g} s, and was ended."
        raise CommandFailedError(msg, "Give it a longer timeout, or less to do." + where)
    if by != "itself":
        msg = f"{command.name!r} was ended by an order."
        raise CommandFailedError(msg, where.strip())
    if code in command.success:
        return
    msg = f"{command.name!r} {_how(code)}."
    if code in command.temporary:
        raise retry_without_verdict(task, TemporaryFailureError(msg, where.strip()))
    raise CommandFailedError(msg, where.strip())


def _how(code: int | None) -> str:
    if code is None:
        return "could not be killed: the system does not let go of it"
    if code >= 0:
        return f"has ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was ended by {name}"


def _said(told: _Told) -> str:
    """Return the end of what it has written, for an error: what it calls its errors, else anything."""
    said = _clean(told["stderr"]["tail"]).strip() or _clean(told["stdout"]["tail"]).strip()
    return f" It said last:\n{said[-_SAID:]}" if said else ""


def _clean(text: str) -> str:
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
