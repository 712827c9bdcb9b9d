"""Telling the tracker that a message was not started: whole, where nobody else has it."""

import base64
import logging
import os
import time
from collections.abc import Mapping
from typing import Any

from celery.events.event import Event

from jobrunner.errors import JobrunnerError, RefusedError
from jobrunner.snapshot import FINAL, Refusal
from jobrunner.wire import TASK_HELD
from workers.gate import is_from_tracker

logger = logging.getLogger(__name__)

#: Seconds for which the event log is waited for, and until a message that it can never take is looked at again.
_PATIENCE = 5.0
_REST = 1.0

#: What brokers and kombu write on a message on its way; the rest is the sender's.
_HEADERS = {
    "compression",  # kombu has undone it
    "redelivered", "x-acquired-count", "x-death", "x-delivery-count",
    "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason",
    "x-last-death-exchange", "x-last-death-queue", "x-last-death-reason",
}  # fmt: skip
_PROPERTIES = {
    "application_headers", "body_encoding", "content_encoding", "content_type", "delivery_info", "delivery_tag",
}  # fmt: skip


def tell_held(request: Any, refusal: Refusal) -> bool:
    """Tell that this message was not started; False if the log does not take what nobody else has."""
    headers, flusher = request.request_dict, request.app.events.flusher
    event = Event(
        TASK_HELD,
        hostname=request.hostname,
        pid=os.getpid(),
        uuid=request.id,
        root_id=request.root_id,
        retries=headers.get("retries") or 0,
        reason=refusal,
    )
    if refusal in FINAL or is_from_tracker(headers):
        flusher.add(event, monitored=False)
        return True
    try:
        flusher.tell([{**event, "message": whole(request)}], timeout=_PATIENCE)
    except JobrunnerError as error:
        msg = "Task %s[%s] is held and goes back to the broker: %s"
        logger.error(msg, request.name, request.id, error, extra={"action": "held-in-vain"})  # noqa: TRY400
        if isinstance(error, RefusedError):
            time.sleep(_REST)  # it comes back at once
        return False
    return True


def whole(request: Any) -> dict[str, Any]:
    """Return a message so that it can be sent again as it was, as JSON."""
    message = request.message
    body = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
    exchange, routing_key = (message.delivery_info.get(name) or "" for name in ("exchange", "routing_key"))
    return {
        "body": base64.b64encode(body).decode(),
        "content_type": message.content_type,
        "content_encoding": message.content_encoding,
        "headers": _without(message.headers, _HEADERS),
        "properties": {
            **_without(message.properties, _PROPERTIES),
            "exchange": exchange,
            "routing_key": routing_key,
        },
        "queue": _queue(request.app, exchange, routing_key),
    }


def _without(found: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name not in names}


def _queue(app: Any, exchange: str, routing_key: str) -> str:
    """Return the queue from which a message has come, as far as can be told."""
    queues = app.amqp.queues.consume_from
    for name, queue in queues.items():
        if queue.exchange is not None and (queue.exchange.name, queue.routing_key) == (exchange, routing_key):
            return str(name)
    return routing_key
