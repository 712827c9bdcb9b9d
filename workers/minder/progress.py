"""Finds in what a command writes the lines that say how far it is."""

import re
from collections.abc import Callable
from typing import Final

#: Bytes of a line that may tell of progress.
_LINE: Final = 2_000


class ProgressLines:
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
