"""The copy of events that Flower and every other monitor of Celery see: published to Celery's own exchange."""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

from celery import Celery
from celery.events.event import get_exchange
from kombu.connection import Connection
from kombu.messaging import Producer

from jobrunner.wire import COPY, VERSION
from workers.batches import EncodedEvent, as_list

logger = logging.getLogger(__name__)

#: Seconds for which monitors get nothing after their exchange took nothing.
_SULK = 10


class Monitors:
    """Tells monitors once: they are used to losses, and the log must not be held up by them."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._told_from = 0.0

    def tell(self, connection: Connection, events: Sequence[EncodedEvent]) -> bool:
        """Copy events for monitors; False if that failed, and may have broken the connection."""
        events = [event for event in events if event.monitored]
        if not events or time.monotonic() < self._told_from:
            return True
        try:
            self._copy(connection, events)
        except Exception:  # whatever ails their exchange
            logger.warning("Monitors miss events for %d s.", _SULK, exc_info=True, extra={"action": "monitors-missing"})
            self._told_from = time.monotonic() + _SULK
            return False
        return True

    def _copy(self, connection: Connection, events: Sequence[EncodedEvent]) -> None:
        producer = Producer(connection.default_channel, auto_declare=False)
        exchange = get_exchange(connection, name=self._app.conf.event_exchange)
        for routing_key, body in _messages(events):
            producer.publish(
                **self._serialized(body),
                exchange=exchange.name,
                routing_key=routing_key,
                declare=[exchange],
                headers={"hostname": events[0].hostname, COPY: VERSION},
                delivery_mode=1,
            )

    def _serialized(self, body: str) -> dict[str, Any]:
        """Return a body as it is, or written anew where the app's events are not JSON."""
        serializer = self._app.conf.event_serializer
        if serializer == "json":
            return {"body": body, "content_type": "application/json", "content_encoding": "utf-8"}
        return {"body": json.loads(body), "serializer": serializer}


def _messages(events: Sequence[EncodedEvent]) -> Iterator[tuple[str, str]]:
    """Yield task events together, as Celery's own dispatcher sends them, and each of the others by itself."""
    if tasks := [event for event in events if event.type.startswith("task-")]:
        yield "task.multi", as_list(tasks)
    yield from ((event.type.replace("-", "."), event.text) for event in events if not event.type.startswith("task-"))
