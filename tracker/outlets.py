"""Where task messages go out: in one pipeline on Redis, with confirms and `mandatory` on RabbitMQ."""

import logging
import math
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from amqp.exceptions import ChannelError
from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.messaging import Producer

from jobrunner.confirms import ConfirmedChannel

logger = logging.getLogger(__name__)

#: Seconds that RabbitMQ may take to confirm a batch: less than the lease, so that its end is noticed by ourselves.
_CONFIRM = 3.0
#: What kombu and py-amqp raise, before anything is written, for a message that they cannot make.
UNFIT = (ArithmeticError, LookupError, TypeError, ValueError, struct.error)


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


@dataclass(frozen=True, slots=True)
class Untaken:
    """What the broker has surely not taken: messages to be sent again as they are, and such as can never be sent."""

    again: list[Sending] = field(default_factory=list)
    never: list[tuple[Sending, str]] = field(default_factory=list)


class TooLateError(Exception):
    """The time within which the caller may publish is over: it was frozen, and another one may have taken its place."""


class Outlet(Protocol):
    """Publishes over a connection that is already there; raises the broker's errors."""

    def send(self, sendings: Sequence[Sending], *, until: float = math.inf) -> Untaken:
        """Publish all of these; return those that the broker has not taken, and why it never will.

        Raises:
            TooLateError: it is later than `until`, by the monotonic clock; asked as close to the socket as can be.
        """


def open_outlet(connection: Connection) -> Outlet:
    """Return the outlet for the broker of this connection."""
    return ConfirmedOutlet(connection) if connection.transport.driver_type == "amqp" else PipelinedOutlet(connection)


class PipelinedOutlet:
    """Redis: all messages of a batch in one round trip. A queue is a list, which is there when something is in it."""

    def __init__(self, connection: Connection) -> None:
        self._producer = Producer(connection.default_channel, auto_declare=False)

    def send(self, sendings: Sequence[Sending], *, until: float = math.inf) -> Untaken:
        """Publish all of these."""
        untaken = Untaken()
        with self._producer.batch(max_size=len(sendings) + 1):  # a batch that is full goes out by itself
            for one in sendings:
                _publish(self._producer, one, untaken, until)
            _check_time(until)  # an error drops the batch
        return untaken


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

    def send(self, sendings: Sequence[Sending], *, until: float = math.inf) -> Untaken:
        """Publish all of these."""
        untaken = Untaken()
        homeless = self._publish([one for one in sendings if self._has_exchange(one, untaken)], untaken, until)
        for one in {one.queue: one for one in homeless}.values():
            self._make_queue(one)
        untaken.again.extend(self._publish(homeless, untaken, until))
        return untaken

    def _publish(self, sendings: Sequence[Sending], untaken: Untaken, until: float) -> list[Sending]:
        """Publish, and return the messages for which there is no queue."""
        published: dict[int, Sending] = {}
        for one in sendings:
            if _publish(self._producer, one, untaken, until, mandatory=True):
                published[self._confirmed.count()] = one
        refused, returned = self._confirmed.wait(_CONFIRM)
        untaken.again.extend(published[number] for number in refused)
        ids = {message.properties.get("correlation_id") for message in returned}
        return [one for one in published.values() if one.celery_id in ids]

    def _has_exchange(self, sending: Sending, untaken: Untaken) -> bool:
        name = sending.properties["exchange"]
        if name not in self._exchanges:
            if not self._exists(name):
                self._make_queue(sending)
                if not self._exists(name):
                    untaken.again.append(sending)
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


def _check_time(until: float) -> None:
    if time.monotonic() > until:
        raise TooLateError


def reason(error: BaseException) -> str:
    """Say why a message cannot be made."""
    return f"{type(error).__name__}: {error}"


def _publish(producer: Producer, one: Sending, untaken: Untaken, until: float, **options: Any) -> bool:
    """Publish one message; False, and told, if it is none that can be written: it must not hold up the others."""
    _check_time(until)
    try:
        producer.publish(one.body, headers=one.headers, correlation_id=one.celery_id, **one.properties, **options)
    except UNFIT as error:
        untaken.never.append((one, reason(error)))
        return False
    return True
