"""The guardian: a process that ends the children of a supervisor that died without ending them.

It is run by its path, knows the standard library only and must not import jobrunner, so that it is there in 20 ms. Its
standard input is a pipe that only the supervisor can write to; the pipe's end is therefore the supervisor's death,
whatever killed it. One line each:

    + 4711 1    process group 4711 was started, in phase 1
    - 4711      it has ended

Lines may also be its arguments: a guardian that takes another one's place knows them from its first moment.

Phase 1 is ended before phase 0, where the broker is: workers give back their messages while it still answers. Worst
case 4 + 1 + 2 + 1 = 8 s.
"""

import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

#: Seconds from SIGTERM to SIGKILL of each phase, in the order in which phases are ended.
GRACE_SECONDS = {1: 4.0, 0: 2.0}
#: Seconds that the kernel gets for ending what was killed.
DEATH_SECONDS = 1.0
_POLL_SECONDS = 0.02
_PROC = Path("/proc")


def follow(lines: Iterable[str]) -> dict[int, int]:
    """Read `lines` to their end, and return the phase of each process group that is left, in order of start."""
    groups: dict[int, int] = {}
    for line in lines:
        match line.split():
            case ["+", group, phase]:
                groups[int(group)] = int(phase)
            case ["-", group]:
                groups.pop(int(group), None)
    return groups


def end(groups: Mapping[int, int]) -> None:
    """End process groups, given with their phases: phase by phase, the last started first."""
    for phase, grace in GRACE_SECONDS.items():
        _end_together([group for group in reversed(list(groups)) if groups[group] == phase], grace)


def _end_together(groups: list[int], grace: float) -> None:
    for group in groups:
        terminate(group)
    _wait_while(alive, groups, grace)
    for group in groups:
        kill(group)
    wait_until_gone(groups)


def terminate(group: int) -> None:
    """Ask the group's leader to end, and nobody else.

    A Celery worker's pool processes die of SIGTERM in the middle of a task, and the worker then reports that task as
    failed instead of finishing it or giving it back.
    """
    try:
        os.kill(group, signal.SIGTERM)
    except (ProcessLookupError, PermissionError):
        return


def kill(group: int) -> None:
    """Kill whatever is left of a group."""
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def wait_until_gone(groups: Iterable[int]) -> None:
    """Wait for the end of groups that were killed, for `DEATH_SECONDS` at most."""
    _wait_while(group_alive, groups, DEATH_SECONDS)


def _wait_while(living: Callable[[int], bool], numbers: Iterable[int], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    remaining = [number for number in numbers if living(number)]
    while remaining and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        remaining = [number for number in remaining if living(number)]


def alive(pid: int) -> bool:
    """Tell whether a process runs. A zombie does not: in a container, pid 1 may never reap it."""
    if found := status(pid):
        return found[0] not in "ZX"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def group_alive(group: int) -> bool:
    """Tell whether any process of a group runs."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):  # macOS says the latter of a group in which all have ended
        return False
    if not _PROC.joinpath("self/stat").exists():
        return True
    members = (status(int(entry)) for entry in os.listdir(_PROC) if entry.isdecimal())  # noqa: PTH208  names suffice
    return any(member and int(member[2]) == group and member[0] not in "ZX" for member in members)


def status(pid: int) -> list[str]:
    """Return Linux's `/proc/<pid>/stat` from the state on: 0 is the state, 2 the group, 19 the start. Elsewhere []."""
    try:
        text = _PROC.joinpath(str(pid), "stat").read_text(errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()  # the name before it may hold spaces and parentheses


def main() -> None:
    """Wait for the supervisor's end, then end what it has left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    end(follow(itertools.chain(sys.argv[1:], sys.stdin)))


if __name__ == "__main__":
    main()
