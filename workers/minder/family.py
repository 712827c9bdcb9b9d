"""A command with all that it has started: starts it, knows who is left, and signals them."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Final

_PROC: Final = "/proc"
#: Numbers of Linux's `prctl`.
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class Family:
    """The command and all that has come of it."""

    def __init__(self, specification: dict[str, Any], stdout: int, stderr: int) -> None:
        """Start the command.

        Raises:
            OSError: it cannot be started.
        """
        self.code: int | None = None
        self._adopts = sys.platform == "linux" and _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self._first = subprocess.Popen(  # noqa: S603  what the task says
            specification["argv"],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            cwd=specification["cwd"],
            env=specification["environment"],
            start_new_session=True,
            preexec_fn=_die_with_the_minder if self._adopts else None,  # noqa: PLW1509  there is one thread here
        )
        self.group = self._first.pid

    def is_gone(self) -> bool:
        """Whether all have ended; notes how the first of them has."""
        try:
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self.group:
                    self.code = self._first.returncode = os.waitstatus_to_exitcode(found[1])
        except ChildProcessError:  # nobody is left, nor comes to us any more
            return self._adopts or not _signal_group(self.group, 0)
        return False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of them: to the group at once, then to those who have left it."""
        _signal_group(self.group, number)
        for pid, group in self._others():
            if group != self.group or number is signal.SIGKILL:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)

    def _others(self) -> Iterator[tuple[int, int]]:
        """Yield the process and the group of all that descend from us, where that can be known."""
        if not self._adopts:
            return
        parents: dict[int, list[tuple[int, int]]] = {}
        for entry in os.listdir(_PROC):
            if entry.isdecimal() and (told := _stat(entry)):
                parents.setdefault(int(told[1]), []).append((int(entry), int(told[2])))
        ours = [os.getpid()]
        while ours:
            found = parents.pop(ours.pop(), [])
            ours += [pid for pid, _ in found]
            yield from found


def _die_with_the_minder() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, argument: int) -> bool:
    return ctypes.CDLL(None).prctl(option, argument, 0, 0, 0) == 0


def _signal_group(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _stat(pid: str) -> list[str]:
    """Return the state, the parent and the group of a process that runs, and more; of any other nothing."""
    try:
        with open(f"{_PROC}/{pid}/stat", errors="replace") as file:
            told = file.read().rpartition(")")[2].split()  # the name before it may hold spaces and parentheses
    except OSError:
        return []
    return told if told[0] not in "ZX" else []
