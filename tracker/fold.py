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


def fold(attempt: Attempt, *events: Event) -> Attempt:
    """Return the attempt with what events tell about it; the one given if they tell nothing new."""
    folded = replace(attempt)  # once for all events: a copy costs more than what one of them changes
    for event in events:
        rank = RANKS.get(event.type)
        if rank == _ENDED:
            _end(folded, event)
        elif rank is not None:
            if rank >= folded.rank and folded.outcome is None:
                folded.rank, folded.last_event = rank, event.type
            (_receive if rank == _RECEIVED else _start)(folded, event)
    return attempt if folded == attempt else folded


def _receive(folded: Attempt, event: Event) -> None:
    """Whoever received the message last has it: a worker that stops hands back what it has not started."""
    if folded.received_at is not None and _key(event) < _known(folded, folded.received_at):
        return
    folded.received_at = event.at
    if folded.rank < _STARTED:
        _hold(folded, event)


def _start(folded: Attempt, event: Event) -> None:
    """Whoever started it last has it: a second start is a further execution."""
    if folded.started_at is not None and _key(event) < _known(folded, folded.started_at):
        return
    folded.started_at = event.at
    if folded.outcome is None:
        _hold(folded, event)


def _hold(folded: Attempt, event: Event) -> None:
    folded.worker, folded.source, folded.pid = event.worker, event.source, event.pid


def _key(event: Event) -> tuple[datetime, str, str, int]:
    """Orders events that nothing else orders, so that the rows do not depend on which of them came first."""
    return event.at, event.worker, event.source or "", event.pid or 0


def _known(attempt: Attempt, at: datetime) -> tuple[datetime, str, str, int]:
    return at, attempt.worker or "", attempt.source or "", attempt.pid or 0


def _end(folded: Attempt, event: Event) -> None:
    """The strongest end stands, of equal ones the earliest; the others tell nothing, not even a worker."""
    outcome = event.type.removeprefix("task-")
    if folded.outcome is not None and folded.ended_at is not None:
        told, known = OUTCOMES.index(outcome), OUTCOMES.index(folded.outcome)
        if told < known or (told == known and _key(event) >= _known(folded, folded.ended_at)):
            return
    fields = event.fields
    _hold(folded, event)
    folded.rank, folded.last_event, folded.outcome, folded.ended_at = _ENDED, event.type, outcome, event.at
    folded.runtime = _seconds(fields.get("runtime"))
    folded.result = _text(fields.get("result"), SENTENCE)
    folded.exception = _text(fields.get("exception") or _why_revoked(event), SENTENCE)
    folded.traceback = _text(fields.get("traceback"), TRACEBACK)


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
