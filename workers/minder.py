"""The minder of a command: a process of its own that starts it, reads what it writes, and ends its whole family.

It is run by its path, knows the standard library only and must not import jobrunner, so that it is there at once. Its
standard input is a pipe that only the process of the task's body can write to. The first line is what to run, as JSON.
Another one, `end SECONDS`, gives the command so long to end. The pipe's end is that of the body's process, whatever has
killed it: then the family is killed at once, before anybody can run the task again. What is to be told goes to standard
output, one JSON object a line.

On Linux it adopts what its children leave behind, so no process escapes by leaving the group or by outliving its
parent. Elsewhere it knows the process group alone.
"""

import contextlib
import ctypes
import fcntl
import json
import math
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

#: Bytes of the end of an output that are told.
TAIL: Final = 4_000
#: Bytes that are read at once, and that a pipe is asked to hold: who writes fast seldom waits.
_CHUNK: Final = 1 << 20
#: Bytes of a line that may tell of progress.
_LINE: Final = 2_000
#: Seconds between two words of progress, and between two looks whether what was killed is gone.
_REST: Final = 0.1
#: Seconds after which new output is told for the task's log, and bytes of a stream that are: else the last ones.
_SAID_REST: Final = 0.5
_MOST_SAID: Final = 32_000
#: Seconds that the kernel gets for ending what was killed.
_DEATH: Final = 5.0

_PROC: Final = Path("/proc")
#: Numbers of Linux's `prctl`.
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class Lines:
    """Finds the lines of a stream that tell of progress, wherever it is cut: `0.4 text`, here behind a mark."""

    def __init__(self, mark: bytes, tell: Callable[[float, str], None]) -> None:
        self._mark, self._tell = mark, tell
        self._line = re.compile(rb"^%b[ \t]*([0-9.]+)(?:[ \t\r]+(.*))?$" % re.escape(mark), re.MULTILINE)
        self._begun = b""

    def feed(self, data: bytes) -> None:
        """Read what comes next; what of a line is too long is not looked at."""
        end = data.rfind(b"\n")
        if end < 0:
            self._begun = (self._begun + data[:_LINE])[:_LINE]
            return
        text = self._begun + data[:end]
        if self._mark in text:
            for share, words in self._line.findall(text):
                self._report(share, words)
        self._begun = data[end + 1 : end + 1 + _LINE]

    def _report(self, share: bytes, words: bytes) -> None:
        try:
            self._tell(float(share), words[:_LINE].decode(errors="replace").strip())
        except ValueError:  # such as 1.2.3
            return


