"""One supervisor per folder: its lock, and the pid file that names its processes.

The lock is a `flock`, which nobody has to clean up after a kill. Its descriptor is inherited by the guardian, so it is
free only when both a supervisor and the one who cleans up after it are gone.
"""

import contextlib
import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jobrunner.embedded import broker, guardian
from jobrunner.errors import RefusedError

_logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.05
#: A guardian needs up to 8 s for the children of a killed supervisor.
_LOCK_SECONDS = 15.0
#: A supervisor that was killed a moment ago may still seem to run.
_DOUBT_SECONDS = 0.5


@contextlib.contextmanager
def hold_lock(home: Path) -> Iterator[int]:
    """Hold the folder's lock, yielding its descriptor, after ending what a killed predecessor has left.

    Raises:
        RefusedError: `jobrunner up` runs here already.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (home / "up.lock").open("ab") as file:
        _take(file.fileno(), home)
        guardian.end(_strays(read_pid_file(home)))
        broker.shut_down_stray(home)
        yield file.fileno()


def _take(lock: int, home: Path) -> None:
    """Take the lock: at once, or when the guardian of a supervisor that was killed lets go of it."""
    began = time.monotonic()
    while not _locked(lock):
        waited = time.monotonic() - began
        pid = read_pid_file(home).get("pid")
        if pid and guardian.alive(pid) and waited > _DOUBT_SECONDS:
            msg = f"jobrunner up already runs here (pid {pid}, folder {home})."
            raise RefusedError(msg, "Stop it, or set JOBRUNNER_HOME to another folder.")
        if waited > _LOCK_SECONDS:
            msg = f"Another process still holds {home / 'up.lock'}, but not the one that {pid_file(home).name} names."
            raise RefusedError(msg, "End it (`fuser` names it), or set JOBRUNNER_HOME to another folder.")
        time.sleep(_POLL_SECONDS)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _strays(record: Mapping[str, Any]) -> dict[int, int]:
    """Return the recorded groups that still run and are surely ours (pids come again), with their phases."""
    births = record.get("births", {})
    return {
        pid: 0 if name == broker.NAME else 1
        for name, pid in record.get("children", {}).items()
        if births.get(name) and births[name] == _birth(pid)
    }


def _birth(pid: int) -> str:
    """Return what tells a process from others with its pid: boot and time of start. Without Linux's /proc, ""."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    found = guardian.status(pid)
    return f"{boot} {found[19]}" if found else ""


def pid_file(home: Path) -> Path:
    """Return where a folder's supervisor names its processes."""
    return home / "up.json"


def read_pid_file(home: Path) -> dict[str, Any]:
    """Return what the pid file says: `pid`, and by name `children` (process groups) and `births`; {} without a file."""
    try:
        return dict(json.loads(pid_file(home).read_bytes()))
    except (OSError, ValueError):
        return {}


def write_pid_file(home: Path, children: Mapping[str, int]) -> None:
    """Name our process and the process groups of our children, all at once or not at all."""
    births = {name: _birth(pid) for name, pid in children.items()}
    text = json.dumps({"pid": os.getpid(), "children": children, "births": births})
    draft = home / "up.json.new"
    try:
        draft.write_text(text)
        draft.replace(pid_file(home))
    except OSError:  # a full disk is no reason to stop children that run
        _logger.exception("cannot write %s", pid_file(home), extra={"action": "pid_file_not_written"})
