"""Batches on their way into the event log, which must not fill the broker while no tracker reads it.

Half of what the log may hold is for events that must not be lost alone. When all of it is used, these wait in this
process, which is bounded too.
"""

import logging
import time
from collections import deque
from typing import NamedTuple

from jobrunner.event_log import EventLogWriter, WrittenBatch
from workers.telling import Telling

logger = logging.getLogger(__name__)

#: Seconds between two looks at a log that is long.
_LOOK = 1.0
_REMEDY = "Start a tracker, `jobrunner tracker`; or let more wait, with JOBRUNNER_EVENT_LOG_LIMIT."


class _Waiting(NamedTuple):
    """A batch, how many events it has, and who waits for it if somebody does."""

    batch: WrittenBatch
    events: int
    telling: Telling | None


class Backlog:
    """Batches that the log has no room for, the first first; `limit` is how many entries it may have.

    How many it has comes with the answer to each batch, so that processes which write at the same time may exceed the
    limit by one batch each, on RabbitMQ by what they write within a second.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[_Waiting] = deque()
        self._length = 0
        self._looked_at = 0.0
        self._said_half = self._said_full = False
        self.events = 0

    @property
    def is_long(self) -> bool:
        """Whether the log has room only for events that must not be lost."""
        return self._length >= max(1, self._limit // 2)

    @property
    def is_stuck(self) -> bool:
        """Whether batches wait, and the log is full."""
        return bool(self._waiting) and self._length >= self._limit

    def add(self, batch: WrittenBatch, events: int, telling: Telling | None = None) -> None:
        """Have a batch of so many events written."""
        self._waiting.append(_Waiting(batch, events, telling))
        self.events += events

    def write(self, log: EventLogWriter, *, whatever: bool = False) -> None:
        """Write what there is room for, or everything; raises the errors of the broker, and nothing is lost then."""
        if self.is_long and time.monotonic() - self._looked_at > _LOOK:
            self._length, self._looked_at = log.length(), time.monotonic()
        while self._waiting and (whatever or self._length < self._limit):
            self._length = _append(log, self._waiting[0])
            self.events -= self._waiting.popleft().events
        self._say()

    def _say(self) -> None:
        if not self.is_long:
            if self._said_half:
                logger.warning("The event log is read again.", extra={"action": "event-log-read"})
            self._said_half = self._said_full = False
        elif not self._said_half:
            self._said_half = True
            logger.warning(
                "The event log has %d entries of at most %d, and is not read: heartbeats are left out, and logs. %s",
                self._length,
                self._limit,
                _REMEDY,
                extra={"action": "event-log-long"},
            )
        if self.is_stuck and not self._said_full:
            self._said_full = True
            logger.error(
                "The event log is full (%d entries): events wait in the worker. %s",
                self._length,
                _REMEDY,
                extra={"action": "event-log-full"},
            )


def _append(log: EventLogWriter, one: _Waiting) -> int:
    """Append a batch; if it was withdrawn, an empty one in its place, since its number must not be missing."""
    if one.telling is None:
        return log.append(one.batch)
    if not one.telling.begin():
        return log.append({**one.batch, "events": "[]"})
    written = False
    try:
        length = log.append(one.batch)
        written = True
    finally:
        one.telling.end(written=written)
    return length
