"""Where task messages go out: in one pipeline on Redis, with confirms and `mandatory` on RabbitMQ."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from amqp.exceptions import ChannelError
from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.messaging import Producer

from jobrunner.confirms import ConfirmedChannel

logger = logging.getLogger(__name__)

#: Seconds that RabbitMQ may take to confirm a batch: less than the lease, so that its end is noticed by ourselves.
_CONFIRM = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """A message on its way: what kombu publishes, and how its queue is made if there is none."""

    celery_id: str
    queue: str
    #: Of a queue that is not simply durable: arguments of kombu's `Queue`, its exchange as a mapping.
    declaration: Mapping[str, Any]
    body: bytes
    headers: dict[str, Any]
    properties: Mapping[str, Any]


class Outlet(Protocol):
    """Publishes over a connection that is already there; raises the broker's errors."""

    def send(self, sendings: Sequence[Sending]) -> list[Sending]:
        """Publish all of these; return those for which there is no queue and none can be made."""


def open_outlet(connection: Connection) -> Outlet:
    """Return the outlet for the broker of this connection."""
    return ConfirmedOutlet(connection) if connection.transport.driver_type == "amqp" else PipelinedOutlet(connection)


class PipelinedOutlet:
    """Redis: all messages of a batch in one round trip. A queue is a list, which is there when something is in it."""

    def __init__(self, connection: Connection) -> None:
        self._producer = Producer(connection.default_channel, auto_declare=False)

    def send(self, sendings: Sequence[Sending]) -> list[Sending]:
        """Publish all of these."""
        with self._producer.batch(max_size=len(sendings)):
            for one in sendings:
                _publish(self._producer, one)
        return []


class ConfirmedOutlet:
    """RabbitMQ: publishes all messages of a batch, then waits until each is confirmed.

    A queue or exchange that is missing is made, as Celery's clients do; one that is there is left alone, whatever it
    looks like. To publish to an exchange that is not there would end the channel, and leave the whole batch in doubt.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._confirmed = ConfirmedChannel(connection)
        self._producer = Producer(self._confirmed.channel, auto_declare=False)
        self._exchanges = {""}

    def send(self, sendings: Sequence[Sending]) -> list[Sending]:
        """Publish all of these."""
        lost = [one for one in sendings if not self._has_exchange(one)]
        homeless = self._publish([one for one in sendings if one not in lost] if lost else sendings)
        for one in {one.queue: one for one in homeless}.values():
            self._make_queue(one)
        return lost + (self._publish(homeless) if homeless else [])

    def _has_exchange(self, sending: Sending) -> bool:
        name = sending.properties["exchange"]
        if name not in self._exchanges:
            if not self._exists(name):
                self._make_queue(sending)
                if not self._exists(name):
                    return False
            self._exchanges.add(name)
        return True

    def _exists(self, exchange: str) -> bool:
        try:
            with self._connection.channel() as channel:
                channel.exchange_declare(exchange, "direct", passive=True)
        except ChannelError:
            return False
        return True

    def _publish(self, sendings: Sequence[Sending]) -> list[Sending]:
        for one in sendings:
            _publish(self._producer, one, mandatory=True)
            self._confirmed.count()
        returned = {message.properties.get("correlation_id") for message in self._confirmed.wait(_CONFIRM)}
        return [one for one in sendings if one.celery_id in returned]

    def _make_queue(self, sending: Sending) -> None:
        declaration = dict(sending.declaration)
        if "exchange" in declaration:
            declaration["exchange"] = Exchange(**declaration["exchange"])
        logger.info("Making the queue %s.", sending.queue, extra={"action": "queue-made", "queue": sending.queue})
        try:
            with self._connection.channel() as channel:
                Queue(sending.queue, durable=declaration.pop("durable", True), channel=channel, **declaration).declare()
        except ChannelError as error:
            logger.error("The queue %s cannot be made: %s", sending.queue, error)  # noqa: TRY400  the text says it all


def _publish(producer: Producer, one: Sending, **options: Any) -> None:
    producer.publish(one.body, headers=one.headers, correlation_id=one.celery_id, **one.properties, **options)
