"""Fold Celery's task events into attempts, and attempts into the state of a task.

Pure and order-free: values in, values out; whatever order events arrive in, and however often, the rows come out the
same. The order of two ends never depends on a clock: the Celery id names the delivery, within it Celery's retries,
within that the attempt's rank (sent < received < started < ended). Of two ends of one attempt, success beats failure
beats revoked beats retried; Celery's own event state lets a late `retried` undo a success.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

from jobrunner.records import Attempt, Task
from jobrunner.states import TaskState
from jobrunner.text import SENTENCE, TRACEBACK, bounded

_RECEIVED, _STARTED, _ENDED = 2, 3, 5

#: What each event type does to an attempt: its rank.
RANKS: Mapping[str, int] = MappingProxyType(
    {
        "task-received": _RECEIVED,
        "task-started": _STARTED,
        "task-succeeded": _ENDED,
        "task-failed": _ENDED,
        "task-revoked": _ENDED,
        "task-retried": _ENDED,
    }
)

#: How an attempt ended, weakest first: the later one wins when two ends of one attempt are told.
OUTCOMES = ("lost", "retried", "revoked", "failed", "succeeded")

_STATE_AFTER = {
    "succeeded": TaskState.COMPLETED,
    "failed": TaskState.FAILED,
    "revoked": TaskState.CANCELED,
    "retried": TaskState.SOFT_FAILED,
    "lost": TaskState.SOFT_FAILED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A Celery event as read from the log; `fields` holds what depends on its type.

    `source` is the process that sent it (by the id of its batches) and `retries` Celery's count, both None from workers
    that do not know jobrunner.
    """

    type: str
    uuid: str
    worker: str
    at: datetime
    source: str | None = None
    pid: int | None = None
    retries: int | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


def fold(attempt: Attempt, event: Event) -> Attempt:
    """Return the attempt with what one event tells about it; events of unknown type tell nothing."""
    rank = RANKS.get(event.type)
    if rank is None:
        return attempt
    if rank == _ENDED:
        return replace(attempt, **_end(attempt, event))
    told: dict[str, Any] = {}
    if rank >= attempt.rank and attempt.outcome is None:
        told.update(rank=rank, last_event=event.type)
    return replace(attempt, **told, **(_receipt if rank == _RECEIVED else _start)(attempt, event))


def _receipt(attempt: Attempt, event: Event) -> dict[str, Any]:
    """Whoever received the message last has it: a worker that stops hands back what it has not started."""
    if attempt.received_at is not None and _key(event) < _known(attempt, attempt.received_at):
        return {}
    return {"received_at": event.at} | ({} if attempt.rank >= _STARTED else _holder(event))


def _start(attempt: Attempt, event: Event) -> dict[str, Any]:
    """Whoever started it last has it: a second start is a further execution."""
    if attempt.started_at is not None and _key(event) < _known(attempt, attempt.started_at):
        return {}
    return {"started_at": event.at} | ({} if attempt.outcome is not None else _holder(event))


def _holder(event: Event) -> dict[str, Any]:
    return {"worker": event.worker, "source": event.source, "pid": event.pid}


def _key(event: Event) -> tuple[datetime, str, str, int]:
    """Orders events that nothing else orders, so that the rows do not depend on which of them came first."""
    return event.at, event.worker, event.source or "", event.pid or 0


def _known(attempt: Attempt, at: datetime) -> tuple[datetime, str, str, int]:
    return at, attempt.worker or "", attempt.source or "", attempt.pid or 0


def _end(attempt: Attempt, event: Event) -> dict[str, Any]:
    """The strongest end stands, of equal ones the earliest; the others tell nothing, not even a worker."""
    outcome = event.type.removeprefix("task-")
    if attempt.outcome is not None and attempt.ended_at is not None:
        told, known = OUTCOMES.index(outcome), OUTCOMES.index(attempt.outcome)
        if told < known or (told == known and _key(event) >= _known(attempt, attempt.ended_at)):
            return {}
    fields = event.fields
    return {
        "rank": _ENDED,
        "last_event": event.type,
        **_holder(event),
        "outcome": outcome,
        "ended_at": event.at,
        "runtime": _seconds(fields.get("runtime")),
        "result": _text(fields.get("result"), SENTENCE),
        "exception": _text(fields.get("exception") or _why_revoked(event), SENTENCE),
        "traceback": _text(fields.get("traceback"), TRACEBACK),
    }


def _why_revoked(event: Event) -> str | None:
    if event.type != "task-revoked":
        return None
    return "expired" if event.fields.get("expired") else "terminated" if event.fields.get("terminated") else "revoked"


def _text(value: object, limit: int) -> str | None:
    return None if value is None else bounded(value, limit)


def _seconds(value: object) -> float | None:
    try:
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
    except OverflowError:  # JSON knows integers of any length
        return None


def deciding(attempts: Iterable[Attempt]) -> Attempt | None:
    """Return the attempt of one delivery that decides the task's state: a success, else a failure, else the latest."""
    return max(attempts, key=_weight, default=None)


def _weight(attempt: Attempt) -> tuple[int, int, int]:
    final = {"succeeded": 2, "failed": 1}.get(attempt.outcome or "", 0)
    return final, attempt.retries, attempt.rank


def state_after(task: Task, attempt: Attempt) -> TaskState:
    """Return the state that a task takes from the attempt that decides it."""
    if attempt.outcome is not None:
        return _STATE_AFTER[attempt.outcome]
    if attempt.rank >= _STARTED:
        return TaskState.ACTIVE
    # Celery resends a retry at once and lets it wait in the worker: until it starts, the task stays soft-failed (F4).
    return TaskState.QUEUED if attempt.retries == task.first_retries else TaskState.SOFT_FAILED
