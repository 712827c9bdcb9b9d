"""Publisher confirms: RabbitMQ says of each message that it has it, or that no queue is there to take it.

Without them a message that the broker does not take is gone without a word.
"""

import time
from typing import Any

from amqp.exceptions import MessageNacked
from kombu.connection import Connection


class ConfirmedChannel:
    """A channel of its own on which many messages are published before their confirms are waited for.

    py-amqp's own confirms wait for each message by itself. What is published here must be counted, so nobody else
    publishes on this channel.
    """

    def __init__(self, connection: Connection) -> None:
        self.channel: Any = connection.channel()
        self.channel.confirm_select()
        self._published = 0
        self._open: set[int] = set()
        self._refused = False
        self._returned: list[Any] = []
        events = self.channel.events
        events["basic_ack"].add(self._on_ack)
        events["basic_nack"].add(self._on_nack)
        events["basic_return"].add(self._on_return)

    def count(self) -> None:
        """Note that a message was just published, with `mandatory`."""
        self._published += 1
        self._open.add(self._published)

    def wait(self, seconds: float) -> list[Any]:
        """Wait until the broker has answered for every message; return those that no queue took.

        Raises:
            TimeoutError: it has not within this time, as when it blocks publishers because its memory is full.
            MessageNacked: it could not keep a message.
        """
        deadline = time.monotonic() + seconds
        while self._open:
            self.channel.connection.drain_events(timeout=max(0.001, deadline - time.monotonic()))
        if self._refused:
            raise MessageNacked
        returned, self._returned = self._returned, []
        return returned

    def _on_ack(self, delivery_tag: int, multiple: bool) -> None:
        self._open = {one for one in self._open if one > delivery_tag} if multiple else self._open - {delivery_tag}

    def _on_nack(self, delivery_tag: int, multiple: bool) -> None:
        self._refused = True
        self._on_ack(delivery_tag, multiple)

    def _on_return(self, _error: Exception, _exchange: str, _routing_key: str, message: Any) -> None:
        self._returned.append(message)
