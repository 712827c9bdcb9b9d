"""Workers of every pool that Celery has: what they do is told, by one flusher in the process that tells it."""

import pytest
from celery import chain, group

from jobrunner.states import JobState
from tests.house import PATIENCE, House, on_sqlite

pytestmark = on_sqlite


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent"])
def test_a_worker_of_any_pool_tells_every_execution_of_its_tasks(house: House, pool: str) -> None:
    house.broker()
    house.tracker()
    house.worker(pool=pool)
    add, total, path = house.proj.add, house.proj.total, house.path("tries")
    canvas = group(chain(add.si(1, 2), add.s(3)), add.si(4, 5), house.proj.fail_times.si(6, 2, path)) | total.s()
    job = house.jobs.submit(canvas)
    assert job.result(PATIENCE) == 6 + 9 + 6

    outcomes = sorted([one.outcome for one in ones] for ones in house.ended_attempts(job))
    assert outcomes == [["retried", "retried", "succeeded"], *[["succeeded"]] * 4]
    for ones in house.attempts(job).values():
        for one in ones:
            assert None not in {one.received_at, one.started_at, one.ended_at, one.worker, one.pid}

    grown = house.jobs.submit(house.proj.call.si(add.si(1, 2)))
    assert grown.wait(PATIENCE) is JobState.COMPLETED
    assert [one.queue for one in grown.tasks()] == ["celery"] * 2  # as its sender alone tells

    stating = house.jobs.submit(chain(house.proj.process.si(["a", "b"], ["b"]), house.proj.skip.s("why")))
    assert (stating.wait(PATIENCE), stating.view.reason) == (JobState.FAILED, "partial")
    assert [one.state for one in stating.tasks()] == ["partial", "skipped"]


@pytest.mark.parametrize("pool", ["threads", "solo", "gevent"])
def test_one_flusher_serves_all_that_a_process_runs(house: House, pool: str) -> None:
    house.broker()
    house.tracker()
    house.worker(pool=pool)
    tell, threads = house.proj.tell, house.proj.threads
    job = house.jobs.submit(group(tell.si("task-progress", n) for n in range(20)) | threads.si())
    assert job.result(PATIENCE).count("jobrunner-flusher") == 1
