"""What one execution logs and prints, within bounds: so many lines a second, and so much in all.

What comes on top is left out of the middle, and a notice there says how much it was. Nothing here knows a broker.
"""

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable

from jobrunner.log_lines import FULL_PART, LONGEST_LINE, NOTICE, OUTPUT, write_line
from jobrunner.masking import mask_text

#: Tells a part: its number, the time of its first line, and its text. False if it is left out.
Tell = Callable[[int, float, str], bool]

#: The last lines of a log that is full are kept as well, and so are those of a second that has too many: nobody looks
#: for what went wrong at the beginning. So many are, and a tenth of a second's.
_LAST = 100
_SHARE = 10


class Lines:
    """The log of one execution; any thread may add to it.

    `limit` is how many characters it may have, `rate` how many lines of a second. `awaits` is called, often, while
    there is something to be told. `pid` is the process of which it is the log.
    """

    def __init__(
        self,
        tell: Tell,
        *,
        limit: int,
        rate: int,
        awaits: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tell, self._limit, self._rate, self._awaits, self._clock = tell, limit, rate, awaits, clock
        self.pid = os.getpid()
        self._lock = threading.RLock()  # a signal's handler may log in the middle of anything
        self._number = self._size = self._total = 0
        self._untold: list[str] = []
        self._begun_at = 0.0
        self._unfinished: dict[int, str] = {}
        self._second, self._in_second = float("-inf"), 0
        self._most_held = min(_LAST, rate // _SHARE)
        self._held: deque[tuple[float, str, str]] = deque()  # the last lines of the second, until it is over
        self._dropped: Counter[str] = Counter()  # lines since the last notice, by the reason
        self._last: deque[str] | None = None  # of a log that is full
        self._left_out = 0

    # ---- what is added -------------------------------------------------------------------------------------

    def add(self, text: str, level: str = OUTPUT) -> None:
        """Add one or more whole lines."""
        with self._lock:
            now = self._clock()
            for line in text.splitlines():
                self._add(now, level, line)

    def write(self, stream: object, text: str) -> None:
        """Add what is written to a stream: a line when it has ended, or has become too long."""
        with self._lock:
            lines, ended, rest = (self._unfinished.pop(id(stream), "") + text).rpartition("\n")
            if len(rest) > LONGEST_LINE:
                lines, rest = lines + ended + rest, ""
            if rest:
                self._unfinished[id(stream)] = rest
            self.add(lines)

    def _add(self, now: float, level: str, line: str) -> None:
        if self._is_over(now):
            self._end_second(now)
            self._second, self._in_second = now, 0
        self._in_second += 1
        cut = line[: LONGEST_LINE + 1]  # one more, so that it shows
        if self._in_second <= self._rate - self._most_held:
            self._take(now, level, cut)
        else:
            self._hold(now, level, cut)

    def _is_over(self, now: float) -> bool:
        return not 0 <= now - self._second < 1  # a clock may have been put back

    def _hold(self, now: float, level: str, line: str) -> None:
        self._held.append((now, level, line))
        if len(self._held) > self._most_held:
            self._held.popleft()
            self._dropped[f"there were more than {self._rate:,} in a second"] += 1
        self._awaits()

    def _end_second(self, now: float) -> None:
        self._note_dropped(self._held[0][0] if self._held else now)
        while self._held:
            self._take(*self._held.popleft())

    def _take(self, now: float, level: str, line: str) -> None:
        self._keep(now, write_line(now, level, mask_text(line) if "=" in line or "://" in line else line))

    def _keep(self, now: float, line: str) -> None:
        if self._last is None and self._total + len(line) > self._limit:
            self._last = deque(maxlen=_LAST)
            self._note(now, f"The log is full, with {self._total:,} characters: of the rest, the last lines are kept.")
        if self._last is None:
            self._put(now, line)
        else:
            self._left_out += 1
            self._last.append(line)

    def _note_dropped(self, now: float) -> None:
        if self._dropped and self._last is None:
            dropped, self._dropped = self._dropped, Counter()
            for why, number in dropped.items():
                self._note(now, f"{_lines(number)} left out: {why}.")

    def _note(self, now: float, text: str) -> None:
        self._put(now, write_line(now, NOTICE, text))

    def _put(self, now: float, line: str) -> None:
        if not self._untold:
            self._begun_at = now
        self._untold.append(line)
        self._size += len(line) + 1
        self._total += len(line) + 1
        if self._size >= FULL_PART:
            self._tell_untold()
        else:
            self._awaits()

    # ---- what is told --------------------------------------------------------------------------------------

    def tell(self) -> None:
        """Tell what was not told yet; the last lines of a second that has many wait for its end."""
        with self._lock:
            now = self._clock()
            if self._held and not self._is_over(now):
                self._awaits()
            else:
                self._end_second(now)
            self._tell_untold()

    def _tell_untold(self) -> None:
        lines, self._untold, self._size = self._untold, [], 0
        if lines and self._tell(self._number, self._begun_at, "\n".join(lines)):
            self._number += 1
        elif lines:
            self._dropped["too much of what tasks log waits for the broker"] += len(lines)

    def close(self) -> None:
        """Tell what is left, with the last lines of a log that was full."""
        with self._lock:
            for rest in self._unfinished.values():
                self.add(rest)
            self._unfinished.clear()
            self._end_second(self._clock())
            self._tell_untold()
            if self._last is not None:
                self._put_last(self._clock(), self._last)
                self._tell_untold()

    def _put_last(self, now: float, last: deque[str]) -> None:
        while sum(map(len, last)) > FULL_PART:
            last.popleft()
        number = self._left_out + self._dropped.total() - len(last)
        if number:
            self._note(now, f"{_lines(number)} left out here.")
        for line in last:
            self._put(now, line)


def _lines(number: int) -> str:
    return "1 line is" if number == 1 else f"{number:,} lines are"