class Output:
    """What a command writes to one stream: its file gets the beginning and the end, `limit` bytes, and a word between.

    The end is held in memory until it is known to be the end. A disk that is full does not stop the command.
    """

    def __init__(self, path: str, limit: int, hear: Callable[[bytes], None]) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        _widen(self.reading)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._hear = hear
        self._room, self._keeps = limit // 2, limit - limit // 2
        self._held: deque[bytes] = deque()
        self._length = self._held_length = self._written = 0
        self._tail = b""
        self._unsaid, self._unsaid_length = bytearray(), 0
        self._problem: str | None = None

    def read(self) -> bool:
        """Take what is there; False if there is nothing at the moment, or nothing more at all."""
        try:
            data = os.read(self.reading, _CHUNK)
        except BlockingIOError:
            return False
        self._length += len(data)
        self._tail = data[-TAIL:] if len(data) >= TAIL else (self._tail + data)[-TAIL:]
        self._unsaid += data[-_MOST_SAID:]
        self._unsaid_length += len(data)
        if len(self._unsaid) >= 2 * _MOST_SAID:  # now and then: each time would copy it each time
            del self._unsaid[:-_MOST_SAID]
        self._hear(data)
        first = data[: self._room]
        self._room -= len(first)
        self._write(first)
        self._hold(data[len(first) :] if first else data)
        return bool(data)

    @property
    def has_news(self) -> bool:
        """Whether there is something to be told for the log."""
        return bool(self._unsaid)

    def news(self, *, whole: bool) -> dict[str, Any] | None:
        """Return the newest lines since the last time, and how many bytes before them are left out.

        A line that has not ended waits for its end, unless that is `whole` or too long.
        """
        end = len(self._unsaid) if whole or len(self._unsaid) >= _MOST_SAID else self._unsaid.rfind(b"\n") + 1
        if not end:
            return None
        said, self._unsaid = self._unsaid[:end][-_MOST_SAID:], self._unsaid[end:]
        left_out = self._unsaid_length - len(said) - len(self._unsaid)
        self._unsaid_length = len(self._unsaid)
        return {"said": said.decode(errors="replace"), "left_out": left_out}

    def finish(self) -> dict[str, Any]:
        """Read what is left, write the end, and return what there is to tell."""
        while self.read():
            pass
        self._hear(b"\n")
        end = b"".join(self._held)[-self._keeps :]
        left_out = self._length - self._written - len(end)
        if left_out > 0:
            self._write(b"\n[%d bytes are left out here]\n" % left_out)
        self._write(end)
        return {"bytes": self._length, "tail": self._tail.decode(errors="replace"), "problem": self._problem}

    def _hold(self, data: bytes) -> None:
        if not data:
            return
        self._held.append(data)
        self._held_length += len(data)
        while self._held_length - len(self._held[0]) >= self._keeps:
            self._held_length -= len(self._held.popleft())

    def _write(self, data: bytes) -> None:
        while data and self._problem is None:
            try:
                written = os.write(self._file, data)
            except OSError as error:
                self._problem = error.strerror
                return
            self._written += written
            data = data[written:]


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
        for entry in os.listdir(_PROC):  # noqa: PTH208  names suffice
            if entry.isdecimal() and (told := _stat(entry)):
                parents.setdefault(int(told[1]), []).append((int(entry), int(told[2])))
        ours = [os.getpid()]
        while ours:
            found = parents.pop(ours.pop(), [])
            ours += [pid for pid, _ in found]
            yield from found


class Teller:
    """Tells the body one JSON object a line, and waits for it at the end only: who does not listen misses news."""

    def __init__(self) -> None:
        self._untold = b""

    @property
    def is_free(self) -> bool:
        """Whether it has been told everything."""
        return not self._untold

    def tell(self, told: dict[str, Any]) -> None:
        """Tell something, as far as it listens."""
        self._untold += f"{json.dumps(told)}\n".encode()
        self.go_on()

    def go_on(self, *, waits: bool = False) -> None:
        """Go on where it did not listen."""
        os.set_blocking(1, waits)
        try:
            while self._untold:
                self._untold = self._untold[os.write(1, self._untold) :]
        except BlockingIOError:
            return
        except OSError:  # it is gone
            self._untold = b""


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
        limit, in_output = specification["limit"], Lines(b"progress:", self._hear_progress)
        self._outputs = {
            "stdout": Output(specification["stdout"], limit, in_output.feed),
            "stderr": Output(specification["stderr"], limit, lambda _: None),
        }
        self._from_script = Lines(b"", self._hear_progress)
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
        self._hear_rest_of_script()
        self._tell_news(whole=True)
        self._tell_progress()
        by = "itself" if self._ended_by is None else self._ended_by
        self._teller.tell({"code": self._family.code, "ended_by": by, "seconds": seconds, **told})
        self._teller.go_on(waits=True)

    def _hear_rest_of_script(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._hear_script()


def main() -> None:
    """Read what to run, and run it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT):
        signal.signal(number, lambda *_: None)  # not ignored: then the command would ignore it as well
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    told = b""
    while b"\n" not in told:
        if not (more := os.read(0, _CHUNK)):
            return  # the body was ended before it had said what to run
        told += more
    specification, _, control = told.partition(b"\n")
    teller = Teller()
    try:
        minder = Minder(json.loads(specification), control, teller)
    except OSError as error:
        teller.tell({"errno": error.errno, "problem": error.strerror})
        teller.go_on(waits=True)
        return
    minder.run()


def _wake_up_by_children() -> int:
    """Return what can be read when a child has ended."""
    reading, writing = socket.socketpair()
    for one in (reading, writing):
        one.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writing.detach(), warn_on_full_buffer=False)
    return reading.detach()


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
        told = (_PROC / pid / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
    return told if told[0] not in "ZX" else []


def _widen(pipe: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # there is a bound for each user
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _CHUNK)


if __name__ == "__main__":
    main()
