"""How a task's log is written into parts, and read again: a line each, with its time and level.

Pure: no clock, database or broker.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from jobrunner.text import bounded

#: Characters of the longest line that is kept.
LONGEST_LINE: Final = 4_000
#: Characters of a part from which on it is told; so it may be longer by a line.
FULL_PART: Final = 32_000
#: The longest part that is stored, whoever wrote it.
LONGEST_PART: Final = 2 * FULL_PART
#: The level of what was printed, by a task or its command; and of what is said of the log itself.
OUTPUT: Final = "OUTPUT"
NOTICE: Final = "NOTICE"

_LONGEST_LEVEL = 20
_LINE = re.compile(r"(\d{1,10}\.\d{3}) (\S+) (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """A line that a task has logged or printed; the level is one of Python's logging, `OUTPUT` or `NOTICE`.

    A message of several lines is as many of these.
    """

    at: datetime
    level: str
    text: str


def write_line(at: float, level: str, text: str) -> str:
    """Return a line as it stands in a part; `text` has no line break, and `at` are seconds since 1970."""
    word = "_".join(level.split())[:_LONGEST_LEVEL] or NOTICE
    return f"{at:.3f} {word} {bounded(text, LONGEST_LINE)}"


def read_part(text: str, at: datetime) -> Iterator[LogLine]:
    """Yield the lines of a part; what was not written by `write_line` counts as printed `at` this time."""
    for line in text.split("\n"):
        found = _LINE.fullmatch(line)
        if found:
            yield LogLine(at=datetime.fromtimestamp(float(found[1]), UTC), level=found[2], text=found[3])
        else:
            yield LogLine(at=at, level=OUTPUT, text=line)
