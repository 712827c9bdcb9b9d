"""Task messages, made once at submission: what Celery would have sent, as bytes and plain JSON.

The tracker stores and sends these without ever decoding a body, so it needs no code and no serializer of the user's.
"""

import json
import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from celery import Celery, Task
from kombu.exceptions import EncodeError, SerializerNotInstalled
from kombu.serialization import dumps

from jobrunner.errors import InvalidCanvasError
from jobrunner.plan import Leaf

#: Options of a signature that end up in the message's headers, by Celery's own names.
_IN_HEADERS = ("expires", "shadow", "time_limit", "soft_time_limit", "ignore_result", "group_index")
#: Options that the plan has used, or that say nothing about the message.
_USED = frozenset(
    {"task_id", "root_id", "parent_id", "group_id", "chord", "reply_to", "countdown", "eta", "add_to_parent",
    "producer",
     "connection", "retry", "retry_policy", "headers", "link", "link_error", "serializer", "compression", *_IN_HEADERS}
)  # fmt: skip

#: Longest countdown and expiry in seconds, about 100 years: what a clock can be moved by without leaving the calendar.
_LONGEST = 100 * 366 * 86_400.0


def check_task(app: Celery, leaf: Leaf) -> Task:
    """Return the registered, prepared task of a leaf, with its arguments checked as Celery checks them."""
    name = leaf.signature.task
    task = app.tasks.get(name)
    if task is None:
        msg = f"the task {name!r} is not registered in the app {app.main!r}."
        raise InvalidCanvasError(msg, "Import the module that defines it before submitting.", path=leaf.path)
    if not getattr(task, "jobrunner_prepared", False):
        msg = f"the task {name!r} is not prepared for jobs."
        raise InvalidCanvasError(
            msg, "Register it before JobRunner(app) is first used, or by @jobs.task.", path=leaf.path
        )
    if not task.send_events:
        msg = f"the task {name!r} has send_events=False, so nobody can follow it."
        raise InvalidCanvasError(msg, "Remove that option.", path=leaf.path)
    check_arguments = getattr(task, "__header__", None)  # a task that was registered as a class has none
    if task.typing and check_arguments is not None:
        received = (None,) if leaf.takes is not None else ()
        try:
            check_arguments(*received, *leaf.signature.args, **leaf.signature.kwargs)
        except TypeError as error:
            msg = f"the arguments do not fit: {error}."
            raise InvalidCanvasError(msg, "Compare them with the task's parameters.", path=leaf.path) from None
    return task


def message_row(app: Celery, task: Task, leaf: Leaf, *, is_taken: bool) -> tuple[str, dict[str, Any]]:
    """Return a leaf's queue and its row of table `message`: routed and serialized as `apply_async` would.

    Raises:
        InvalidCanvasError: an argument cannot be serialized, or an option is none that Celery can use.
    """
    try:
        return _message_row(app, task, leaf, is_taken=is_taken)
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        # Celery checks few options itself: most odd ones only fail somewhere inside.
        msg = f"the options of {task.name} do not fit ({str(error) or type(error).__name__})."
        raise InvalidCanvasError(msg, "Write them as for apply_async.", path=leaf.path) from error


def _message_row(app: Celery, task: Task, leaf: Leaf, *, is_taken: bool) -> tuple[str, dict[str, Any]]:
    signature = leaf.signature
    options: dict[str, Any] = {**(task._get_exec_options() or {}), **signature.options}  # noqa: SLF001  as Celery
    expires = options.get("expires", task.expires)
    headers, _, body, _ = app.amqp.as_task_v2(
        leaf.id,
        task.name,
        signature.args,
        signature.kwargs,
        shadow=options.get("shadow") or task.shadow_name(signature.args, signature.kwargs, options),
        expires=None if isinstance(expires, int | float) else expires,
        time_limit=options.get("time_limit"),
        soft_time_limit=options.get("soft_time_limit"),
        # What another task takes is stored, also where nobody else asks for it: with Celery it travels in the message.
        ignore_result=not is_taken and options.get("ignore_result", task.ignore_result),
        group_index=options.get("group_index"),
        stamped_headers=options.get("stamped_headers"),
        **{stamp: options[stamp] for stamp in options.get("stamped_headers") or ()},
    )
    serializer = options.get("serializer") or app.conf.task_serializer
    try:
        content_type, content_encoding, data = dumps(body, serializer)
    except EncodeError as error:
        msg = f"the arguments of {task.name} cannot be serialized as {serializer} ({error})."
        remedy = "Pass what it can represent, such as an id or a path, or choose another serializer."
        raise InvalidCanvasError(msg, remedy, path=leaf.path) from None
    except SerializerNotInstalled:
        msg = f"the serializer {serializer!r} of {task.name} is not installed."
        raise InvalidCanvasError(msg, "Name one that kombu has, such as json.", path=leaf.path) from None
    headers |= options.get("headers") or {}
    for added_per_delivery in ("id", "root_id", "retries"):
        del headers[added_per_delivery]
    if isinstance(expires, int | float):
        if math.fabs(expires) > _LONGEST:
            msg = f"expires={expires!r}"
            raise OverflowError(msg)
        headers["expires"] = float(expires)  # seconds, from when it is sent: the tracker makes it a time
    queue, properties = _properties(app, task, signature.args, signature.kwargs, options)
    return queue, {
        "task_id": leaf.id,
        "body": data.encode() if isinstance(data, str) else data,
        "content_type": content_type,
        "content_encoding": content_encoding,
        "headers": json.dumps(headers),
        "properties": json.dumps(properties),
    }


def _properties(
    app: Celery, task: Task, args: Any, kwargs: Any, options: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    route = app.amqp.router.route(
        {name: value for name, value in options.items() if name not in _USED and value is not None},
        task.name, args, kwargs, task,
    )  # fmt: skip
    queue = route.pop("queue", None) or app.amqp.default_queue
    if isinstance(queue, str):
        queue = app.amqp.queues[queue]
    exchange = route.pop("exchange", None)
    exchange, routing_key = getattr(exchange, "name", exchange), route.pop("routing_key", None)
    if (not exchange or not routing_key) and queue.exchange.type == "direct":
        exchange, routing_key = "", queue.name  # as Celery does: straight to the queue, without looking up bindings
    compressed = options.get("compression") or app.conf.task_compression
    compression = {"compression": compressed} if compressed else {}
    return queue.name, {
        "exchange": queue.exchange.name if exchange is None else exchange,
        "routing_key": routing_key or queue.routing_key,
        "delivery_mode": queue.exchange.delivery_mode or app.conf.task_default_delivery_mode,
    } | compression | {
        name: value for name, value in route.items() if name in {"priority", "delivery_mode", "expiration"}
    }


def not_before(leaf: Leaf) -> tuple[datetime | None, float | None]:
    """Return a leaf's `eta` and its `countdown` in seconds, which counts from when the task becomes ready."""
    eta, countdown = leaf.signature.options.get("eta"), leaf.signature.options.get("countdown")
    if eta is not None and not (isinstance(eta, datetime) and eta.tzinfo is not None):
        msg = f"eta={eta!r} is no aware datetime."
        raise InvalidCanvasError(msg, "Give it a time zone, such as datetime.now(UTC).", path=leaf.path)
    if isinstance(countdown, timedelta):
        countdown = countdown.total_seconds()
    if countdown is not None and not (isinstance(countdown, int | float) and math.fabs(countdown) <= _LONGEST):
        msg = f"countdown={countdown!r} is no number of seconds that a calendar holds."
        raise InvalidCanvasError(msg, "Give it in seconds, or as a timedelta.", path=leaf.path)
    return eta, countdown
