"""The event log as a Redis stream: one entry per batch, read with XREAD, trimmed behind the committed position."""

import json
import logging
from typing import Any

from kombu.connection import Connection
from redis import Redis, ResponseError

from jobrunner.wire import EVENT_LOG, VERSION
from tracker.eventlog import Batch, Entry

logger = logging.getLogger(__name__)

#: Entries per read; an entry holds up to 200 events.
_ENTRIES = 50
_BEGINNING = "0-0"


class RedisStream:
    """Reads the stream over a connection of its own."""

    name = f"redis:{EVENT_LOG}"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._redis: Redis | None = None

    def read(self, position: str | None, wait: float) -> Batch | None:
        """Return entries behind `position`; raises the broker's connection errors."""
        redis, position = self._connected(position)
        answer: Any = redis.xread({EVENT_LOG: position}, count=_ENTRIES, block=max(1, int(wait * 1000)))
        if not answer:
            return None
        found = answer[0][1] if isinstance(answer, list) else next(iter(answer.values()))[0]
        return Batch(entries=[_entry(fields) for _, fields in found], position=found[-1][0].decode())

    def _connected(self, position: str | None) -> tuple[Redis, str]:
        if self._redis is None:
            # One try per host: kombu's own patience is longer than the lease.
            self._connection.ensure_connection(max_retries=len(self._connection.alt))
            channel: Any = self._connection.default_channel
            client: Redis = channel.client
            position = _checked(client, position or _BEGINNING)
            self._redis = client
        return self._redis, position or _BEGINNING

    def trim(self, position: str) -> None:
        """Forget what is committed; approximately, so that it costs nothing."""
        if self._redis is not None:
            self._redis.xtrim(EVENT_LOG, minid=position, approximate=True)

    def close(self) -> None:
        """Drop the connection; the next read makes a new one."""
        self._redis = None
        self._connection.close()


def _checked(redis: Redis, position: str) -> str:
    """Return the position, or the beginning if the stream ends below it: then it is not the stream read before."""
    try:
        last = redis.xinfo_stream(EVENT_LOG)["last-generated-id"].decode()
    except ResponseError:  # no such key: nothing was ever written, or the broker has lost it
        last = _BEGINNING
    if _order(last) >= _order(position):
        return position
    logger.warning(
        "The event log ends at %s, below %s: the broker has lost its data. Reading from its beginning.",
        last,
        position,
        extra={"action": "event-log-lost"},
    )
    return _BEGINNING


def _order(stream_id: str) -> tuple[int, int]:
    milliseconds, _, number = stream_id.partition("-")
    return int(milliseconds), int(number)


def _entry(fields: dict[bytes, bytes]) -> Entry:
    """Decode an entry; what is malformed or newer than this version is left out and told."""
    if b"events" not in fields:
        return Entry()
    try:
        if int(fields[b"v"]) > VERSION:
            logger.error("Events of version %s are newer than this tracker: upgrade it.", int(fields[b"v"]))
            return Entry()
        events = json.loads(fields[b"events"])
        source, number = fields[b"source"].decode(), int(fields[b"number"])
    except (KeyError, ValueError):
        logger.exception("A malformed entry of the event log was left out.", extra={"action": "event-rejected"})
        return Entry()
    return Entry(source=source, number=number, events=events if isinstance(events, list) else [])
