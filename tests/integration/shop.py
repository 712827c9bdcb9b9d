"""A Celery application that has never heard of jobrunner; its broker comes from Celery's own variables."""

import json
import os
import threading
from pathlib import Path
from typing import Any

from celery import Celery, Task

from tests.waiting import until

app = Celery("shop")
app.conf.broker_transport_options = json.loads(os.environ.get("PROJ_TRANSPORT", "{}"))


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
def broken(*_: Any) -> None:
    message = "no"
    raise ValueError(message)


@app.task(bind=True)
def again(self: Task, value: int, times: int, seconds: float = 0.0) -> int:
    """Ask for another try so many times, then return the value."""
    if self.request.retries < times:
        raise self.retry(countdown=seconds, exc=ValueError("not yet"))
    return value


@app.task(bind=True, max_retries=1)
def never(self: Task) -> None:
    """Fail in every try."""
    raise self.retry(countdown=0, exc=ValueError("never"))


@app.task
def hold(path: str) -> None:
    """Say that we are there, and wait for a file."""
    Path(path).with_suffix(".here").touch()
    until(Path(path).exists, timeout=100, what=f"{path} to appear")


@app.task
def last(seconds: float, name: str, path: str) -> None:
    """Write down that we start, and take our time."""
    with Path(path).open("a") as lines:
        lines.write(f"{name}\n")
    threading.Event().wait(seconds)


@app.task
def send(x: int, y: int) -> None:
    """Send a task from within one."""
    add.delay(x, y)
