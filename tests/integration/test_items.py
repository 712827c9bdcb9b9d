"""Failed items with real workers: a task takes only those, and what comes next what came of them."""

from pathlib import Path

import pytest
from celery import chain

from jobrunner.states import JobState, TaskState
from tests.house import PATIENCE, House
from tests.waiting import until


@pytest.mark.house_on("postgresql-redis", chaos=["sqlite-redis", "sqlite-rabbitmq", "postgresql-rabbitmq"])
def test_the_paths_that_failed_are_handled_by_themselves_and_go_on_to_the_next_task(running: House) -> None:
    """Two of ten are missing; then they are there, and the task that finds them is tried twice."""
    paths = [running.path(f"path-{number}") for number in range(10)]
    for path in paths[:8]:
        Path(path).touch()
    find, append = running.proj.find, running.proj.append
    given, broken, next_ = (running.path(name) for name in ("given", "broken", "next"))
    job = running.jobs.submit(chain(find.s(paths, given, broken), append.s(next_)))
    assert job.wait(PATIENCE) is JobState.FAILED
    assert job.view.reason == "partial"
    assert [one.state for one in job.tasks()] == [TaskState.PARTIAL, TaskState.COMPLETED]
    assert running.lines("next") == [str(paths[:8])]
    for path in (*paths[8:], broken):
        Path(path).touch()
    ended = running.ask("requeue", job.id, "--items", "failed")
    assert (ended.code, "2 tasks run again, 1 of them with only the items" in ended.out) == (0, True)
    until(lambda: job.state is JobState.COMPLETED, timeout=PATIENCE, what="the job to complete")
    assert job.result() == paths[8:]
    assert running.lines("given") == ["10", "2", "2"]
    assert running.lines("next") == [str(paths[:8]), str(paths[8:])]
    assert [(one.state, one.delivery) for one in job.tasks()] == [(TaskState.COMPLETED, 2)] * 2
