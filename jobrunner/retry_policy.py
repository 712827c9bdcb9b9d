"""What the options of a task say of its attempts: how many there may be, and how long to wait between them.

Celery's own options are all there is to set. Workers and tracker go by the same numbers, so that it does not matter who
sends a task again.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

from celery.utils.time import get_exponential_backoff_interval

#: What `@jobs.task` alone means; every one can be overridden by the same name, as in Celery.
RETRY_POLICY: Final[Mapping[str, Any]] = {
    "autoretry_for": (Exception,),
    "max_retries": 3,
    "retry_backoff": 1,
    "retry_backoff_max": 600,
    "retry_jitter": True,
    "retry_on_worker_lost": True,
}

#: Attempts of a task that may be retried for ever, as `max_retries=None` says.
MAX_ATTEMPTS: Final = 20


def max_retries(task: Any) -> int | None:
    """Return how often Celery would retry a task after an exception; None if for ever.

    `retry_kwargs` comes first, as in Celery. What is no number is left to Celery, which fails the first retry by it.
    """
    asked = (getattr(task, "retry_kwargs", None) or {}).get("max_retries")
    number = task.max_retries if asked is None else asked
    return max(0, int(number)) if isinstance(number, int | float) else None


def untouched_timeout(task: Any) -> float | None:
    """Return the seconds after which an attempt is given up of which nothing is heard; None for any number of them.

    Raises:
        ValueError: the option is no number of seconds above zero.
    """
    seconds = getattr(task, "untouched_timeout", None)
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        msg = f"untouched_timeout={seconds!r} is no number of seconds above zero"
        raise ValueError(msg)
    return float(seconds)


def last_retry(retries: int | None) -> int:
    """Return the retry after which there is no other, whoever has sent the ones before; 0: there is none at all."""
    return MAX_ATTEMPTS - 1 if retries is None else retries


def wait(task: Any, retries: int) -> float:
    """Return the seconds to wait after the attempt with this number, from 0: those of the task's own policy.

    They are its back-off, as after an exception that `autoretry_for` covers; without one `default_retry_delay`.
    """
    backoff = getattr(task, "retry_backoff", False)
    if not backoff:
        return float(task.default_retry_delay)
    return get_exponential_backoff_interval(
        factor=int(max(1.0, float(backoff))),
        retries=retries,
        maximum=int(getattr(task, "retry_backoff_max", 600)),
        full_jitter=getattr(task, "retry_jitter", True),
    )
