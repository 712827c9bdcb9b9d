"""Deletes old work directories, so that they do not fill a disk: by age, and the oldest ones beyond a size.

Before a command, which may need the room, and every ten minutes at most below one root, whoever's turn it is: a marker
there says when it was last done. A directory that is in use has a lock, which lasts as long as anybody may write there,
and is never deleted.
"""

import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from jobrunner.commands.outputs import OURS

logger = logging.getLogger(__name__)

#: Seconds from one pruning of a root to the next.
_REST: Final = 600.0
#: Seconds for which a work directory is left alone in any case: it may be in the making.
_NEW: Final = 60.0
#: Where the directories of attempts lie: in that of a day, of a job, and of a task.
_ATTEMPTS: Final = "*/*/*/*"
#: Bytes that `st_blocks` counts by, whatever the file system's own blocks are.
_BLOCK: Final = 512


class _Found(NamedTuple):
    """A work directory: when it was last in use, and what it holds."""

    used_at: float
    size: int
    path: Path


def prune_now_and_then(root: Path, *, days: float, limit: int) -> None:
    """Prune a root if that was not done lately; what cannot be deleted is told and left."""
    try:
        if root.is_dir() and _is_our_turn(root / ".pruned"):
            prune(root, oldest=time.time() - days * 86_400, limit=limit)
    except OSError as error:
        logger.warning("The work directories in %s cannot be pruned: %s.", root, error)


def prune(root: Path, *, oldest: float, limit: int) -> None:
    """Delete what was last in use before a time, then the oldest until all that is left has so many bytes."""
    found = sorted(_directories(root.resolve()))
    total = sum(one.size for one in found)
    for one in found:
        if (one.used_at < oldest or total > limit) and _delete(one):
            total -= one.size
            logger.info("%s is deleted; it was in use until %d s ago.", one.path, time.time() - one.used_at)


def _is_our_turn(marker: Path) -> bool:
    """Whether it is time; if so, nobody else will find that it is."""
    descriptor = os.open(marker, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        found = os.fstat(descriptor)
        is_time = found.st_size == 0 or abs(time.time() - found.st_mtime) >= _REST  # a clock may have been put back
        if is_time:
            with suppress(OSError):  # a disk that is full needs it most
                os.pwrite(descriptor, b"pruned\n", 0)
        return is_time
    finally:
        os.close(descriptor)


def _directories(root: Path) -> Iterator[_Found]:
    for path in root.glob(_ATTEMPTS):
        with suppress(FileNotFoundError):  # somebody else has deleted it
            if path.is_dir() and path.resolve() == path:  # nothing that a link leads to
                yield _Found(_used_at(path), _size(path), path)


def _used_at(folder: Path) -> float:
    try:
        return (folder / OURS / "lock").stat().st_mtime
    except OSError:  # the command may have deleted it, or let nobody in
        return folder.stat().st_mtime


def _size(folder: Path) -> int:
    """Return what the files in a folder take of the disk; a link counts as itself."""
    total = 0
    for at, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(Path(at) / name).st_blocks * _BLOCK
    return total


def _delete(one: _Found) -> bool:
    """Delete a work directory that nobody uses, and the folders around it that are empty then."""
    if time.time() < one.used_at + _NEW:
        return False
    lock = None
    try:
        _let_in(one.path)
        with suppress(FileNotFoundError):  # it may have deleted that as well
            lock = os.open(one.path / OURS / "lock", os.O_WRONLY | os.O_NOFOLLOW)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(one.path)
    except BlockingIOError:
        return False  # it is in use
    except OSError as error:
        logger.warning("The work directory %s cannot be deleted: %s.", one.path, error)
        return False
    finally:
        if lock is not None:
            os.close(lock)
    for folder in list(one.path.parents)[:3]:
        with suppress(OSError):  # it has others
            folder.rmdir()
    return True


def _let_in(folder: Path) -> None:
    """Have a look at its lock allowed, whatever its command has forbidden."""
    for one in (folder, folder / OURS):
        if one.is_dir() and not one.is_symlink() and not os.access(one, os.R_OK | os.W_OK | os.X_OK):
            one.chmod(0o700)


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except PermissionError:  # a command may have made folders that are read only
        for at, names, _ in os.walk(folder):
            for one in (Path(at) / name for name in names):
                if not one.is_symlink():
                    one.chmod(0o700)
        shutil.rmtree(folder)
