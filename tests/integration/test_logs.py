"""What tasks log and print, from real workers."""

import json
import sys

import pytest
from celery import group

from jobrunner.handle import Job
from tests.apps import read_rows
from tests.house import House, on_each_broker, on_sqlite
from tests.waiting import PATIENCE, until

SAID = ["attempt {}", "by Celery's logger", "printed"]


def texts(job: Job, arrival: int = 0, **which: int) -> list[str]:
    return [line.text for line in job.task(job.tasks()[arrival].id).logs(**which)]


@on_each_broker
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_what_a_task_logs_and_prints_is_kept_by_attempt_and_followed_to_its_end(house: House, pool: str) -> None:
    house.broker()
    house.tracker()
    house.worker(pool=pool)
    gate = house.gate("gate")
    job = house.jobs.submit(group(house.proj.talk.si(str(gate)), house.proj.talk.si(str(gate))))
    until(lambda: len(texts(job, attempt=2)) == 3, timeout=PATIENCE, what="the second attempt to have logged")
    followed = [sys.executable, "-m", "jobrunner.cli", "logs", "--follow", "--json", job.tasks()[0].id]
    follower = house.start("follower", followed)
    follower.says("printed")
    gate.open()
    job.wait(PATIENCE)
    until(lambda: not follower.running, timeout=PATIENCE, what="the follower to end")
    lines = [json.loads(line) for line in follower.text.splitlines() if line.startswith("{")]
    assert [line["text"] for line in lines] == [*(one.format(2) for one in SAID), "late"]
    assert [line["level"] for line in lines] == ["WARNING", "WARNING", "OUTPUT", "OUTPUT"]
    for arrival in range(2):
        assert texts(job, arrival, attempt=1) == [one.format(1) for one in SAID]
        assert texts(job, arrival) == [*(one.format(2) for one in SAID), "late"]


@on_sqlite
def test_a_task_that_logs_100_000_lines_in_a_second_has_few_rows_and_a_notice(house: House) -> None:
    """And it waits for nobody; a task that wants no log has none."""
    house.broker()
    house.tracker()
    house.worker()
    job = house.jobs.submit(house.proj.chatter.si(100_000) | house.proj.whisper.si())
    job.wait(PATIENCE)

    def left_out() -> list[int]:
        return [int(text.split()[0].replace(",", "")) for text in texts(job) if "left out" in text]

    def all_told() -> bool:
        return sum(left_out()) + len(texts(job)) - len(left_out()) == 100_000

    until(all_told, timeout=PATIENCE, what="every line to be kept or counted")
    took = job.tasks()[0].runtime
    assert took is not None
    assert len(texts(job)) <= (took + 2) * 1_000 + len(left_out())
    assert left_out()
    rows = read_rows(house.jobs.database, "log_part")
    assert {row["task_id"] for row in rows} == {job.tasks()[0].id}
    assert len(rows) <= 4 * (took + 2)
