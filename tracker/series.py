"""What of the event log never arrived, by the numbers of its batches.

A broker that loses what it has confirmed, or somebody who empties the log, leaves a gap. Nobody can tell what was in
it; but it is counted, told, and shown by `jobrunner workers`.

The last number of each series is kept in the transaction that folds the batch, so that a tracker that takes over goes
on from there. A batch that comes twice is no gap: a worker writes again what it is not sure of. Where the database
knows of no series at all, trackers did not count before, or read another database: each is taken up where it is found.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from jobrunner.records import Loss, Series
from jobrunner.store import tracking
from jobrunner.wire import SERIES_FORGOTTEN, SERIES_PAUSE
from tracker.eventlog import Entry
from tracker.turn import Turn

logger = logging.getLogger(__name__)

#: Seconds until more of the same loss of a worker is told.
_QUIET = 300.0
_FORGOTTEN = timedelta(seconds=SERIES_FORGOTTEN)


@dataclass(slots=True)
class Numbering:
    """Series by id, as far as they were read; in memory, the rows are the database's."""

    known: dict[str, Series] = field(default_factory=dict)
    takes_up: bool = True
    told: dict[tuple[str, str], float] = field(default_factory=dict)
    forgot: float = 0.0

    def know(self, series: dict[str, Series], moment: float) -> None:
        """Begin with what trackers before us have read."""
        self.known, self.takes_up, self.forgot = series, not series, moment

    def follow(self, entries: Iterable[Entry]) -> tuple[dict[str, Series], list[Loss]]:
        """Return the series that were read on, and what is lost of them."""
        read, losses = {}, []
        for entry in entries:
            if entry.numbered is None:
                continue
            here = Series(
                id=entry.numbered.series,
                worker=entry.worker or "",
                number=entry.numbered.number,
                dropped=entry.numbered.dropped,
            )
            before = self.known.get(here.id) or replace(here, number=here.number - 1 if self.takes_up else 0, dropped=0)
            if here.number <= before.number:
                continue
            self.known[here.id] = read[here.id] = here
            loss = _between(before, here)
            if loss.events or loss.missed:
                losses.append(loss)
        return read, losses

    def note(self, turn: Turn, entries: Sequence[Entry]) -> list[Loss]:
        """Follow, and write down what that gives; return what is lost."""
        new = {entry.numbered.series for entry in entries if entry.numbered} - self.known.keys()
        read, losses = self.follow(entries)
        tracking.save_series(turn.connection, list(read.values()), new, turn.now)
        tracking.add_losses(turn.connection, losses)
        return losses

    def tell(self, losses: Iterable[Loss], moment: float) -> None:
        """Tell what is lost, once it is committed: the first of a worker at once, more of it now and then."""
        for loss in losses:
            if loss.missed and self._is_due(loss, "missed", moment):
                logger.error(
                    "Batches %d to %d of worker %r never arrived (series %s): the event log has lost them.",
                    loss.missed[0],
                    loss.missed[-1],
                    loss.worker,
                    loss.series,
                    extra={"action": "batches-missed", "worker": loss.worker},
                )
            if loss.events and self._is_due(loss, "dropped", moment):
                logger.error(
                    "Worker %r has dropped %d events: too many waited, or they could not be written (series %s).",
                    loss.worker,
                    loss.events,
                    loss.series,
                    extra={"action": "events-dropped", "worker": loss.worker},
                )

    def _is_due(self, loss: Loss, what: str, moment: float) -> bool:
        if moment - self.told.get((loss.worker, what), -_QUIET) < _QUIET:
            return False
        self.told[loss.worker, what] = moment
        return True

    def forget(self, turn: Turn, moment: float) -> None:
        """Forget series that have ended, now and then; only while the log is drained, so that none has yet to speak."""
        if moment - self.forgot > SERIES_PAUSE:
            tracking.forget_series(turn.connection, turn.now - _FORGOTTEN)
            self.known, self.forgot = tracking.known_series(turn.connection), moment


def _between(before: Series, here: Series) -> Loss:
    return Loss(
        worker=here.worker,
        series=here.id,
        events=max(0, here.dropped - before.dropped),
        missed=range(before.number + 1, here.number),
    )
