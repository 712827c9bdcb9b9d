"""How a script says how far its command task is: a line into the pipe that its environment names."""

import errno
import os
import stat
from collections.abc import Mapping

from jobrunner.commands.environment import PROGRESS
from jobrunner.errors import OutsideJobError
from jobrunner.reports import report_of
from jobrunner.text import SENTENCE, one_line

_REMEDY = "Call it in what a command task runs; in the body of a Python task it is current.progress."


def say(share: float, words: str, environment: Mapping[str, str] = os.environ) -> None:
    """Say that a share from 0 to 1 is done; in one write, so that nobody else's line gets between.

    Raises:
        InvalidParametersError: it is no such share.
        OutsideJobError: no command task runs here, or it has ended.
    """
    report_of(share)
    path = environment.get(PROGRESS)
    if not path:
        msg = f"No command task runs here: {PROGRESS} is not set."
        raise OutsideJobError(msg, _REMEDY)
    try:
        pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK)  # which fails if nobody reads it
    except OSError as error:
        why = "it has ended" if error.errno in {errno.ENXIO, errno.ENOENT} else error.strerror
        msg = f"The command task cannot be told: {why}."
        raise OutsideJobError(msg, _REMEDY) from None
    try:
        if not stat.S_ISFIFO(os.fstat(pipe).st_mode):
            msg = f"{PROGRESS} names no pipe: {path}."
            raise OutsideJobError(msg, _REMEDY)
        os.set_blocking(pipe, True)
        os.write(pipe, f"{share:g} {one_line(words, SENTENCE)}\n".encode())
    finally:
        os.close(pipe)
