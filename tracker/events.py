"""From what a worker wrote to what the tracker folds: the boundary where foreign data is checked and bounded.

What an event cannot be folded without must be right, or it is rejected: its type, task, worker and time. Whatever else
is odd in it is taken for unknown. An event whose type nobody knows is not odd, and only counted.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from jobrunner.text import NAME, bounded
from jobrunner.wire import SNAPSHOT_APPLIED, TASK_LOGGED
from tracker.eventlog import Entry
from tracker.fold import FOLDED, Event
from tracker.growth import TASK_ADDED
from tracker.observe import TASK_SENT
from tracker.rejects import Reason, Rejects

#: What the tracker does something with.
_OF_TASKS = frozenset({*FOLDED, TASK_SENT, TASK_ADDED, TASK_LOGGED})
_KNOWN = frozenset({*_OF_TASKS, "worker-online", "worker-heartbeat", "worker-offline", SNAPSHOT_APPLIED})
#: Seconds since 1970 that have a date in every time zone: PostgreSQL tells times in that of the session.
_FIRST = datetime(1, 1, 2, tzinfo=UTC).timestamp()
_LAST = datetime(9999, 12, 30, tzinfo=UTC).timestamp()
#: Below what a column holds, because the tracker counts on from there.
_RETRIES = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a batch holds: events to fold, what was rejected, and how many there are of each unknown type."""

    events: list[Event] = field(default_factory=list)
    rejects: Rejects = field(default_factory=Rejects)
    unknown: Counter[str] = field(default_factory=Counter)


def read_events(entries: Iterable[Entry]) -> Told:
    """Return what these entries tell; whatever they hold, this does not fail."""
    told = Told()
    for entry in entries:
        for reason, text in entry.malformed:
            told.rejects.add(reason, text, source=entry.source, worker=entry.worker)
        for raw in entry.events:
            fault = _fault(raw)
            if fault is not None:
                told.rejects.add(fault, raw, source=entry.source, worker=entry.worker)
            elif raw["type"] in _KNOWN:
                told.events.append(_event(raw, entry.source))
            else:
                told.unknown[bounded(raw["type"], NAME)] += 1
    return told


def _fault(raw: Any) -> Reason | None:
    """Return what is wrong with an event, None if nothing that matters is."""
    if not isinstance(raw, dict) or not _is_text(raw.get("type")):
        return Reason.NO_EVENT
    if raw["type"] not in _KNOWN:
        return None
    if raw["type"] in _OF_TASKS and not _is_text(raw.get("uuid")):
        return Reason.NO_TASK
    if not _is_text(raw.get("hostname")):
        return Reason.NO_WORKER
    if not _is_time(raw.get("timestamp")):
        return Reason.NO_TIME
    return Reason.NO_LOG if raw["type"] == TASK_LOGGED and not _is_log(raw) else None


def _is_log(raw: Mapping[str, Any]) -> bool:
    return integer(raw.get("number")) is not None and isinstance(raw.get("text"), str)


def _event(raw: Mapping[str, Any], source: str | None) -> Event:
    return Event(
        type=raw["type"],
        uuid=bounded(raw["uuid"], NAME) if _is_text(raw.get("uuid")) else "",
        worker=bounded(raw["hostname"], NAME),
        at=datetime.fromtimestamp(raw["timestamp"], UTC),
        source=source,
        pid=integer(raw.get("pid")),
        retries=integer(raw.get("retries"), below=_RETRIES),
        fields=raw,
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and _FIRST <= value <= _LAST


def integer(value: object, *, below: int = 2**31) -> int | None:
    """Return a number of something that a column holds, None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < below else None
