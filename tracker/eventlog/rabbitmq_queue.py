"""The event log as a durable queue of RabbitMQ: consumed with a prefetch, acknowledged behind the committed position.

A queue has no positions, so the position is the id of the last message that was folded. It matters only after a break:
RabbitMQ then delivers once more, first and in the old order, what was not acknowledged. If the message at the position
is among that, it and all before it have been committed and are passed over. So folding is exactly once here too.
"""

import time
from collections import deque
from typing import Any

from kombu.connection import Connection

from jobrunner.event_log import declare_queue
from jobrunner.text import NAME, bounded
from jobrunner.wire import EVENT_LOG
from tracker.eventlog.entries import Batch, Entry, decode

#: Messages per read; one holds up to 200 events.
_ENTRIES = 50
#: Messages that are pushed ahead of their acknowledgement.
_PREFETCH = 2 * _ENTRIES
#: Most messages that a reader has not acknowledged: what was pushed, and one batch fetched before.
_UNACKNOWLEDGED = _PREFETCH + _ENTRIES
#: Seconds; RabbitMQ ends the connection of a tracker that is frozen after two or three of these, and gives what it had
#: been delivered to the next, which is to be at work within 10 s.
HEARTBEAT = 3.0
#: Seconds in which what the socket holds already is read.
_AT_ONCE = 0.001


class RabbitMQQueue:
    """Reads the queue over a connection of its own.

    First it fetches message by message until RabbitMQ says that there is none, which is the only way to know; from
    then on messages are pushed.
    """

    name = f"rabbitmq:{EVENT_LOG}"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._channel: Any = None
        self._buffer: deque[Any] = deque()
        self._follows = False
        self._position: str | None = None
        self._last_tag: int | None = None

    def read(self, position: str | None, wait: float) -> Batch | None:
        """Return entries behind `position`."""
        if self._channel is not None and position != self._position:
            self.close()  # what was read last was not committed
        if self._channel is None:
            self._connect(position)
        if self._follows:
            self._receive(wait)
        else:
            self._follows = self._fetch(_ENTRIES) and self._follow()
        found = [self._buffer.popleft() for _ in range(min(_ENTRIES, len(self._buffer)))]
        if not found:
            return None
        # Asked in this order: while RabbitMQ answers, it may push what was waiting.
        drained = self._follows and not declare_queue(self._channel)[0] and not self._buffer
        self._last_tag = found[-1].delivery_tag
        self._position = _id(found[-1])
        return Batch(entries=[_entry(message) for message in found], position=self._position, drained=drained)

    def _connect(self, position: str | None) -> None:
        # One try per host: kombu's own patience is longer than the lease.
        self._connection.ensure_connection(max_retries=len(self._connection.alt))
        channel: Any = self._connection.channel()
        _, readers = declare_queue(channel)
        if readers:
            msg = "another tracker, which does not answer, still reads the event log"
            raise ConnectionError(msg)
        channel.basic_qos(0, _PREFETCH, False)
        self._channel, self._position = channel, position
        if position is not None:
            self._pass_over_committed(position)

    def _pass_over_committed(self, position: str) -> None:
        self._fetch(_UNACKNOWLEDGED)
        ids = [_id(message) for message in self._buffer]
        if position not in ids:
            return
        for _ in range(ids.index(position) + 1):
            last = self._buffer.popleft()
        self._channel.basic_ack(last.delivery_tag, multiple=True)

    def _fetch(self, number: int) -> bool:
        """Fetch one by one until there are so many; True if there is nothing more."""
        while len(self._buffer) < number:
            message = self._channel.basic_get(EVENT_LOG)
            if message is None:
                return True
            self._buffer.append(message)
        return False

    def _follow(self) -> bool:
        """Have everything pushed from now on."""
        self._channel.basic_consume(EVENT_LOG, callback=self._buffer.append, exclusive=True)
        return True

    def _receive(self, wait: float) -> None:
        """Wait for a message, and take up what has come with it; without any time to wait, what is there."""
        deadline = time.monotonic() + wait
        while not self._buffer and self._drain(max(_AT_ONCE, deadline - time.monotonic())):
            pass  # what came may be no message, but a heartbeat
        while self._buffer and len(self._buffer) < _ENTRIES and self._drain(_AT_ONCE):
            pass
        self._connection.heartbeat_check()

    def _drain(self, seconds: float) -> bool:
        try:
            self._connection.drain_events(timeout=seconds)
        except TimeoutError:
            return False
        return True

    def trim(self, position: str) -> None:
        """Acknowledge what is committed."""
        if self._last_tag is not None and position == self._position:
            self._channel.basic_ack(self._last_tag, multiple=True)
            self._last_tag = None

    def close(self) -> None:
        """Drop the connection; RabbitMQ then takes back what was not acknowledged."""
        self._channel, self._last_tag, self._follows = None, None, False
        self._buffer = deque()  # a new one: what still comes while the connection closes goes into the old one
        self._connection.close()


def _id(message: Any) -> str:
    return bounded(message.properties.get("message_id"), NAME)


def _entry(message: Any) -> Entry:
    headers = message.headers or {}
    if "v" not in headers and not message.body:  # a wake-up
        return Entry()
    numbers = headers.get("series"), headers.get("number"), headers.get("dropped")
    return decode(headers.get("v"), headers.get("source"), headers.get("worker"), message.body, numbers)
