"""What an event log holds, and what one read of it yields; the boundary where an entry is checked."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from jobrunner.text import NAME, SOURCE, bounded
from jobrunner.wire import VERSION

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One batch of events of one worker process, as it was written; without events a sign of life, or a wake-up."""

    source: str | None = None
    worker: str | None = None
    events: Sequence[Any] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one read found: entries in order, the position behind the last of them, and whether it was all there is."""

    entries: Sequence[Entry]
    position: str
    drained: bool

    @property
    def size(self) -> int:
        """How many events it holds."""
        return sum(len(entry.events) for entry in self.entries)


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


def decode(version: Any, source: Any, worker: Any, events: bytes | str) -> Entry:
    """Return an entry from its parts; what is malformed or newer than this version is told, and empty."""
    try:
        if int(version) > VERSION:
            logger.error("Events of version %s are newer than this tracker: upgrade it.", int(version))
            return Entry()
        told = json.loads(events)
        names = bounded(_text(source), SOURCE), bounded(_text(worker), NAME)
    except (TypeError, ValueError, RecursionError):
        logger.exception("A malformed entry of the event log was left out.", extra={"action": "event-rejected"})
        return Entry()
    return Entry(source=names[0], worker=names[1], events=told if isinstance(told, list) else [])


def _text(value: Any) -> str:
    if not isinstance(value, bytes | str):
        msg = f"{value!r} is no text"
        raise TypeError(msg)
    return value.decode() if isinstance(value, bytes) else value
