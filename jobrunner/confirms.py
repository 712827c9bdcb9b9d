"""Publisher confirms: RabbitMQ says of each message that it has it, or that no queue is there to take it.

Without them a message that the broker does not take is gone without a word.
"""

import time
from typing import Any

from kombu.connection import Connection


class ConfirmedChannel:
    """A channel of its own on which many messages are published before their confirms are waited for.

    py-amqp's own confirms wait for each message by itself. What is published here must be counted, so nobody else
    publishes on this channel. After any error it is of no use any more.
    """

    def __init__(self, connection: Connection) -> None:
        self.channel: Any = connection.channel()
        # With the transport option `confirm_publish`, publishing would wait for the very confirms that we count.
        self.channel.basic_publish = self.channel._basic_publish  # noqa: SLF001
        self.channel.confirm_select()
        self._published = 0
        self._open: set[int] = set()
        self._refused: set[int] = set()
        self._returned: list[Any] = []
        events = self.channel.events
        events["basic_ack"].add(self._on_ack)
        events["basic_nack"].add(self._on_nack)
        events["basic_return"].add(self._on_return)

    def count(self) -> int:
        """Note that a message was just published, with `mandatory`; return the number by which it is told."""
        self._published += 1
        self._open.add(self._published)
        return self._published

    def wait(self, seconds: float) -> tuple[set[int], list[Any]]:
        """Wait until the broker has answered for every message; return which ones it has not taken.

        First the numbers of those that it refused, as a full queue does; then those for which there is no queue.

        Raises:
            TimeoutError: it has not within this time, as when it blocks publishers because its memory is full.
        """
        deadline = time.monotonic() + seconds
        while self._open:
            self.channel.connection.drain_events(timeout=max(0.001, deadline - time.monotonic()))
        answer = self._refused, self._returned
        self._refused, self._returned = set(), []
        return answer

    def _on_ack(self, delivery_tag: int, multiple: bool) -> None:
        self._open -= self._meant(delivery_tag, multiple)

    def _on_nack(self, delivery_tag: int, multiple: bool) -> None:
        refused = self._meant(delivery_tag, multiple)
        self._refused |= refused
        self._open -= refused

    def _meant(self, delivery_tag: int, multiple: bool) -> set[int]:
        return {one for one in self._open if one <= delivery_tag} if multiple else {delivery_tag}

    def _on_return(self, _error: Exception, _exchange: str, _routing_key: str, message: Any) -> None:
        self._returned.append(message)
