"""Which worker processes live, judged by what they write into the event log and by our own monotonic clock."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tracker.eventlog import Entry
from tracker.events import integer

#: Seconds of silence after which a worker is taken for lost. Workers send a heartbeat every 2 s.
SILENCE = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A worker process that was not known under its name before."""

    name: str
    source: str
    pid: int | None


@dataclass
class Heard:
    """When each of some workers was last heard, by name, and who has spoken lately."""

    heard: dict[str, float] = field(default_factory=dict)
    fresh: set[str] = field(default_factory=set)

    def note(self, name: str, moment: float) -> None:
        """Note that a worker has spoken."""
        self.heard[name] = moment
        self.fresh.add(name)

    def newly_heard(self) -> set[str]:
        """Return who has spoken since this was asked last."""
        names, self.fresh = self.fresh, set()
        return names

    def silent(self, moment: float) -> list[str]:
        """Return workers not heard for `SILENCE` seconds, and forget them."""
        gone = [name for name, last in self.heard.items() if moment - last > SILENCE]
        for name in gone:
            del self.heard[name]
        return gone


@dataclass
class Roster(Heard):
    """Worker name → the process that bears it, and when it was last heard. In memory; the rows are the database's.

    A process that was replaced does not come back: of two workers under one name, the later one counts.
    """

    sources: dict[str, str] = field(default_factory=dict)
    replaced: set[str] = field(default_factory=set)

    def know(self, sources: dict[str, str], moment: float) -> None:
        """Begin with the workers that a tracker before us waited for: each has a full time-out to be heard."""
        self.sources = dict(sources)
        self.heard = dict.fromkeys(sources, moment)

    def excuse(self, moment: float) -> None:
        """Give everybody a full time-out again: nobody could be heard until now."""
        self.heard = dict.fromkeys(self.heard, moment)

    def hear(self, entries: Iterable[Entry], moment: float) -> list[Arrival]:
        """Note who has spoken, and return the processes that are new."""
        arrivals = []
        for entry in entries:
            if entry.source is None or not entry.worker or entry.source in self.replaced:
                continue
            name = entry.worker
            if self.sources.get(name) != entry.source:
                if name in self.sources:
                    self.replaced.add(self.sources[name])
                self.sources[name] = entry.source
                arrivals.append(Arrival(name=name, source=entry.source, pid=_pid(entry.events)))
            self.note(name, moment)
        return arrivals

    def silent(self, moment: float) -> list[str]:
        """Return workers not heard for `SILENCE` seconds, and forget them and their processes."""
        gone = super().silent(moment)
        for name in gone:
            del self.sources[name]
        return gone


def _pid(events: Sequence[Any]) -> int | None:
    return next((integer(one.get("pid")) for one in events if isinstance(one, dict)), None)
