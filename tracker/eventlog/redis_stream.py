"""The event log as a Redis stream: one entry per batch, read with XREAD, trimmed behind the committed position."""

import logging
import time
from typing import Any

from kombu.connection import Connection
from redis import Redis, ResponseError

from jobrunner.wire import EVENT_LOG
from tracker.eventlog.entries import Batch, Entry, decode

logger = logging.getLogger(__name__)

#: Entries per read; an entry holds up to 200 events.
_ENTRIES = 50
_BEGINNING = "0-0"
#: Seconds from one trim to the next.
_TRIM = 1.0


class RedisStream:
    """Reads the stream over a connection of its own."""

    name = f"redis:{EVENT_LOG}"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._redis: Redis | None = None
        self._anew = False
        self._trimmed = time.monotonic()

    def read(self, position: str | None, wait: float) -> Batch | None:
        """Return entries behind `position`; raises the broker's connection errors."""
        redis = self._connected(position or _BEGINNING)
        if position is not None and not self._anew:
            self.trim(position)  # also when nothing comes any more: workers may wait for room
        start = _BEGINNING if self._anew else position or _BEGINNING
        answer: Any = redis.xread({EVENT_LOG: start}, count=_ENTRIES, block=max(1, int(wait * 1000)))
        if not answer:
            return None
        self._anew = False
        found = answer[0][1] if isinstance(answer, list) else next(iter(answer.values()))[0]
        entries = [_entry(fields) for _, fields in found]
        return Batch(entries=entries, position=found[-1][0].decode(), drained=len(found) < _ENTRIES)

    def _connected(self, position: str) -> Redis:
        if self._redis is None:
            # One try per host: kombu's own patience is longer than the lease.
            self._connection.ensure_connection(max_retries=len(self._connection.alt))
            channel: Any = self._connection.default_channel
            client: Redis = channel.client
            self._anew = _is_another(client, position)
            self._redis = client
        return self._redis

    def trim(self, position: str) -> None:
        """Forget what is committed; now and then, so that it costs nothing."""
        if self._redis is not None and time.monotonic() - self._trimmed > _TRIM:
            self._trimmed = time.monotonic()
            self._redis.xtrim(EVENT_LOG, minid=position, approximate=False)

    def close(self) -> None:
        """Drop the connection; the next read makes a new one."""
        self._redis = None
        self._connection.close()


def _is_another(redis: Redis, position: str) -> bool:
    """Whether the stream ends below the position: then it is not the one read before, and to be read from its start."""
    try:
        last = redis.xinfo_stream(EVENT_LOG)["last-generated-id"].decode()
    except ResponseError:  # no such key: nothing was ever written, or the broker has lost it
        last = _BEGINNING
    if _order(last) >= _order(position):
        return False
    logger.warning(
        "The event log ends at %s, below %s: the broker has lost its data. Reading from its beginning.",
        last,
        position,
        extra={"action": "event-log-lost"},
    )
    return True


def _order(stream_id: str) -> tuple[int, int]:
    milliseconds, _, number = stream_id.partition("-")
    return int(milliseconds), int(number)


def _entry(fields: dict[bytes, bytes]) -> Entry:
    if b"wake" in fields:
        return Entry()
    # An entry without events is none of ours: it is rejected as a whole.
    events = fields.get(b"events", fields)
    numbers = fields.get(b"series"), fields.get(b"number"), fields.get(b"dropped")
    return decode(fields.get(b"v"), fields.get(b"source"), fields.get(b"worker"), events, numbers)
