"""What a command writes to one stream, within bounds: its file, the end of it, and what is new."""

import contextlib
import fcntl
import os
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, Final

#: Bytes of the end of an output that are told.
TAIL: Final = 4_000
#: Bytes that are read at once, and that a pipe is asked to hold: who writes fast seldom waits.
_CHUNK: Final = 1 << 20
#: Bytes of what is new that are told at once: the last ones.
_MOST_SAID: Final = 32_000


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


def _widen(pipe: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # there is a bound for each user
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _CHUNK)
