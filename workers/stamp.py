"""What a task of a job sends says of which run of its job it is: a gate drops what earlier runs have left behind.

A retry says besides which workers have failed the task.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from celery import signals
from celery._state import get_current_worker_task

from jobrunner.wire import HEADER, MOST_AVOIDED, RUN_HEADER, TaskHeader
from workers.gate import Headers, sent_of

#: The message of whose end the main process takes care, and sends what is linked to that.
_ended: ContextVar["_Sender | None"] = ContextVar("ended", default=None)


class _Sender(NamedTuple):
    """The message of a task, and the worker that has it."""

    message: Headers
    worker: str


def stamp_runs() -> None:
    """Stamp whatever tasks of jobs send from this process, and from those that it forks."""
    signals.before_task_publish.connect(_stamp, dispatch_uid="jobrunner-run")


@contextmanager
def sending_for(headers: Headers, worker: str) -> Iterator[None]:
    """Let what is sent until the end of the block be sent by the task of this message, which this worker has had."""
    token = _ended.set(_Sender(headers, worker))
    try:
        yield
    finally:
        _ended.reset(token)


def _stamp(headers: dict[str, Any], **_: Any) -> None:
    task = get_current_worker_task()
    sender = _ended.get() if task is None else _Sender(task.request, task.request.hostname or "")
    if sender is None or headers.get("root_id") != sender.message.get("root_id"):
        return
    if HEADER in headers:
        if headers.get("id") == sender.message.get("id"):
            headers[HEADER] = avoiding(headers[HEADER], sender.worker)
        return
    run = sent_of(sender.message).run
    if run is not None:
        headers.setdefault(RUN_HEADER, run)


def avoiding(header: TaskHeader, worker: str) -> TaskHeader:
    """Return the header of a retry: one more worker has failed the task, and the last few are named."""
    others = [one for one in header.get("avoid", ()) if one != worker]
    return {**header, "avoid": [*others, worker][-MOST_AVOIDED:]}
