"""The loop of a minder: it hears the body, the command and its scripts, and acts when it is time."""

import contextlib
import math
import os
import selectors
import signal
import time
from typing import Any, Final

from workers.minder.family import Family
from workers.minder.output import Output
from workers.minder.progress import ProgressLines
from workers.minder.teller import Teller

#: Bytes that are read at once of what the body or a script says.
_CHUNK: Final = 65_536
#: Seconds between two words of progress, and between two looks whether what was killed is gone.
_REST: Final = 0.1
#: Seconds after which new output is told for the log of the task.
_SAID_REST: Final = 0.5
#: Seconds that the kernel gets for ending what was killed.
_DEATH: Final = 5.0


class Minder:
    """Runs one command: a loop that hears everybody, and acts when it is time."""

    def __init__(self, specification: dict[str, Any], control: bytes, teller: Teller) -> None:
        self._timeout, self._grace = specification["timeout"], specification["grace"]
        self._control, self._teller = control, teller
        self._ended_by: str | None = None
        self._kill_at = math.inf
        self._progress: tuple[float, str] | None = None
        self._progress_due = self._said_due = 0.0
        self._selector = selectors.DefaultSelector()
        limit, in_output = specification["limit"], ProgressLines(b"progress:", self._hear_progress)
        self._outputs = {
            "stdout": Output(specification["stdout"], limit, in_output.feed),
            "stderr": Output(specification["stderr"], limit, lambda _: None),
        }
        self._from_script = ProgressLines(b"", self._hear_progress)
        self._fifo = os.open(specification["progress"], os.O_RDWR | os.O_NONBLOCK)  # so it has no end
        self._began = time.monotonic()
        self._family = Family(specification, *(one.writing for one in self._outputs.values()))

    def run(self) -> None:
        """Stay until everybody has ended, and tell what came of it."""
        self._teller.tell({"group": self._family.group})
        for one in self._outputs.values():
            os.close(one.writing)
            self._selector.register(one.reading, selectors.EVENT_READ, lambda one=one: self._drain(one))
        self._selector.register(self._fifo, selectors.EVENT_READ, self._hear_script)
        self._selector.register(0, selectors.EVENT_READ, self._hear_body)
        woken = _wake_up_by_children()
        self._selector.register(woken, selectors.EVENT_READ, lambda: os.read(woken, _CHUNK))
        self._obey()
        while not self._is_over():
            self._act()
            for key, _ in self._selector.select(self._pause()):
                key.data()
        self._tell_end()

    # ---- what is heard -------------------------------------------------------------------------------------

    def _drain(self, output: Output) -> None:
        if not output.read():
            self._selector.unregister(output.reading)

    def _hear_script(self) -> None:
        with contextlib.suppress(BlockingIOError):  # a script may read it as well
            self._from_script.feed(os.read(self._fifo, _CHUNK))

    def _hear_progress(self, share: float, words: str) -> None:
        self._progress = share, words

    def _hear_body(self) -> None:
        told = os.read(0, _CHUNK)
        self._control += told
        if not told:
            self._selector.unregister(0)
            self._end("the worker is gone", 0.0)
        self._obey()

    def _obey(self) -> None:
        for line in self._control.splitlines():
            self._end("order", float(line.split()[1]))
        self._control = b""

    # ---- what is done --------------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        return self._family.is_gone() or time.monotonic() >= self._kill_at + _DEATH

    def _act(self) -> None:
        now = time.monotonic()
        self._teller.go_on()
        if self._progress is not None and now >= self._progress_due and self._teller.is_free:
            self._tell_progress()
            self._progress_due = now + _REST
        if now >= self._said_due and self._has_news() and self._teller.is_free:
            self._tell_news()
            self._said_due = now + _SAID_REST
        if self._ended_by is None and self._family.code is not None:
            self._end("itself", self._grace)  # and what it has left behind is ended with it
        elif self._ended_by is None and self._timeout is not None and now >= self._began + self._timeout:
            self._end("timeout", self._grace)
        if now >= self._kill_at:
            self._family.signal(signal.SIGKILL)

    def _end(self, by: str, grace: float) -> None:
        if self._ended_by is None:
            self._ended_by = by
            self._family.signal(signal.SIGTERM)
            self._family.signal(signal.SIGCONT)  # who is stopped hears nothing
        self._kill_at = min(self._kill_at, time.monotonic() + grace)

    def _pause(self) -> float | None:
        """Return the seconds until something is to be done; None if that is not known."""
        now, due = time.monotonic(), []
        if not self._teller.is_free:
            due.append(now + _REST)
        elif self._progress is not None:
            due.append(self._progress_due)
        if self._teller.is_free and self._has_news():
            due.append(max(self._said_due, now + _REST))  # it may wait for the end of a line
        if self._ended_by is not None:
            due.append(max(self._kill_at, now + _REST))
        elif self._timeout is not None:
            due.append(self._began + self._timeout)
        return max(0.0, min(due) - now) if due else None

    # ---- what is told --------------------------------------------------------------------------------------

    def _tell_progress(self) -> None:
        if self._progress is not None:
            share, words = self._progress
            self._progress = None
            self._teller.tell({"progress": share, "message": words or None})

    def _has_news(self) -> bool:
        return any(one.has_news for one in self._outputs.values())

    def _tell_news(self, *, whole: bool = False) -> None:
        for one in self._outputs.values():
            if (news := one.news(whole=whole)) is not None:
                self._teller.tell(news)

    def _tell_end(self) -> None:
        seconds = time.monotonic() - self._began
        told = {name: one.finish() for name, one in self._outputs.items()}
        self._hear_script()
        self._tell_news(whole=True)
        self._tell_progress()
        by = "itself" if self._ended_by is None else self._ended_by
        self._teller.tell({"code": self._family.code, "ended_by": by, "seconds": seconds, **told})
        self._teller.go_on(waits=True)


def _wake_up_by_children() -> int:
    """Return what can be read when a child has ended."""
    reading, writing = os.pipe()
    for one in (reading, writing):
        os.set_blocking(one, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    return reading
