"""What the messages of many tasks have in common, worked out once: queue, properties and all headers but the arguments.

Celery asks its configuration, its router and its clock for every message it sends. All that depends on a task and its
options alone, so a group of 10,000 needs it once. Tasks share an envelope only if that is certain: where a router or a
`shadow_name` of the user's looks at the arguments, each task gets its own.
"""

import json
import marshal
import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any

from celery import Celery, Task
from celery.app.amqp import AMQP
from celery.app.routes import MapRoute, Router
from celery.utils.saferepr import saferepr
from kombu.compression import get_encoder

from jobrunner.declaration import declaration
from jobrunner.plan import Leaf

#: Options that say nothing about the message: the plan or the row of the task has them, or nobody needs them.
_ELSEWHERE = frozenset(
    {"task_id", "root_id", "parent_id", "group_id", "chord", "reply_to", "countdown", "eta", "add_to_parent",
     "producer", "connection", "retry", "retry_policy", "link", "link_error"}
)  # fmt: skip
#: Those and what the message has already, so that the router is not asked about them.
_NOT_ROUTED = _ELSEWHERE | {
    "headers", "serializer", "compression", "argsrepr", "kwargsrepr",
    "expires", "shadow", "time_limit", "soft_time_limit", "ignore_result", "group_index", "route_name",
}  # fmt: skip

#: Tasks of Celery's that call another one where they are: they go where that one goes.
_STAND_INS = frozenset({"celery.map", "celery.starmap"})

#: Headers that the tracker adds to each delivery.
_PER_DELIVERY = frozenset({"id", "root_id", "retries"})

#: What an AMQP message holds.
_HIGHEST = 255
#: Longest countdown and expiry in seconds, about 100 years: what a clock can be moved by without leaving the calendar.
LONGEST = 100 * 366 * 86_400.0

