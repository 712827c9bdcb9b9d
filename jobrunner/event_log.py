"""Writing to the event log, whichever broker holds it: a stream on Redis, a durable queue on RabbitMQ.

Workers append batches of events, clients wake the tracker up; only the tracker reads (`tracker.eventlog`).
"""

import time
import uuid
from typing import Any, NotRequired, Protocol, TypedDict

from kombu.connection import Connection

from jobrunner.confirms import ConfirmedChannel
from jobrunner.errors import UnreachableError
from jobrunner.wire import EVENT_LOG

#: Seconds that RabbitMQ may take to confirm a batch of events.
_CONFIRM = 10.0
#: Seconds from one question how long RabbitMQ's queue is to the next; in between, what we add is counted.
_COUNT = 1.0
#: Entries that wake a tracker up by themselves; of those that were read, fewer are left in a stream.
_AWAKE = 1_000
#: Milliseconds after which RabbitMQ forgets a wake-up that nobody was there to hear.
_WAKE_EXPIRES = "60000"


class WrittenBatch(TypedDict):
    """A batch of events of one process, as it is written: the version of its form, who wrote it, and JSON.

    The batches of a `series` are numbered from 1, without gaps and in the order in which they are written; `dropped` is
    how many events of the series went into none of them. Other writers than workers need none of the three.
    """

    v: int
    source: str
    worker: str
    events: str
    series: NotRequired[str]
    number: NotRequired[int]
    dropped: NotRequired[int]


class EventLogWriter(Protocol):
    """Appends to the log over a connection that is already there; raises the errors of that broker."""

    def append(self, batch: WrittenBatch) -> int:
        """Write a batch; when this returns, the broker has it. Return about how many entries the log has now."""

    def length(self) -> int:
        """Return how many entries the log has."""

    def wake(self) -> None:
        """Write an empty entry, for a tracker that waits for one; it does not matter if it is lost."""


def open_writer(connection: Connection) -> EventLogWriter:
    """Return the writer for the broker of this connection."""
    return QueueWriter(connection) if connection.transport.driver_type == "amqp" else StreamWriter(connection)


class StreamWriter:
    """Adds entries to a Redis stream."""

    def __init__(self, connection: Connection) -> None:
        self._channel: Any = connection.default_channel

    def append(self, batch: WrittenBatch) -> int:
        """Write a batch; its length comes with the answer."""
        pipeline = self._channel.client.pipeline(transaction=False)
        pipeline.xadd(EVENT_LOG, batch)
        pipeline.xlen(EVENT_LOG)
        length: int = pipeline.execute()[-1]
        return length

    def length(self) -> int:
        """Ask Redis."""
        length: int = self._channel.client.xlen(EVENT_LOG)
        return length

    def wake(self) -> None:
        """Write an empty entry, unless many are there: then the tracker is awake, or there is none."""
        if self.length() < _AWAKE:
            self._channel.client.xadd(EVENT_LOG, {"wake": "1"})


class QueueWriter:
    """Publishes persistent messages to a durable queue, and waits until RabbitMQ confirms them.

    Each has an id, by which the tracker knows how far it had got when it reads on after a break.
    """

    def __init__(self, connection: Connection) -> None:
        self._confirmed = ConfirmedChannel(connection)
        self._length = 0
        self.length()

    def append(self, batch: WrittenBatch) -> int:
        """Write a batch."""
        headers = {name: value for name, value in batch.items() if name != "events"}
        self._publish(batch["events"].encode(), headers=headers, delivery_mode=2)
        if any(self._confirmed.wait(_CONFIRM)):
            msg = f"RabbitMQ has not taken a batch of events: its queue {EVENT_LOG!r} is gone or full."
            raise UnreachableError(msg, "It is tried again with a new connection.")
        self._length += 1
        return self.length() if time.monotonic() - self._counted > _COUNT else self._length

    def length(self) -> int:
        """Ask RabbitMQ; what a tracker has been given and not acknowledged is not among it."""
        self._counted = time.monotonic()
        self._length, _ = declare_queue(self._confirmed.channel)
        return self._length

    def wake(self) -> None:
        """Write an empty entry."""
        self._publish(b"", delivery_mode=1, expiration=_WAKE_EXPIRES)

    def _publish(self, body: bytes, headers: dict[str, object] | None = None, **properties: object) -> None:
        channel = self._confirmed.channel
        properties["message_id"] = uuid.uuid4().hex
        message = channel.prepare_message(body, content_type="application/json", headers=headers, properties=properties)
        channel.basic_publish(message, exchange="", routing_key=EVENT_LOG, mandatory=True)
        self._confirmed.count()


def declare_queue(channel: Any) -> tuple[int, int]:
    """Make the queue if it is not there; return how many messages wait in it and how many readers it has."""
    found = channel.queue_declare(EVENT_LOG, durable=True, auto_delete=False)
    return found.message_count, found.consumer_count
