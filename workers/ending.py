"""Ending what runs in a pool of processes by order: TERM, then KILL after the grace.

Not Celery's revoke: that tells the end before there is one, forgets the process, and refuses the id for hours.
"""

import logging
import signal
from typing import Any

from kombu.asynchronous import get_event_loop

from workers.gate import Gate, now

logger = logging.getLogger(__name__)

#: Seconds between two looks whether a process has ended: by itself Celery may notice only 5 s later.
_LOOK = 0.2


def end_doomed(gate: Gate, pool: Any) -> float:
    """Signal what is to end and has not; return the seconds until this is to be called again."""
    with gate.doomed() as doomed:
        for one, grace in doomed:
            _end(one, grace, pool)
    if not doomed:
        return float("inf")
    loop = get_event_loop()
    if loop is not None:
        loop.call_soon(pool.maintain_pool)
    return _LOOK


def _end(request: Any, grace: float, pool: Any) -> None:
    if request.told_to_end is None:
        request.told_to_end = now()
        _signal(request, signal.SIGTERM, pool)
    if request.ended_by is not signal.SIGKILL and now() >= request.told_to_end + grace:
        _signal(request, signal.SIGKILL, pool)


def _signal(request: Any, signum: signal.Signals, pool: Any) -> None:
    request.ended_by = signum
    msg = "Task %s[%s] is canceled: %s to process %d."
    logger.warning(msg, request.name, request.id, signum.name, request.worker_pid, extra={"action": "ended-by-order"})
    pool.terminate_job(request.worker_pid, signum)
