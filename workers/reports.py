"""What one attempt reports of its progress, told at most twice a second: reporting must cost a body nothing (C2)."""

import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from jobrunner.reports import Report

#: Seconds between two events of one attempt.
_REST = 0.5


class Reports:
    """The first report is told at once, and the last one in any case: half a second later, or by `end`.

    What is told never goes back. `last` does: it is the report made last, by which `require_progress` goes (A6).
    """

    def __init__(
        self,
        tell: Callable[[Mapping[str, Any]], object],
        *,
        clock: Callable[[], float] = time.monotonic,
        timer: Callable[[float, Callable[[], None]], threading.Timer] = threading.Timer,
    ) -> None:
        self.last: Report | None = None
        self._tell, self._clock, self._new_timer = tell, clock, timer
        self._lock = threading.Lock()
        self._greatest = 0.0
        self._untold: dict[str, Any] | None = None
        self._due = float("-inf")
        self._timer: threading.Timer | None = None

    def add(self, report: Report, more: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Note a report; `more` goes along in its event."""
        with self._lock:
            self.last = report
            self._greatest = max(self._greatest, report.share)
            self._untold = {
                **more,
                "progress": self._greatest,
                "done": report.done,
                "total": report.total,
                "message": report.message,
                "timestamp": time.time(),
            }
            rest = self._due - self._clock()
            if rest <= 0:
                self._tell_now()
            elif self._timer is None:
                self._timer = self._new_timer(rest, self.end)
                self._timer.daemon = True
                self._timer.start()

    def end(self) -> None:
        """Tell what was reported last, if that was not told."""
        with self._lock:
            self._tell_now()

    def _tell_now(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._untold is not None:
            untold, self._untold = self._untold, None
            self._due = self._clock() + _REST
            self._tell(untold)
