"""What an event log holds, and what one read of it yields; the boundary where an entry is checked."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from jobrunner.text import NAME, SOURCE, bounded
from jobrunner.wire import VERSION
from tracker.eventlog.items import split_list
from tracker.rejects import Reason

#: Below this are numbers that a process can have reached.
_NUMBERS = 2**31
#: What cannot be read: why, and its text.
Malformed: TypeAlias = tuple[Reason, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbered:
    """Which batch of its series an entry is, from 1, and how many events the series had lost before it was written."""

    series: str
    number: int
    dropped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One batch of events of one worker process, as it was written; without events a sign of life, or a wake-up.

    What could not be read of it is `malformed`; the others are there all the same.
    """

    source: str | None = None
    worker: str | None = None
    events: Sequence[Any] = ()
    malformed: Sequence[Malformed] = ()
    numbered: Numbered | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one read found: entries in order, the position behind the last of them, and whether it was all there is."""

    entries: Sequence[Entry]
    position: str
    drained: bool


class EventLog(Protocol):
    """A log that is read from a position which the reader keeps itself, in its own transaction.

    Every method raises the errors of its broker; after one, `close` and read on.
    """

    name: str

    def read(self, position: str | None, wait: float) -> Batch | None:
        """Return entries behind `position`, waiting at most `wait` seconds for one; None if there is none.

        What was read and not committed is read again from the position before it.
        """

    def trim(self, position: str) -> None:
        """Forget entries up to `position`, that of the last batch: they are in the database. Cheap; for every turn."""

    def close(self) -> None:
        """Give the connection back; the next read makes a new one."""


def decode(version: Any, source: Any, worker: Any, events: Any, numbers: tuple[Any, Any, Any] | None = None) -> Entry:
    """Return an entry from its parts, whatever they are; what cannot be read of it is `malformed`.

    `numbers` are its series, number and dropped events, which not every writer gives.
    """
    text = _bytes(events)
    number = _number(version)
    if number is None or number > VERSION:
        return Entry(malformed=[(Reason.NO_VERSION if number is None else Reason.NEWER, text)])
    writer = _text(source), _text(worker)
    if writer[0] is None or writer[1] is None:
        return Entry(malformed=[(Reason.NO_WRITER, text)])
    told, malformed = _items(text)
    return Entry(
        source=bounded(writer[0], SOURCE),
        worker=bounded(writer[1], NAME),
        events=told,
        malformed=malformed,
        numbered=_numbered(*numbers) if numbers else None,
    )


def _numbered(series: Any, number: Any, dropped: Any) -> Numbered | None:
    """Return which batch of its series it is, None if it does not say so in numbers that a column holds."""
    name, place, lost = _text(series), _number(number), _number(dropped)
    if name is None or place is None or lost is None or not (0 < place < _NUMBERS and 0 <= lost < _NUMBERS):
        return None
    return Numbered(series=bounded(name, SOURCE), number=place, dropped=lost)


def plain_entry(body: Any) -> Entry:
    """Return what a worker without jobrunner has published: JSON of one event, or of a list of them."""
    text = _bytes(body)
    told, malformed = _items(text if text.lstrip().startswith(b"[") else b"[%b]" % text)
    return Entry(events=told, malformed=malformed)


def _items(text: bytes) -> tuple[Sequence[Any], Sequence[Malformed]]:
    """Return the events of a list, and what is malformed; a list that cannot be read at once, item by item."""
    with suppress(ValueError, RecursionError):
        told = json.loads(text)
        return (told, ()) if isinstance(told, list) else ((), [(Reason.NO_LIST, text)])
    whole = text.decode(errors="replace")
    if not whole.lstrip().startswith("["):
        return (), [(Reason.NO_LIST, text)]
    events, malformed = [], []
    for item in split_list(whole):
        try:
            events.append(json.loads(item))
        except (ValueError, RecursionError):
            if item.strip():
                malformed.append((Reason.NOT_JSON, item.encode(errors="replace")))
    return events, malformed


def _bytes(value: Any) -> bytes:
    return bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode(errors="replace")


def _number(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _text(value: Any) -> str | None:
    """Return text that came as such or as bytes, None for anything else."""
    if isinstance(value, bytes | memoryview):
        return bytes(value).decode(errors="replace")
    return value if isinstance(value, str) else None
