"""Which workers live and whether all that they have told has arrived: what a leader knows of them between its turns."""

import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from jobrunner.store import tracking
from tracker.eventlog import Entry
from tracker.fold import Event
from tracker.lossy import LossyWorkers
from tracker.roster import Arrival, Roster
from tracker.series import Numbering
from tracker.turn import Turn

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from jobrunner.records import Loss

#: Seconds between two notes of who was heard: people read them, nothing is decided by them.
_NOTE = 5.0


class Hearing:
    """Workers as the present leader hears them; its memory begins with what the database knows."""

    def __init__(self) -> None:
        self._roster = Roster()
        self._lossy = LossyWorkers()
        self._numbering = Numbering()
        self._noted_at = time.monotonic()
        self._lost: list[Loss] = []

    def know(self, connection: "Connection") -> None:
        """Begin with the workers that a tracker before us waited for."""
        moment = time.monotonic()
        self._roster.know(tracking.workers_to_hear(connection), moment)
        self._lossy.know(tracking.lossy_workers(connection), moment)
        self._numbering.know(tracking.known_series(connection), moment)

    def excuse(self) -> None:
        """Give everybody a full time-out again: nobody could be heard until now."""
        self._roster.excuse(time.monotonic())
        self._lossy.know((), time.monotonic())

    @property
    def replaced(self) -> Collection[str]:
        """Processes whose name another one bears by now."""
        return self._roster.replaced

    def arrivals(self, entries: Sequence[Entry]) -> list[Arrival]:
        """Note who has spoken, and return the processes that are new."""
        return self._roster.hear(entries, time.monotonic())

    def heard_late(self) -> dict[str, str | None]:
        """Return the workers of whose replaced processes something was heard, each with the process that bears it."""
        return self._roster.heard_late()

    def count(self, turn: Turn, entries: Sequence[Entry]) -> None:
        """Note the numbers of batches, and what they say is missing; to be told once it is committed."""
        self._lost = self._numbering.note(turn, entries)

    def tell_losses(self) -> None:
        """Tell what the turn that is committed has found missing."""
        self._numbering.tell(self._lost, time.monotonic())

    def hear_lossy(self, turn: Turn, events: Sequence[Event]) -> None:
        """Note which workers without jobrunner come, go, or are silent."""
        moment = time.monotonic()
        for name, event in self._lossy.hear(events, moment).items():
            online, process = event.type != "worker-offline", f"lossy:{event.pid}"
            tracking.save_worker(turn.connection, name, process, event.pid, online=online, now=turn.now, lossy=True)
        for name in self._lossy.silent(moment):
            tracking.lose_worker(turn.connection, name)

    def silent(self) -> list[str]:
        """Return workers that have been silent for too long, and forget them."""
        return self._roster.silent(time.monotonic())

    def forget_series(self, turn: Turn) -> None:
        """Forget series of batches that nobody goes on with."""
        self._numbering.forget(turn, time.monotonic())

    def note(self, turn: Turn) -> None:
        """Write down who was heard, from time to time."""
        if time.monotonic() - self._noted_at > _NOTE:
            self._noted_at = time.monotonic()
            tracking.note_heard(turn.connection, self._roster.newly_heard() | self._lossy.newly_heard(), turn.now)
