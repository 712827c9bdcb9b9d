"""The work directory of one attempt of a command: made below the worker's root, for this user alone, and locked.

`root/2026-11-23/JOB/TASK/ATTEMPT` is where the command runs; in it `.command` is ours: `stdout`, `stderr`, the `tmp` of
its temporary files, the pipe `progress`, and the `lock` that says whether it is in use. The minder has the lock too, so
it lasts as long as anybody may write here.
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple

from jobrunner.commands.outputs import OURS
from jobrunner.errors import WorkDirectoryError
from jobrunner.wire import HEADER, TaskHeader

#: Ids are the user's to choose: what could lead elsewhere, or is too long for a file system, is not used as a name.
_SAFE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
#: How often it is tried to make a folder while the pruning of another process deletes the empty one around it.
_TRIES: Final = 5
_MODE: Final = 0o700


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkDirectory:
    """A folder in which one command runs; `lock` is a descriptor of its lock."""

    path: Path
    lock: int

    def ours(self, name: str) -> Path:
        """Return a path of ours in it."""
        return self.path / OURS / name


class Attempt(NamedTuple):
    """Whose directory it is: ids as they are, also such as are no names of folders. `name` is DELIVERY.RETRIES."""

    job: str
    task: str
    name: str


def attempt_of(request: Any) -> Attempt:
    """Return whose attempt a request of Celery is; a task that is called outside of workers has no ids."""
    header: TaskHeader | None = getattr(request, HEADER, None)
    task, delivery = (header["task"], header["delivery"]) if header else (request.id, 1)
    return Attempt(request.root_id or "none", task or "none", f"{delivery}.{request.retries or 0}")


@contextmanager
def work_directory(root: Path, attempt: Attempt) -> Iterator[WorkDirectory]:
    """Make a work directory, and hold its lock until the end of the block; its files stay.

    Raises:
        WorkDirectoryError: it cannot be made.
    """
    with ExitStack() as stack:
        try:
            path = _make(root, [datetime.now(UTC).date().isoformat(), *map(_safe, attempt)])
            lock = os.open(path / OURS / "lock", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            stack.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX)
            (path / OURS / "tmp").mkdir(mode=_MODE)
            os.mkfifo(path / OURS / "progress", 0o600)
        except OSError as error:
            msg = f"No work directory can be made in {root}: {error.strerror} ({error.filename})."
            remedy = "Let the worker write there, make room, or set JOBRUNNER_WORK_ROOT to another folder."
            raise WorkDirectoryError(msg, remedy) from error
        stack.callback(os.utime, lock)  # until when it was in use
        yield WorkDirectory(path=path, lock=lock)


def _make(root: Path, parts: Sequence[str]) -> Path:
    for last in (False,) * (_TRIES - 1) + (True,):
        try:
            return _make_now(root, parts)
        except FileNotFoundError:
            if last:
                raise
    raise AssertionError


def _make_now(root: Path, parts: Sequence[str]) -> Path:
    root.mkdir(mode=_MODE, parents=True, exist_ok=True)
    folder = root.resolve()
    for part in parts[:-1]:
        folder /= part
        folder.mkdir(mode=_MODE, exist_ok=True)
        if folder.is_symlink():
            msg = "A link leads out of it"
            raise OSError(0, msg, str(folder))
    return _make_new(folder, parts[-1])


def _make_new(folder: Path, name: str) -> Path:
    """Make a folder that nobody has: a broker may give one message twice, and a task may call itself."""
    for number in count(1):
        path = folder / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(mode=_MODE)
        except FileExistsError:
            continue
        (path / OURS).mkdir(mode=_MODE)
        return path
    raise AssertionError


def _safe(name: str) -> str:
    return name if _SAFE.fullmatch(name) else hashlib.sha256(name.encode(errors="replace")).hexdigest()[:32]
