"""A plain Celery app with tasks that do nothing, or only talk, for both sides: it must know nothing of jobrunner.

`celery -A benchmarks.noop worker` runs it bare, `python -m workers -A benchmarks.noop` as ours.
"""

import logging
import time

from celery import Celery, chord
from celery.canvas import Signature

logger = logging.getLogger("chatter")
logger.propagate = False
logger.addHandler(logging.NullHandler())  # without one, what nobody hears would go to the worker's own log


def noop(number: int) -> int:
    """Do nothing, and have a value."""
    return number


def join(numbers: list[int]) -> int:
    """Take all values, and tell how many there were."""
    return len(numbers)


def clock() -> float:
    """Return the time of the worker's machine, in seconds since 1970."""
    return time.time()


def chatter(lines: int) -> None:
    """Log so many lines, where nobody writes them down."""
    for number in range(lines):
        logger.warning("line %d of %d", number, lines)


def make(url: str | None = None, results_url: str | None = None) -> Celery:
    """Make the app on one broker, which is its result backend too unless another one is named.

    In a worker process the environment names both.
    """
    made = Celery("benchmarks", broker=url, backend=results_url or url, set_as_current=False)
    made.task(noop, name="noop")
    made.task(join, name="join")
    made.task(clock, name="clock")
    made.task(chatter, name="chatter")
    return made


def fan(bound: Celery, tasks: int) -> Signature:
    """Return a canvas of this many no-ops and a join, bound to one app."""
    return chord([bound.tasks["noop"].s(number) for number in range(tasks)], bound.tasks["join"].s(), app=bound)


app = make()
