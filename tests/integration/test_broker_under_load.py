"""The broker is killed and started again under a worker at work; the database then says what each task wrote itself.

Each task writes its starts and its ends to a file of its own, so that also an execution which nobody was told of is
known: the broker gives out once more what it had not been told to forget.
"""

import pytest
from celery import group

from jobrunner.handle import Job
from jobrunner.records import Attempt
from tests.house import PATIENCE, House
from tests.waiting import until

pytestmark = [pytest.mark.nodes, pytest.mark.house_on("sqlite-redis", chaos=["postgresql-rabbitmq"])]

TASKS = 400
#: Processes of a house's worker.
PROCESSES = 2
#: Tasks that have ended when the broker is killed.
BEFORE = 100

#: The Celery id and the number of retries: what is told of an execution by both sides.
Try = tuple[str, int]


def written(house: House, job: Job) -> dict[str, list[tuple[str, Try]]]:
    """Return what each task wrote, line by line, by its id."""

    def line(text: str) -> tuple[str, Try]:
        word, celery_id, retries = text.split()
        return word, (celery_id, int(retries))

    return {task.id: [line(text) for text in house.lines(f"files/{task.arrival}")] for task in job.tasks()}


def started(attempts: list[Attempt]) -> dict[Try, Attempt]:
    return {(one.celery_id, one.retries): one for one in attempts if one.started_at is not None}


def losses(house: House) -> list[tuple[int, int]]:
    """Return for each worker the events that it dropped, and the batches of its events that never arrived."""
    shown = house.ask("workers", "--json").json
    return [(one["events_dropped"], one["batches_missed"]) for one in shown]


def test_the_database_says_what_each_task_wrote(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    """All but this: what Celery has just handed to a pool process it forgets when its connection breaks.

    The process runs it all the same, and nobody tells. On Redis the tracker sends it once more.
    """
    broker = house.broker()
    house.tracker()
    worker = house.worker(module="jobrunner")
    (house.home / "files").mkdir()
    job = house.jobs.submit(group(house.proj.record.s(number, house.path("files")) for number in range(TASKS)))
    until(lambda: job.progress.done >= BEFORE, timeout=PATIENCE, what=f"{BEFORE} tasks to end")
    broker.kill()
    assert job.progress.done < TASKS
    house.broker()
    assert job.result(PATIENCE) == list(range(TASKS))
    house.check_completed_once(job)
    assert worker.running

    attempts, files = house.attempts(job), written(house, job)
    ((dropped, missed),) = losses(house)
    untold, twice = [], 0
    for task_id, lines in files.items():
        starts = [one for word, one in lines if word == "start"]
        known = started(attempts[task_id])
        assert known.keys() <= set(starts)
        assert sum(one.started_at is not None for one in attempts[task_id]) <= len(starts)
        assert {one for one, attempt in known.items() if attempt.outcome == "succeeded"} <= {
            one for word, one in lines if word == "end"
        }
        untold += sorted(set(starts) - known.keys())
        twice += len(starts) > 1
    with capsys.disabled():
        print(f"\nbroker killed under {TASKS} tasks: {twice} ran twice, {len(untold)} runs untold")  # noqa: T201
    assert (dropped, missed) == (0, 0)
    assert len(untold) <= PROCESSES
