"""What a worker process writes into the event log: events, each encoded once, in batches that are numbered."""

import json
import logging
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from jobrunner.event_log import WrittenBatch
from jobrunner.wire import SERIES_PAUSE, TASK_LOGGED, VERSION

logger = logging.getLogger(__name__)

#: Events that others like it make up for, and what tasks log: they are the first to go.
_EXPENDABLE = frozenset({"worker-heartbeat", TASK_LOGGED})
#: Bytes of a batch, unless one event alone is longer; and of the longest event. The log is bounded by how many batches
#: it has. RabbitMQ refuses messages above 16 MB since its version 4, and one that no broker takes would hold up all
#: behind it.
_SIZE = 250_000
LONGEST = 15_000_000
_JSON = json.JSONEncoder(default=str)


class EncodedEvent(NamedTuple):
    """An event as JSON, which is what the log and monitors get; and what must be known of it beside."""

    type: str
    hostname: str
    text: str
    monitored: bool

    @property
    def expendable(self) -> bool:
        """Whether the log may do without it."""
        return self.type in _EXPENDABLE


def encode(event: dict[str, Any], monitored: bool) -> EncodedEvent | None:
    """Return an event as JSON; None, and told, for one that cannot be: it must not hold up the others."""
    try:
        text = _JSON.encode(event)
    except (TypeError, ValueError, RecursionError):
        logger.exception("An event %s was left out.", event["type"], extra={"action": "event-rejected"})
        return None
    if len(text) > LONGEST:
        msg = "An event %s was left out: it has %d bytes, more than %d."
        logger.error(msg, event["type"], len(text), LONGEST, extra={"action": "event-rejected"})
        return None
    return EncodedEvent(event["type"], event["hostname"], text, monitored)


def as_list(events: Iterable[EncodedEvent]) -> str:
    """Return events as one JSON list."""
    return f"[{', '.join(event.text for event in events)}]"


def fitting(events: Iterable[EncodedEvent]) -> Iterator[list[EncodedEvent]]:
    """Yield events in as few lists as fit into a batch."""
    part: list[EncodedEvent] = []
    size = 0
    for event in events:
        if part and size + len(event.text) > _SIZE:
            yield part
            part, size = [], 0
        part.append(event)
        size += len(event.text)
    if part:
        yield part


class Series:
    """Makes the batches of one process, numbered from 1; their order is that of the calls.

    After a long silence it begins anew, so that trackers may forget processes that are gone: a pool makes many.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._begin()

    def _begin(self) -> None:
        self._id, self._number, self._spoke_at = str(uuid.uuid4()), 0, time.time()

    def batch(self, worker: str, events: Iterable[EncodedEvent], dropped: int) -> WrittenBatch:
        """Return the next batch; `dropped` is how many events the process has lost until now."""
        now = time.time()  # the machine may have slept
        if now - self._spoke_at > SERIES_PAUSE:
            self._begin()
        self._number, self._spoke_at = self._number + 1, now
        return WrittenBatch(
            v=VERSION,
            source=self._source,
            worker=worker,
            events=as_list(events),
            series=self._id,
            number=self._number,
            dropped=dropped,
        )
