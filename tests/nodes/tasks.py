"""Tasks that pytest-celery copies into a worker's folder; with the standard library and Celery only."""

import os
import threading
import time
from pathlib import Path
from typing import Any

from celery import shared_task

#: Seconds after which a task that nobody lets go gives up.
_PATIENCE = 60.0


@shared_task(autoretry_for=(Exception,), max_retries=3, retry_on_worker_lost=True)
def note(value: Any, path: str) -> Any:
    """Add a line to a file, in one write, and return the value."""
    _append(Path(path), value)
    return value


@shared_task(autoretry_for=(Exception,), max_retries=3, retry_on_worker_lost=True)
def hold(value: Any, gate: str) -> Any:
    """Leave our pid in `GATE.pids`, then wait for the file `GATE` to appear."""
    _append(Path(gate).with_suffix(".pids"), os.getpid())
    deadline = time.monotonic() + _PATIENCE
    pause = threading.Event()
    while not Path(gate).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(gate)
        pause.wait(0.02)
    return value


@shared_task()
def total(values: list[int]) -> int:
    """Join."""
    return sum(values)


def _append(path: Path, line: object) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)
