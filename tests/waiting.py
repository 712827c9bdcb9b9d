"""Waiting in tests: for a condition, with a deadline, never for a stretch of time."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Seconds that a shared machine may take for what needs a moment.
PATIENCE = 60.0


def until(condition: Callable[[], T], *, timeout: float = 10.0, what: str) -> T:
    """Ask every 20 ms until `condition` returns something true, and return that; `what` names it in the failure."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not (value := condition()):
        if time.monotonic() > deadline:
            message = f"not within {timeout:g} s: {what}"
            raise AssertionError(message)
        pause.wait(0.02)
    return value
