"""Task messages, made once at submission: what Celery would have sent, as bytes and plain JSON.

The tracker stores and sends these without ever decoding a body, so it needs no code and no serializer of the user's.
"""

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from celery import Celery, Task
from celery.utils.functional import maybe_list
from kombu.exceptions import EncodeError, SerializerNotInstalled
from kombu.serialization import dumps

from jobrunner.envelope import LONGEST, Envelope, Envelopes
from jobrunner.errors import InvalidCanvasError
from jobrunner.plan import Leaf
from jobrunner.retry_policy import untouched_timeout
from jobrunner.signatures import links
from jobrunner.text import NAME, bounded

#: Longest headers in bytes of JSON: RabbitMQ drops a message whose headers exceed a frame (128 kB) without an error.
#: The tracker adds some of its own.
_HEADERS = 100_000
_LINKS = {"link", "link_error"}
_SERIALIZABLE = "Pass what it can represent, such as an id or a path, or choose another serializer."


class Message(NamedTuple):
    """The message of a task as it is kept until it is written: what is its own, beside what it shares with others.

    A large job has one per task in memory, so it holds no text twice.
    """

    task: Task
    envelope: Envelope
    body: bytes
    content_type: str
    content_encoding: str
    #: The end of its headers, where the arguments are shown.
    shown: str
    eta: datetime | None
    countdown: float | None

    def row(self, task_id: str) -> dict[str, Any]:
        """Return its row of table `message`."""
        return {
            "task_id": task_id,
            "body": self.body,
            "content_type": self.content_type,
            "content_encoding": self.content_encoding,
            "headers": self.envelope.headers + self.shown,
            "properties": self.envelope.properties,
        }


def check_task(app: Celery, leaf: Leaf) -> Task:
    """Return the registered, prepared task of a leaf, with its arguments checked as Celery checks them."""
    name = leaf.task
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
    try:
        untouched_timeout(task)
    except ValueError as error:
        msg = f"the task {name!r} has {error}."
        raise InvalidCanvasError(msg, "Give it in seconds, or leave it out.", path=leaf.path) from None
    check_arguments = getattr(task, "__header__", None)  # a task that was registered as a class has none
    if task.typing and check_arguments is not None:
        received = (None,) if leaf.takes is not None else ()
        try:
            check_arguments(*received, *leaf.args, **leaf.kwargs)
        except TypeError as error:
            msg = f"the arguments do not fit: {error}."
            raise InvalidCanvasError(msg, "Compare them with the task's parameters.", path=leaf.path) from None
    return task


def message_of(envelopes: Envelopes, task: Task, leaf: Leaf, *, is_taken: bool) -> Message:
    """Return a leaf's message, routed and serialized as `apply_async` would.

    Raises:
        InvalidCanvasError: an argument cannot be serialized, or an option is none that Celery can use.
    """
    try:
        envelope = envelopes.of(task, leaf, is_taken=is_taken)
        args, kwargs = _arguments(task, leaf, envelope.serializer)
        shown = envelope.shown(args, kwargs)
        embed = envelope.embed | _linked(leaf) if leaf.options.keys() & _LINKS else envelope.embed
        content_type, content_encoding, body = dumps((args, kwargs, embed), envelope.serializer)
    except EncodeError as error:
        msg = f"the arguments of {task.name} cannot be serialized as {envelope.serializer} ({error})."
        _refuse_links_that_fail(leaf, envelope.serializer)
        raise InvalidCanvasError(msg, _SERIALIZABLE, path=leaf.path) from None
    except SerializerNotInstalled:
        msg = f"the serializer {envelope.serializer!r} of {task.name} is not installed."
        raise InvalidCanvasError(msg, "Name one that kombu has, such as json.", path=leaf.path) from None
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        # Celery checks few options itself: most odd ones only fail somewhere inside.
        msg = f"the options of {task.name} do not fit ({str(error) or type(error).__name__})."
        raise InvalidCanvasError(msg, "Write them as for apply_async.", path=leaf.path) from error
    for what, name in (("name of the task", task.name), ("queue", envelope.queue)):
        if bounded(name, NAME) != name:
            msg = f"the {what} {bounded(name, 100)!r} is no text of at most {NAME} characters that a database keeps."
            raise InvalidCanvasError(msg, "Choose another name.", path=leaf.path)
    length = len(envelope.headers) + len(shown)
    if length > _HEADERS:
        msg = f"the headers of {task.name} have {length:,} bytes; every broker carries {_HEADERS:,}."
        raise InvalidCanvasError(msg, "Put large things into arguments, or pass an id or a path.", path=leaf.path)
    eta, countdown = not_before(leaf)
    return Message(
        task=task,
        envelope=envelope,
        body=body.encode() if isinstance(body, str) else body,
        content_type=content_type,
        content_encoding=content_encoding,
        shown=shown,
        eta=eta,
        countdown=countdown,
    )


def _linked(leaf: Leaf) -> dict[str, Any]:
    """Return what workers send when the task succeeds or fails, as Celery's messages carry it."""
    for _, signature, path in links(leaf.options, leaf.path):
        if not isinstance(signature.task, str):
            msg = f"this callback names no task ({signature.task!r})."
            raise InvalidCanvasError(msg, "Pass a signature of a task.", path=path)
    return {
        "callbacks": maybe_list(leaf.options.get("link")),
        "errbacks": maybe_list(leaf.options.get("link_error")),
    }


def _refuse_links_that_fail(leaf: Leaf, serializer: str) -> None:
    for _, signature, path in links(leaf.options, leaf.path):
        try:
            dumps(signature, serializer)
        except EncodeError as error:
            msg = f"this callback of {leaf.task} cannot be serialized as {serializer} ({error})."
            raise InvalidCanvasError(msg, _SERIALIZABLE, path=path) from None


def _arguments(task: Task, leaf: Leaf, serializer: str) -> tuple[Any, Any]:
    """Return a leaf's arguments as `apply_async` sends them."""
    args, kwargs = leaf.args or (), leaf.kwargs or {}
    if not isinstance(args, list | tuple):
        msg = "its arguments must be a list or tuple"
        raise TypeError(msg)
    if not isinstance(kwargs, Mapping):
        msg = "its keyword arguments must be a mapping"
        raise TypeError(msg)
    dump_models = task._dump_pydantic_arguments  # noqa: SLF001  what Celery calls for @app.task(pydantic=True)
    if dump_models is None or serializer == "pickle":
        return args, kwargs
    received = (None,) if leaf.takes is not None else ()
    args, kwargs = dump_models((*received, *args), kwargs)
    return args[len(received) :], kwargs


def not_before(leaf: Leaf) -> tuple[datetime | None, float | None]:
    """Return a leaf's `eta` and its `countdown` in seconds, which counts from when the task becomes ready."""
    options = leaf.options
    eta, countdown = options.get("eta"), options.get("countdown")
    if eta is not None and not (isinstance(eta, datetime) and eta.tzinfo is not None):
        msg = f"eta={eta!r} is no aware datetime."
        raise InvalidCanvasError(msg, "Give it a time zone, such as datetime.now(UTC).", path=leaf.path)
    if isinstance(countdown, timedelta):
        countdown = countdown.total_seconds()
    if countdown is not None and not (isinstance(countdown, int | float) and math.fabs(countdown) <= LONGEST):
        msg = f"countdown={countdown!r} is no number of seconds that a calendar holds."
        raise InvalidCanvasError(msg, "Give it in seconds, or as a timedelta.", path=leaf.path)
    return eta, countdown
