"""What the bodies of tasks log and print, wherever that goes besides: collected in the process that runs them.

A thread that runs a task of a job has a log, and nobody else has. Handler and streams are those of the process, and
stay where they are from its first such task on.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from workers.lines import Lines

#: Seconds after which lines are told at the latest.
_REST = 0.5
#: The logger by which Celery lets what is printed go to its own log, in as many records as there were calls of `write`.
#: We hear it from the stream: whole lines, whatever the log level.
_REDIRECTED = "celery.redirected"
#: How our own threads are called: what these log is about the worker.
_OURS = "jobrunner-"


def keep(text: str) -> None:
    """Keep lines, as printed, in the log of the task that this thread runs; without one do nothing."""
    keeper()(text)


def keeper() -> Callable[[str], None]:
    """Return what keeps lines in the log of the task that this thread runs, for another thread that works for it."""
    lines = collector.here()
    return _forget if lines is None else lines.add


def _forget(_: str) -> None:
    """Keep nothing."""


class _Here(threading.local):
    """The log of the task that a thread runs."""

    lines: Lines | None = None


class Collector:
    """The logs of the tasks that run in this process, and the thread that tells what is in them."""

    def __init__(self) -> None:
        self._here = _Here()
        self._alone: Lines | None = None
        self._open: set[Lines] = set()
        self._handler = _Handler(self.here)
        self._loggers = 0
        self._some = threading.Event()
        self._teller: threading.Thread | None = None

    def here(self) -> Lines | None:
        """Return the log of what this thread does; None in a process that a body has forked, and nobody hears."""
        lines = self._here.lines or self._alone
        return lines if lines is not None and lines.pid == os.getpid() else None

    def open(self, lines: Lines, *, alone: bool) -> None:
        """Have in this log what this thread logs and prints, until it is closed.

        `alone` tells that this process runs one task at a time: then threads which run none work for that one.
        """
        self._listen()
        self._here.lines = lines
        self._alone = lines if alone else None
        self._open.add(lines)

    def close(self, lines: Lines) -> None:
        """Have the rest of a log told, and nothing more in it."""
        self._here.lines = self._alone = None
        self._open.discard(lines)
        lines.close()

    def await_lines(self) -> None:
        """Have the lines of open logs told in a moment."""
        if self._some.is_set():
            return
        self._some.set()
        if self._teller is None:
            self._teller = threading.Thread(target=self._tell, name=f"{_OURS}logs", daemon=True)
            self._teller.start()

    def _tell(self) -> None:
        while self._some.wait():
            time.sleep(_REST)
            self._some.clear()  # before one looks: what comes from here on is told next time
            for lines in list(self._open):
                lines.tell()

    # ---- where it comes from -------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Hear every logger, also those that keep to themselves; those that are new, or were configured anew, again."""
        loggers = logging.root.manager.loggerDict
        if len(loggers) != self._loggers or self._handler not in logging.root.handlers:
            self._loggers = len(loggers)
            alone = (one for one in list(loggers.values()) if isinstance(one, logging.Logger) and not one.propagate)
            for logger in (logging.root, *alone):
                logger.addHandler(self._handler)  # which does so once
        if not isinstance(sys.stdout, _HEARD):
            sys.stdout = _Copied(sys.stdout, self.here)
        if not isinstance(sys.stderr, _HEARD):
            sys.stderr = _Copied(sys.stderr, self.here)


class _Handler(logging.Handler):
    """Adds what is logged to the log of the thread."""

    def __init__(self, here: Callable[[], Lines | None]) -> None:
        super().__init__()
        self._find = here

    def createLock(self) -> None:  # noqa: N802  logging's own name for it
        """Make none: threads that log nothing for tasks need not wait for each other, and logs have their own."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        """Add a record; one that cannot be made a text is reported as logging does, and raises nothing."""
        lines = self._find()
        if lines is None or record.name == _REDIRECTED or (record.threadName or "").startswith(_OURS):
            return
        try:
            lines.add(self.format(record), record.levelname)
        except Exception:  # noqa: BLE001  whatever is logged, as in every handler of logging
            self.handleError(record)


class _Copied:
    """A stream, of which the log of the thread gets what is written as well."""

    def __init__(self, stream: Any, here: Callable[[], Lines | None]) -> None:
        self._stream, self._find = stream, here

    def write(self, text: str) -> int:
        """Write text."""
        lines = self._find()
        if lines is not None and isinstance(text, str):
            lines.write(self, text)
        return self._stream.write(text)

    def writelines(self, texts: Any) -> None:
        """Write several."""
        for text in texts:
            self.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


#: A stream of which we hear, and None where there is none.
_HEARD = (_Copied, type(None))

#: Of this process. A process of a pool has a copy of that of its worker, which runs no task itself.
collector = Collector()
