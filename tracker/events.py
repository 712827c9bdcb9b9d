"""From what a worker wrote to what the tracker folds: the boundary where foreign data is checked and bounded."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from jobrunner.text import NAME, bounded
from tracker.eventlog import Entry
from tracker.fold import Event


def read_events(entries: Iterable[Entry]) -> Iterator[Event]:
    """Yield the events of these entries that are well formed."""
    for entry in entries:
        for raw in entry.events:
            event = _event(raw, entry.source)
            if event is not None:
                yield event


def _event(raw: Any, source: str | None) -> Event | None:
    try:
        return Event(
            type=str(raw["type"]),
            uuid=bounded(raw.get("uuid") or "", NAME),
            worker=bounded(raw["hostname"], NAME),
            at=datetime.fromtimestamp(float(raw["timestamp"]), UTC),
            source=source,
            pid=integer(raw.get("pid")),
            retries=integer(raw.get("retries")),
            fields=raw,
        )
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return None


def integer(value: object) -> int | None:
    """Return a number that a column holds, None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31 else None
