"""Publish what a committed turn put into the outbox: Celery messages in one batch, and `task-sent` for monitors."""

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

from celery import Celery
from celery.backends.base import DisabledBackend
from celery.events import event
from celery.utils.time import utcoffset
from kombu.messaging import Producer

from jobrunner.keeping import store_kept
from jobrunner.records import HeldMessage, Letter
from jobrunner.servers import TIMEOUTS
from jobrunner.wire import (
    COPY,
    HEADER,
    INPUTS_IN_HEADER,
    INPUTS_KEY,
    ITEMS_KEY,
    NOTHING,
    VERSION,
    Inputs,
    TaskHeader,
)
from tracker.outlets import UNFIT, Outlet, Sending, open_outlet, reason
from tracker.sending import Outgoing

#: What the tracker publishes: deliveries of tasks, and messages of others that it forwards.
Parcel: TypeAlias = Outgoing | HeldMessage

if TYPE_CHECKING:
    from kombu.connection import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What became of a batch: taken by the broker, surely not taken and to be sent again, or never to be sent."""

    taken: list[Parcel]
    again: list[Parcel]
    failed: list[tuple[Parcel, str]]


class Dispatch:
    """Sends deliveries over a connection of its own; raises the broker's connection errors.

    `items` returns as JSON the list that a task takes which is to process only some items. It is read when it is due,
    one list at a time: it may be long.
    """

    def __init__(self, app: Celery, hostname: str, items: Callable[[Letter], str]) -> None:
        self._app = app
        self._items = items
        self._hostname = hostname
        self._connection: Connection = app.connection_for_write(transport_options=TIMEOUTS)
        self._outlet: Outlet | None = None
        #: Whether the broker gives what a lost worker had only received to another worker by itself.
        self.redelivers = self._connection.transport.driver_type == "amqp"

    def publish(self, outgoing: Sequence[Parcel], *, until: float = math.inf) -> Published:
        """Publish messages that the database already holds (C1: reported before forwarded).

        Raises:
            TooLateError: it is later than `until` by the monotonic clock; what had not gone out does not go out.
        """
        sendings: dict[str, Sending] = {}
        failed: dict[str, str] = {}
        for one in outgoing:
            try:
                sendings[one.celery_id] = _forwarded(one) if isinstance(one, HeldMessage) else self._sending(one)
            except UNFIT as error:
                failed[one.celery_id] = reason(error)
        untaken = self._connected().send(list(sendings.values()), until=until)
        failed |= {one.celery_id: why for one, why in untaken.never}
        again = {one.celery_id for one in untaken.again}
        taken = sendings.keys() - failed.keys() - again
        ours = [one.celery_id for one in outgoing if isinstance(one, Outgoing) and one.celery_id in taken]
        self._tell_monitors([self._sent_event(sendings[id_]) for id_ in ours])
        return Published(
            taken=[one for one in outgoing if one.celery_id in taken],
            again=[one for one in outgoing if one.celery_id in again],
            failed=[(one, failed[one.celery_id]) for one in outgoing if one.celery_id in failed],
        )

    def _sending(self, one: Outgoing) -> Sending:
        letter = one.letter
        properties = json.loads(letter.properties)
        return Sending(
            celery_id=one.celery_id,
            queue=letter.queue,
            declaration=properties.pop("declaration", {}),
            body=letter.body,
            headers=self._headers(one),
            properties=properties | {"content_type": letter.content_type, "content_encoding": letter.content_encoding},
        )

    def _headers(self, one: Outgoing) -> dict[str, Any]:
        letter = one.letter
        ours = TaskHeader(
            v=VERSION,
            task=letter.task_id,
            run=letter.run,
            delivery=letter.delivery,
            batch=one.batch,
            first=letter.first_retries,
        )
        if one.avoid:
            ours["avoid"] = list(one.avoid)
        if letter.only_items is not None:
            ours["items_key"] = self._stored(ITEMS_KEY + one.celery_id, self._items(letter))
            if letter.takes_task or letter.takes_group:
                ours["inputs"] = NOTHING
        elif one.inputs is not None and _size(one.inputs) <= INPUTS_IN_HEADER:
            ours["inputs"] = one.inputs
        elif one.inputs is not None:
            ours["inputs_key"] = self._stored(INPUTS_KEY + one.celery_id, json.dumps(one.inputs))
        headers = json.loads(letter.headers) | {
            "id": one.celery_id,
            "root_id": letter.job_id,
            "retries": letter.first_retries,
            HEADER: ours,
        }
        if isinstance(headers["expires"], float):
            headers["expires"] = (datetime.now(UTC) + timedelta(seconds=headers["expires"])).isoformat()
        return headers

    def _stored(self, key: str, text: str) -> str:
        """Put a list of what a task takes where its worker finds it, and return the key."""
        backend = self._app.backend
        if not isinstance(backend, DisabledBackend):
            store_kept(backend, key, text)
            return key
        msg = "the tracker knows no result backend, where the list of what the task takes would be"
        raise LookupError(msg)

    def _tell_monitors(self, sent_events: Sequence[dict[str, Any]]) -> None:
        exchange = event.get_exchange(self._connection, name=self._app.conf.event_exchange)
        Producer(self._connection.default_channel, auto_declare=False).publish(
            sent_events,
            exchange=exchange.name,
            routing_key="task.multi",
            declare=[exchange],
            serializer=self._app.conf.event_serializer,
            headers={"hostname": self._hostname, COPY: VERSION},
            delivery_mode=1,
        )

    def _sent_event(self, sending: Sending) -> dict[str, Any]:
        headers = sending.headers
        return event.Event(
            "task-sent",
            hostname=self._hostname,
            pid=os.getpid(),
            utcoffset=utcoffset(),
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
            queue=sending.queue,
            exchange=sending.properties["exchange"],
            routing_key=sending.properties["routing_key"],
        )

    def is_empty(self, queue: str) -> bool:
        """Whether a queue holds no message that waits for a worker."""
        self._connected()
        try:
            with self._connection.channel() as channel:
                return channel.queue_declare(queue, passive=True).message_count == 0
        except self._connection.channel_errors:  # no such queue; on Redis an empty list is none
            self.close()  # the error may also be another channel's
            return True

    def _connected(self) -> Outlet:
        if self._outlet is None or not self._connection.connected:
            # One try per host: kombu's own patience is longer than the lease.
            self._connection.ensure_connection(max_retries=len(self._connection.alt))
            self._outlet = open_outlet(self._connection)
        return self._outlet

    def close(self) -> None:
        """Drop the connection; the next publish makes a new one."""
        self._outlet = None
        self._connection.close()


def _forwarded(one: HeldMessage) -> Sending:
    """Return a message as it was when a gate refused it; monitors know that it was sent."""
    properties = json.loads(one.properties)
    return Sending(
        celery_id=one.celery_id,
        queue=one.queue,
        declaration={},
        body=one.body,
        headers=json.loads(one.headers),
        properties=properties | {"content_type": one.content_type, "content_encoding": one.content_encoding},
    )


def _size(inputs: Inputs) -> int:
    return 1 if isinstance(inputs, str) else sum(_size(one) for one in inputs)
