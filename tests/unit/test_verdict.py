"""How long a task rests, and how often it is tried, that ended without the verdict that was asked of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery import Celery, Task

from jobrunner.errors import NoVerdictError
from workers.verdict import retry_without_verdict

ERROR = NoVerdictError("It ended.")


@contextmanager
def running(retries: int, **options: Any) -> Iterator[Task]:
    """Yield a task with these options as its worker has it in this try."""
    app = Celery("verdicts", broker="memory://", backend="cache+memory://", set_as_current=False)
    task = app.task(name="work", shared=False, **options)(_work)
    task.push_request(id="task", args=[], kwargs={}, retries=retries, called_directly=False, delivery_info={})
    try:
        yield task
    finally:
        task.pop_request()
        app.close()


def _work() -> None:
    """What it does is of no account here."""


@pytest.mark.parametrize(
    ("options", "rests"),
    [
        ({"default_retry_delay": 7}, (7, 7)),
        ({"retry_backoff": 2, "retry_jitter": False}, (8, 8)),
        ({"retry_backoff": True, "retry_backoff_max": 3, "retry_jitter": False}, (3, 3)),
        ({"retry_backoff": 1000, "retry_jitter": True}, (0, 600)),
        ({"retry_kwargs": {"countdown": 5}}, (5, 5)),
    ],
    ids=str,
)
def test_it_rests_as_after_an_exception(options: dict[str, Any], rests: tuple[float, float]) -> None:
    with running(retries=2, **options) as task:
        retry = retry_without_verdict(task, ERROR)
    least, most = rests
    assert least <= retry.when <= most
    assert retry.exc is ERROR


def test_with_its_retries_used_up_it_fails() -> None:
    with running(retries=3, max_retries=3) as task, pytest.raises(NoVerdictError, match="It ended"):
        retry_without_verdict(task, ERROR)
