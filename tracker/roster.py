"""Which worker processes live, judged by what they write into the event log and by our own monotonic clock."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobrunner.wire import SNAPSHOT_APPLIED
from tracker.eventlog import Entry
from tracker.events import integer

#: Seconds of silence after which a worker is taken for lost. Workers send a heartbeat every 2 s.
SILENCE = 30.0
#: What a worker's main process says first, unless it only says that it lives. Processes of its pool say none of it.
_FIRST = frozenset({"worker-online", "worker-heartbeat", SNAPSHOT_APPLIED})


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

    A process that was replaced does not come back: of two workers under one name, the later one counts. Which one that
    is, is told by the first words of a worker's main process. Whoever else speaks under a name that another process
    bears was replaced before we listened: it is about to end, or a process of a killed worker's pool goes on with its
    task. Should that be wrong, because first words were lost, the name is free when its bearer has been silent.
    """

    sources: dict[str, str] = field(default_factory=dict)
    replaced: set[str] = field(default_factory=set)
    #: Workers of whose replaced processes something was heard since it was asked last.
    late: set[str] = field(default_factory=set)
    _before_us: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

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
            if entry.source is None or not entry.worker:
                continue
            name = entry.worker
            if self._is_of_before(name, entry):
                self.late.add(name)
                continue
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
            self.replaced -= self._before_us.pop(name, set())
        return gone

    def heard_late(self) -> dict[str, str | None]:
        """Return the workers of whose replaced processes something was heard, each with the process that bears it."""
        names, self.late = self.late, set()
        return {name: self.sources.get(name) for name in names}

    def _is_of_before(self, name: str, entry: Entry) -> bool:
        source = entry.source or ""
        if source not in self.replaced and self.sources.get(name, source) != source and not _is_first(entry):
            self.replaced.add(source)
            self._before_us[name].add(source)
        return source in self.replaced


def _is_first(entry: Entry) -> bool:
    """Whether these may be the first words of a worker's main process."""
    if entry.numbered is not None and entry.numbered.number > 1:
        return False
    types = [one.get("type") for one in entry.events if isinstance(one, dict)]
    return not types or any(one in _FIRST for one in types)


def _pid(events: Sequence[Any]) -> int | None:
    return next((integer(one.get("pid")) for one in events if isinstance(one, dict)), None)
