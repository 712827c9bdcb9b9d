"""Waiting for something in the database: when to look again. Nobody tells a client, so it looks."""

import time
from collections.abc import Iterator

#: Seconds between two looks: from the first, doubling, to the last.
_FIRST = 0.02
_LAST = 0.5


def looks(timeout: float | None) -> Iterator[None]:
    """Yield when it is time to look: at once, and for the last time after `timeout` seconds; None: without end."""
    deadline = None if timeout is None else time.monotonic() + timeout
    rest = _FIRST
    while True:
        yield
        left = _LAST if deadline is None else deadline - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(rest, left))
        rest = min(rest * 2, _LAST)
