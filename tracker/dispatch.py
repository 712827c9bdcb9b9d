"""Publish what a committed turn put into the outbox: Celery messages in one batch, and `task-sent` for monitors."""

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.events import event
from kombu.messaging import Producer

from jobrunner.wire import HEADER, INPUTS_IN_HEADER, INPUTS_KEY, VERSION, Inputs, TaskHeader
from tracker.turn import Outgoing

if TYPE_CHECKING:
    from kombu.connection import Connection


class Dispatch:
    """Sends deliveries over a connection of its own; raises the broker's connection errors."""

    def __init__(self, app: Celery, hostname: str) -> None:
        self._app = app
        self._hostname = hostname
        self._connection: Connection = app.connection_for_write()

    def publish(self, outgoing: Sequence[Outgoing]) -> None:
        """Publish messages that the database already holds (C1: reported before forwarded)."""
        producer = Producer(self._channel(), auto_declare=False)
        sent_events = []
        with producer.batch(max_size=len(outgoing)):
            for one in outgoing:
                headers, properties = self._envelope(one)
                producer.publish(
                    one.letter.body,
                    content_type=one.letter.content_type,
                    content_encoding=one.letter.content_encoding,
                    headers=headers,
                    correlation_id=one.celery_id,
                    **properties,
                )
                sent_events.append(self._sent_event(one.letter.queue, headers, properties))
        exchange = event.get_exchange(self._connection, name=self._app.conf.event_exchange)
        producer.publish(
            sent_events,
            exchange=exchange.name,
            routing_key="task.multi",
            declare=[exchange],
            serializer=self._app.conf.event_serializer,
            headers={"hostname": self._hostname},
            delivery_mode=1,
        )

    def _envelope(self, one: Outgoing) -> tuple[dict[str, Any], dict[str, Any]]:
        letter = one.letter
        ours = TaskHeader(v=VERSION, task=letter.task_id, run=letter.run, delivery=letter.delivery)
        if one.inputs is not None and _size(one.inputs) <= INPUTS_IN_HEADER:
            ours["inputs"] = one.inputs
        elif one.inputs is not None:
            ours["inputs_key"] = INPUTS_KEY + one.celery_id
            self._app.backend.set(ours["inputs_key"], json.dumps(one.inputs))
        headers = json.loads(letter.headers) | {
            "id": one.celery_id,
            "root_id": letter.job_id,
            "retries": letter.first_retries,
            HEADER: ours,
        }
        if isinstance(headers["expires"], float):
            headers["expires"] = (datetime.now(UTC) + timedelta(seconds=headers["expires"])).isoformat()
        return headers, json.loads(letter.properties)

    def _sent_event(self, queue: str, headers: dict[str, Any], properties: dict[str, Any]) -> dict[str, Any]:
        return event.Event(
            "task-sent",
            hostname=self._hostname,
            pid=os.getpid(),
            utcoffset=0,
            clock=self._app.clock.forward(),
            uuid=headers["id"],
            root_id=headers["root_id"],
            parent_id=headers["parent_id"],
            name=headers["task"],
            args=headers["argsrepr"],
            kwargs=headers["kwargsrepr"],
            retries=headers["retries"],
            eta=headers["eta"],
            expires=headers["expires"],
            queue=queue,
            exchange=properties["exchange"],
            routing_key=properties["routing_key"],
        )

    def is_empty(self, queue: str) -> bool:
        """Whether a queue holds no message that waits for a worker."""
        try:
            return self._channel().queue_declare(queue, passive=True).message_count == 0
        except self._connection.channel_errors:  # no such queue; on Redis an empty list is none
            return True

    def _channel(self) -> Any:
        # One try per host: kombu's own patience is longer than the lease.
        self._connection.ensure_connection(max_retries=len(self._connection.alt))
        return self._connection.default_channel

    def close(self) -> None:
        """Drop the connection; the next publish makes a new one."""
        self._connection.close()


def _size(inputs: Inputs) -> int:
    return 1 if isinstance(inputs, str) else sum(_size(one) for one in inputs)
