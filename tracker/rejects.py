"""What the tracker cannot fold: why, what is written down of it, and how much of that people and a database can bear.

Nothing disappears without a trace: everything is counted, by its reason; the first of it is written down in the table
`rejected_event`, and told in the log.
"""

import json
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from jobrunner.records import RejectedEvent
from jobrunner.text import EVENT, NAME, SENTENCE, bounded
from tracker.fold import Event

logger = logging.getLogger(__name__)

#: Rows that one batch makes at most, and rows per second that a flood makes in the long run (14 MB an hour, if each is
#: as long as can be).
_ROWS = 500
_RATE = 1.0
#: Seconds until a worker's rejected events are told again, if there are still some.
_QUIET = 300.0
#: Names that are kept apart, of workers or of types: foreign text could bring any number of them.
_NAMES = 1_000
_OTHERS = "others"


class Reason(StrEnum):
    """Why something was rejected: a sentence for people, and what it is counted by."""

    NO_VERSION = "The entry does not say of which version it is."
    NEWER = "The entry is of a newer version: upgrade the tracker."
    NO_WRITER = "The entry does not say who wrote it."
    NO_LIST = "The entry is no list of events."
    NOT_JSON = "It is no JSON, or nested too deep to be read."
    NO_EVENT = "It is no event with a type."
    NO_TASK = "It does not say of which task it tells."
    NO_WORKER = "It does not say which worker sent it."
    NO_TIME = "It does not say when, in years that a calendar has."
    NO_LOG = "It is no part of a log: it has no number, or no text."
    NO_FOLD = "It made its turn fail."


@dataclass(slots=True)
class Rejects:
    """What was rejected of one batch: all of it counted by reason and worker, and as rows what may be written down."""

    rows: list[RejectedEvent] = field(default_factory=list)
    counts: Counter[tuple[Reason, str | None]] = field(default_factory=Counter)

    def add(
        self,
        reason: Reason,
        event: object,
        *,
        source: str | None,
        worker: str | None,
        detail: str | None = None,
    ) -> None:
        """Reject an event as JSON has it, or text that is none, as bytes."""
        fields: Mapping[str, Any] = event if isinstance(event, Mapping) else {}
        worker = _name(fields.get("hostname")) or worker
        self.counts[reason, worker] += 1
        if len(self.rows) < _ROWS:
            row = RejectedEvent(
                source=source,
                worker=worker,
                type=_name(fields.get("type")),
                uuid=_name(fields.get("uuid")),
                reason=reason.value,
                detail=None if detail is None else bounded(detail, SENTENCE),
                event=bounded(_written(event), EVENT),
            )
            self.rows.append(row)

    def add_culprit(self, event: Event, error: Exception) -> None:
        """Reject an event because of what it met when it was folded alone."""
        said = getattr(error, "orig", None) or error  # the database's own words, without the statement
        detail = f"{type(said).__name__}: {said}"
        self.add(Reason.NO_FOLD, event.fields, source=event.source, worker=event.worker, detail=detail)


def _name(value: object) -> str | None:
    return bounded(value, NAME) if isinstance(value, str) and value else None


def _written(event: object) -> str:
    if isinstance(event, bytes):
        return event[: 4 * EVENT].decode(errors="replace")
    try:
        return json.dumps(event, ensure_ascii=False)
    except RecursionError:
        fields = event if isinstance(event, dict) else {}
        flat = {name: value for name, value in fields.items() if not isinstance(value, dict | list)}
        return json.dumps(flat | {"…": "nested too deep"}, ensure_ascii=False)


class Tally:
    """Counts what this process has rejected, and tells it: each reason once per worker, and then now and then.

    To be told of a batch once it is committed; times are seconds of a monotonic clock.
    """

    def __init__(self) -> None:
        self.rejected: Counter[Reason] = Counter()
        self.unknown: Counter[str] = Counter()
        self.foreign: Counter[str] = Counter()
        self.unwritten = self.unplaced = 0
        self._told: dict[tuple[Reason, str | None], float] = {}
        self._room, self._since = float(_ROWS), 0.0

    def room(self, moment: float) -> int:
        """Return how many rows may be written."""
        return int(self._room_at(moment))

    def _room_at(self, moment: float) -> float:
        return min(_ROWS, self._room + (moment - self._since) * _RATE)

    def note(self, rejects: Rejects, unknown: Mapping[str, int], moment: float) -> None:
        """Count what a batch held, and tell what is new in it."""
        for type_, number in unknown.items():
            self._count_unknown(type_, number)
        if rejects.counts:
            written = len(rejects.rows)
            self.unwritten += rejects.counts.total() - written
            self._room, self._since = self._room_at(moment) - written, moment
        for (reason, worker), number in rejects.counts.items():
            self.rejected[reason] += number
            self._tell(reason, worker, number, moment)

    def note_foreign(self, foreign: Mapping[str, int]) -> None:
        """Count reports of processes that did not have the task (A5), by worker, and tell the first of each."""
        for worker, number in foreign.items():
            name = worker if worker in self.foreign or len(self.foreign) < _NAMES else _OTHERS
            if name not in self.foreign:
                logger.warning(
                    "Worker %s has reported the end of a task that another one has: kept, and without effect.",
                    worker,
                    extra={"action": "event-foreign", "worker": worker},
                )
            self.foreign[name] += number

    def note_unplaced(self, number: int) -> None:
        """Count events of tasks of which nobody has told to what they belong: their first events were missed."""
        if number and not self.unplaced:
            logger.info(
                "Events of tasks whose first ones nobody has heard are counted, and nothing else.",
                extra={"action": "events-unplaced"},
            )
        self.unplaced += number

    def _count_unknown(self, type_: str, number: int) -> None:
        if type_ not in self.unknown:
            if len(self.unknown) >= _NAMES:
                type_ = _OTHERS
            else:
                logger.info("Events of type %r are counted, and nothing else.", type_, extra={"action": "type-unknown"})
        self.unknown[type_] += number

    def _tell(self, reason: Reason, worker: str | None, number: int, moment: float) -> None:
        key = (reason, worker)
        if key not in self._told and len(self._told) >= _NAMES:
            key = (reason, _OTHERS)
        if key in self._told and moment - self._told[key] < _QUIET:
            return
        self._told[key] = moment
        logger.warning(
            "Rejected %d from worker %r (%d of this kind until now, %d of all kinds only counted): %s",
            number,
            worker,
            self.rejected[reason],
            self.unwritten,
            reason,
            extra={"action": "event-rejected", "worker": worker},
        )
