"""What a task was submitted with, as programs get it: by name and position, and never a password."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from celery import chain
from celery.canvas import Signature

from jobrunner import JobRunner
from jobrunner.parameters import parameters_of
from jobrunner.store import reading
from tests.apps import new_runner, store


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobRunner]:
    runner = new_runner(tmp_path)
    yield runner
    runner.database.close()


def parameters(jobs: JobRunner, canvas: Signature) -> list[dict[str, Any]]:
    """Return those of each task of a canvas, in order of arrival."""
    job_id = store(jobs, canvas)
    with jobs.database.read() as connection:
        return [
            parameters_of(one.body, one.content_type, one.headers, takes_value=one.takes_value)
            for one in reading.list_messages(connection, job_id)
        ]


def anything(jobs: JobRunner, *args: Any, **kwargs: Any) -> Signature:
    return jobs.app.tasks["anything"].s(*args, **kwargs)


@pytest.mark.parametrize("options", [{}, {"serializer": "pickle"}, {"serializer": "yaml"}], ids=str)
def test_a_task_without_arguments_has_none(jobs: JobRunner, options: dict[str, Any]) -> None:
    assert parameters(jobs, anything(jobs).set(**options)) == [{}]


def test_arguments_are_told_by_position_and_by_name(jobs: JobRunner) -> None:
    when = datetime(2026, 11, 22, tzinfo=UTC)
    assert parameters(jobs, anything(jobs, 1, "two", x=[3], y={"z": None}, when=when)) == [
        {"0": 1, "1": "two", "x": [3], "y": {"z": None}, "when": when}
    ]


def test_a_value_that_a_task_takes_is_its_first_argument_and_is_not_told(jobs: JobRunner) -> None:
    assert parameters(jobs, chain(anything(jobs, 1), anything(jobs, 2), anything(jobs, 3).set(immutable=True))) == [
        {"0": 1},
        {"1": 2},
        {"0": 3},
    ]


def test_what_is_no_json_is_told_as_celery_shows_it(jobs: JobRunner) -> None:
    canvas = anything(jobs, 1, 2, x=3).set(serializer="pickle")
    assert parameters(jobs, canvas) == [{"args": "(1, 2)", "kwargs": "{'x': 3}"}]


def test_what_is_to_be_shown_instead_of_arguments_is_told_instead(jobs: JobRunner) -> None:
    canvas = anything(jobs, "4242 4242 4242 4242", pin=1234).set(argsrepr="('a card',)", kwargsrepr="{'pin': '…'}")
    assert parameters(jobs, canvas) == [{"args": "('a card',)", "kwargs": "{'pin': '…'}"}]


def test_passwords_are_masked_however_deep(jobs: JobRunner) -> None:
    url = "redis://:hidden@host/0"
    told = parameters(jobs, anything(jobs, [url], {"api_key": "hidden"}, password="hidden", kept="seen"))  # noqa: S106
    assert "hidden" not in str(told)
    assert (told[0]["kept"], told[0]["password"]) == ("seen", "***")
