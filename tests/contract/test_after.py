"""Jobs that wait for other jobs: nothing of them runs before all of these have completed (C4)."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import chain

from jobrunner.states import JobState, TaskState
from tests.driven import Driven, driven


@pytest.fixture
def here(tmp_path: Path, database_url: str) -> Iterator[Driven]:
    with driven(tmp_path, database_url) as made:
        yield made


def test_a_job_is_released_when_all_that_it_waits_for_have_completed(here: Driven) -> None:
    first = here.submit(here.work(), key="first")
    second = here.submit(here.work(), key="second")
    third = here.submit(chain(here.work(), here.work()), after=["first", second])
    assert here.state is JobState.WAITING
    assert here.tasks == [TaskState.PENDING] * 2
    here.of(first).run()
    assert here.of(third).state is JobState.WAITING
    here.of(second).run()
    assert here.of(third).state is JobState.QUEUED
    here.turn()
    assert here.tasks == [TaskState.QUEUED, TaskState.PENDING]
    here.run(0)
    here.run(1)
    assert here.state is JobState.COMPLETED
