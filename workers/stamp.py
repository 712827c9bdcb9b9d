"""What a task of a job sends says of which run of its job it is: a gate drops what earlier runs have left behind."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from celery import signals
from celery._state import get_current_worker_task

from jobrunner.wire import HEADER, RUN_HEADER
from workers.gate import Headers, sent_of

#: The message of whose end the main process takes care, and sends what is linked to that.
_ended: ContextVar[Headers | None] = ContextVar("ended", default=None)


def stamp_runs() -> None:
    """Stamp whatever tasks of jobs send from this process, and from those that it forks."""
    signals.before_task_publish.connect(_stamp, dispatch_uid="jobrunner-run")


@contextmanager
def sending_for(headers: Headers) -> Iterator[None]:
    """Let what is sent until the end of the block be sent by the task of this message."""
    token = _ended.set(headers)
    try:
        yield
    finally:
        _ended.reset(token)


def _stamp(headers: dict[str, Any], **_: Any) -> None:
    task = get_current_worker_task()
    sender: Headers | None = _ended.get() if task is None else task.request
    if sender is None or HEADER in headers or headers.get("root_id") != sender.get("root_id"):
        return
    run = sent_of(sender).run
    if run is not None:
        headers.setdefault(RUN_HEADER, run)
