"""One attempt of a task, inline: Celery's own tracer calls the body with the message that a worker would get."""

import json
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from celery import Celery, states
from celery._state import _set_current_app, _tls
from celery.app.trace import build_tracer
from celery.exceptions import WorkerLostError
from kombu.serialization import loads, prepare_accept_content

from jobrunner.testing.told import Told
from jobrunner.wire import HEADER, VERSION, TaskHeader


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """The message of a task, decoded as a worker decodes it: what the body gets has been through the serializer."""

    headers: Mapping[str, Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    callbacks: Any
    errbacks: Any

    @classmethod
    def of(cls, app: Celery, row: Mapping[str, Any]) -> "Letter":
        """Open the message that a row of table `message` has."""
        accept = prepare_accept_content(app.conf.accept_content)
        args, kwargs, embed = loads(row["body"], row["content_type"], row["content_encoding"], accept=accept)
        headers = json.loads(row["headers"])
        return cls(headers=headers, args=tuple(args), kwargs=kwargs, callbacks=embed["callbacks"],
                   errbacks=embed["errbacks"])  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """The next attempt, and the error after which there is one."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    error: BaseException | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How an attempt has ended: with a value, an error or a retry; and what its body has told."""

    told: Sequence[Mapping[str, Any]]
    seconds: float
    value: Any = None
    error: BaseException | None = None
    traceback: str | None = None
    retry: Again | None = None


@contextmanager
def inline(app: Celery) -> Iterator[Told]:
    """Let the bodies of an app's tasks run here: what they tell is kept, and what they send runs at once.

    That is what `task_always_eager` means to Celery. An error of what they send stays there, as on a worker; where the
    app is the current one, too, in which Celery looks for what is sent.
    """
    wanted = {"task_always_eager": True, "task_eager_propagates": False}
    before = {setting: app.conf[setting] for setting in wanted}
    events, told = app.__dict__.get("events"), Told()
    current = getattr(_tls, "current_app", None)
    app.conf.update(wanted)
    app.__dict__["events"] = told
    app.set_current()
    try:
        yield told
    finally:
        _set_current_app(current)
        app.conf.update(before)
        del app.__dict__["events"]
        if events is not None:
            app.__dict__["events"] = events


def attempt(
    app: Celery, told: Told, letter: Letter, *, task_id: str, job_id: str, retries: int, args: Any, kwargs: Any
) -> Ended:
    """Run the body of a task once, with its hooks and signals, and what is linked to it."""
    task = app.tasks[letter.headers["task"]]
    header: TaskHeader = {"v": VERSION, "task": task_id, "run": 1, "delivery": 1}
    request = {
        **letter.headers,
        "headers": letter.headers,
        "id": task_id,
        "root_id": job_id,
        "retries": retries,
        "callbacks": letter.callbacks,
        "errbacks": letter.errbacks,
        "delivery_info": {"is_eager": True},
        "hostname": socket.gethostname(),
        "is_eager": True,
        "ignore_result": True,  # or Celery might store it
        HEADER: header,
    }
    trace = build_tracer(task.name, task, eager=True, propagate=False, app=app)
    began = time.perf_counter()
    try:
        ended = _ended(trace(task_id, args, kwargs, request))
    except SystemExit as error:
        ended = {"error": WorkerLostError(f"Worker exited prematurely: exitcode {error.code}.")}
    return Ended(told=told.take(), seconds=time.perf_counter() - began, **ended)


def _ended(traced: Any) -> dict[str, Any]:
    """Return what of an end differs from an attempt of which nothing is known."""
    if traced.info is None:
        return {"value": traced.retval}
    error = traced.info.retval
    if traced.info.state == states.RETRY and error.sig is not None:
        return {"retry": Again(args=tuple(error.sig.args), kwargs=error.sig.kwargs, error=error.exc)}
    return {"error": error, "traceback": str(traced.retval.traceback)}
