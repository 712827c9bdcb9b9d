"""Giving back the slots of a pool that tasks had which were then not started: in a loop, where Celery recurses.

Celery takes the next message that waits from within the giving back of a slot. If none of hundreds is to start, as when
their job is held, each goes a few calls deeper, and Python's limit ends the worker.
"""

from collections.abc import Callable
from typing import Any


def give_back_in_a_loop(controller: Any) -> None:
    """Have a worker do so, if it counts slots at all: that of a prefork pool alone does."""
    release = getattr(controller, "_quick_release", None)
    if release is not None:
        controller._quick_release = Looping(release)  # noqa: SLF001  what `WorkController._process_task` calls


class Looping:
    """Calls a function as often as it is called, but never from within itself."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._due = 0
        self._runs = False

    def __call__(self) -> None:
        """Call it, or have the call that is under way do so when it is done."""
        self._due += 1
        if self._runs:
            return
        self._runs = True
        try:
            while self._due:
                self._due -= 1
                self._function()
        finally:
            self._runs = False