#: Arguments and what is in them, where `repr` is as good as `saferepr`.
_FLAT = frozenset({tuple, list, dict})
_PLAIN = frozenset({int, float, bool, str, type(None)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """All of a message but its arguments."""

    queue: str
    properties: str
    serializer: str
    #: What follows the arguments in the body: Celery's own place for callbacks, here all empty.
    embed: dict[str, Any]
    #: JSON of the headers that are known, without the brace at its end.
    headers: str
    #: How arguments are shown in the headers; none where the caller has said what to show instead.
    argsrepr: Callable[[Any], str] | None
    kwargsrepr: Callable[[Any], str] | None

    def shown(self, args: Any, kwargs: Any) -> str:
        """Return what is missing from the headers of one message: its arguments, for people, and the brace."""
        shown = ""
        if self.argsrepr:
            shown += f', "argsrepr": {_quoted(self.argsrepr(args))}'
        if self.kwargsrepr:
            shown += f', "kwargsrepr": {_quoted(self.kwargsrepr(kwargs) if kwargs else "{}")}'
        return shown + "}"


class Envelopes:
    """The envelopes of one submission."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._made: dict[Hashable, Envelope] = {}
        self._routes_by_name = _routes_by_name(app)

    def of(self, task: Task, leaf: Leaf, *, is_taken: bool) -> Envelope:
        """Return the envelope of a leaf; errors are those of Celery, which checks few options itself."""
        settings = self._settings(task, leaf)
        if settings is None:
            return _make(self._app, task, leaf, is_taken=is_taken)
        key = task.name, _routed_as(leaf), is_taken, settings
        if key not in self._made:
            self._made[key] = _make(self._app, task, leaf, is_taken=is_taken)
        return self._made[key]

    def _settings(self, task: Task, leaf: Leaf) -> bytes | None:
        """Return the options that a leaf's message depends on, to compare them; None if they are not all."""
        if not self._routes_by_name or getattr(task.shadow_name, "__func__", None) is not Task.shadow_name:
            return None
        options = dict(leaf.options)
        if "stamped_headers" not in options:  # a stamp may have any name, also one of these
            options = {name: value for name, value in options.items() if name not in _ELSEWHERE}
        try:
            # Knows 1 from True and from 1.0, and refuses all but plain values. Version 2: equal values, equal bytes.
            return marshal.dumps(options, 2)
        except ValueError:
            return None


def _routes_by_name(app: Celery) -> bool:
    """Whether nobody but Celery itself routes and makes messages, and by nothing but names and options."""
    return (
        type(app.amqp) is AMQP
        and type(app.amqp.router) is Router
        and all(type(route) is MapRoute for route in app.amqp.router.routes)
    )


def _make(app: Celery, task: Task, leaf: Leaf, *, is_taken: bool) -> Envelope:
    options: dict[str, Any] = {**(task._get_exec_options() or {}), **leaf.options}  # noqa: SLF001  as Celery
    added = options.get("headers") or {}
    headers, embed = _headers(app, task, leaf, options, is_taken=is_taken)
    shown = {name for name in ("argsrepr", "kwargsrepr") if options.get(name) is None and name not in added}
    headers = {name: value for name, value in (headers | added).items() if name not in _PER_DELIVERY | shown}
    expires = options.get("expires", task.expires)
    if isinstance(expires, int | float):
        if not math.fabs(expires) <= LONGEST:  # nor is it for "not a number"
            msg = f"expires={expires!r}"
            raise OverflowError(msg)
        headers["expires"] = float(expires)  # seconds, from when it is sent: the tracker makes it a time
    queue, properties = _properties(app, task, leaf, options)
    represent = partial(_represent, maxlevels=app.conf.task_repr_maxlevels)
    return Envelope(
        queue=queue,
        properties=json.dumps(properties),
        serializer=options.get("serializer") or app.conf.task_serializer,
        embed=embed,
        headers=json.dumps(headers, allow_nan=False)[:-1],
        argsrepr=partial(represent, maxlen=app.amqp.argsrepr_maxsize) if "argsrepr" in shown else None,
        kwargsrepr=partial(represent, maxlen=app.amqp.kwargsrepr_maxsize) if "kwargsrepr" in shown else None,
    )


def _headers(
    app: Celery, task: Task, leaf: Leaf, options: Mapping[str, Any], *, is_taken: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the headers that Celery makes, and what follows the arguments in the body."""
    expires = options.get("expires", task.expires)
    stamped = options.get("stamped_headers")
    message = app.amqp.as_task_v2(
        leaf.id,
        task.name,
        shadow=options.get("shadow") or task.shadow_name(leaf.args, leaf.kwargs, options),
        expires=None if isinstance(expires, int | float) else expires,
        time_limit=options.get("time_limit"),
        soft_time_limit=options.get("soft_time_limit"),
        # What another task takes is stored, also where nobody else asks for it: with Celery it travels in the message.
        ignore_result=not is_taken and options.get("ignore_result", task.ignore_result),
        group_index=options.get("group_index"),
        argsrepr=options.get("argsrepr"),
        kwargsrepr=options.get("kwargsrepr"),
        stamped_headers=stamped,
        **{stamp: options[stamp] for stamp in stamped or ()},
    )
    return message.headers, message.body[2]


def _routed_as(leaf: Leaf) -> str:
    """Return the name of the task for which a router is asked."""
    name = leaf.options.get("route_name")
    if not name and leaf.task in _STAND_INS:
        inner = leaf.kwargs.get("task")
        name = inner.get("task") if isinstance(inner, dict) else getattr(inner, "name", None)
    return name or leaf.task


def _properties(app: Celery, task: Task, leaf: Leaf, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    route = app.amqp.router.route(
        {name: value for name, value in options.items() if name not in _NOT_ROUTED and value is not None},
        _routed_as(leaf), leaf.args, leaf.kwargs, task,
    )  # fmt: skip
    queue = route.pop("queue", None) or app.amqp.default_queue
    if isinstance(queue, str):
        queue = app.amqp.queues[queue]
    exchange = route.pop("exchange", None)
    exchange, routing_key = getattr(exchange, "name", exchange), route.pop("routing_key", None)
    if (not exchange or not routing_key) and queue.exchange.type == "direct":
        exchange, routing_key = "", queue.name  # as Celery does: straight to the queue, without looking up bindings
    exchange = queue.exchange.name if exchange is None else exchange
    compression = options.get("compression") or app.conf.task_compression
    if compression:
        get_encoder(compression)  # raises for one that is not known
    priority = route.get("priority")
    if priority is not None and not (isinstance(priority, int) and 0 <= priority <= _HIGHEST):
        msg = f"priority={priority!r} is no number from 0 to {_HIGHEST}"
        raise ValueError(msg)
    optional = {"compression": compression, "declaration": declaration(queue, exchange)}
    return queue.name, {
        "exchange": exchange,
        "routing_key": routing_key or queue.routing_key,
        "delivery_mode": queue.exchange.delivery_mode or app.conf.task_default_delivery_mode,
    } | {name: value for name, value in optional.items() if value} | {
        name: value for name, value in route.items() if name in {"priority", "delivery_mode", "expiration"}
    }


def _represent(arguments: Any, *, maxlen: int, maxlevels: int) -> str:
    """Return what `saferepr` does: by Python's `repr`, ten times as fast, where both say the same.

    They differ in nested containers, in other people's classes, in what is cut, and in text that `repr` escapes or puts
    into double quotes.
    """
    parts = [*arguments, *arguments.values()] if type(arguments) is dict else arguments
    if type(arguments) in _FLAT and {*map(type, parts)} <= _PLAIN:
        text = repr(arguments)
        if len(text) <= maxlen and '"' not in text and "\\" not in text:
            return text
    return str(saferepr(arguments, maxlen, maxlevels))
