"""What the options of tasks say of their attempts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import Retry

from jobrunner import JobRunner
from jobrunner.retry_policy import MAX_ATTEMPTS, RETRY_POLICY, last_retry, max_retries, wait
from tests.apps import new_app, new_runner


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[JobRunner]:
    made = new_runner(tmp_path, new_app(tmp_path, broker="memory://"))
    yield made
    made.database.close()


def task(runner: JobRunner, **options: Any) -> Any:
    @runner.task(name="fails", shared=False, ignore_result=True, **options)
    def fails() -> None:
        raise ValueError

    runner.prepare_tasks()
    return runner.app.tasks["fails"]


def waits(one: Any, retries: int) -> float:
    """Fail one attempt of a task as a worker runs it, and return how long its retry waits."""
    one.push_request(id="task", retries=retries, called_directly=False, delivery_info={}, args=(), kwargs={})
    try:
        with pytest.raises(Retry) as retry:
            one.run()
    finally:
        one.pop_request()
    return float(retry.value.when)


def test_the_waits_are_those_that_the_docstring_says(runner: JobRunner) -> None:
    told = JobRunner.task.__doc__ or ""
    assert "up to 1     up to 2     up to 4\n" in told
    assert "1, 2, 4, 8 … 512, 600, 600" in told
    assert RETRY_POLICY["max_retries"] == 3
    longest = task(runner, retry_jitter=False, max_retries=None)
    assert [waits(longest, retries) for retries in (0, 1, 2, 3, 9, 10, 11)] == [1, 2, 4, 8, 512, 600, 600]


def test_a_wait_is_any_whole_number_of_seconds_up_to_that_of_the_series(runner: JobRunner) -> None:
    found = task(runner)
    for retries, last in enumerate((1, 2, 4)):
        seen = {waits(found, retries) for _ in range(200)}
        assert seen == set(range(last + 1))


@pytest.mark.parametrize("retries", range(3))
def test_what_ends_without_a_verdict_waits_as_an_exception_does(runner: JobRunner, retries: int) -> None:
    one = task(runner, retry_jitter=False)
    assert wait(one, retries) == waits(one, retries)


def test_without_a_backoff_the_wait_is_the_tasks_own(runner: JobRunner) -> None:
    assert wait(task(runner, retry_backoff=False, default_retry_delay=7), 2) == 7
    assert wait(runner.app.task(name="plain", shared=False)(waits), 2) == 180


@pytest.mark.parametrize(
    ("options", "number"),
    [
        ({}, 3),
        ({"max_retries": 0}, 0),
        ({"max_retries": None}, None),
        ({"retry_kwargs": {"max_retries": 7}}, 7),
        ({"retry_kwargs": {"countdown": 7}}, 3),
        ({"max_retries": -1}, 0),
        ({"max_retries": "many"}, None),
    ],
)
def test_a_task_may_be_retried_as_often_as_celery_would(
    runner: JobRunner, options: dict[str, Any], number: int | None
) -> None:
    assert max_retries(task(runner, **options)) == number


def test_no_task_is_attempted_for_ever() -> None:
    assert (last_retry(3), last_retry(0), last_retry(None)) == (3, 0, MAX_ATTEMPTS - 1)
