"""The event log: the durable queue of event batches between workers and tracker, one module per broker."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


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
    """A log that is read from a position which the reader keeps itself, in its own transaction."""

    name: str

    def read(self, position: str | None, wait: float) -> Batch | None:
        """Return entries behind `position`, waiting at most `wait` seconds for one; None if there is none."""

    def trim(self, position: str) -> None:
        """Forget entries up to `position`: they are in the database."""

    def close(self) -> None:
        """Give the connection back."""
