"""Progress that tasks report, from real workers."""

from typing import Any

import pytest

from jobrunner.errors import NoVerdictError
from jobrunner.event_types import COMMON, EVENT_TYPES
from tests.house import House, on_sqlite
from tests.waiting import PATIENCE, until
from tracker.eventlog import open_log

pytestmark = on_sqlite


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_of_10_000_reports_three_events_a_second_are_told_and_the_last_has_the_last_value(
    house: House, pool: str
) -> None:
    """They are in the log before the task's end is; nobody else reads it."""
    house.broker()
    house.worker(pool=pool)
    sent = house.proj.report_often.apply_async((10_000,))
    seconds = sent.get(timeout=PATIENCE)
    log = open_log(house.app)
    told: list[dict[str, Any]] = []

    def has_ended() -> bool:
        batch = log.read(None, 0.1)
        told[:] = [event for entry in batch.entries for event in entry.events if event.get("uuid") == sent.id]
        return any(event["type"] == "task-succeeded" for event in told)

    until(has_ended, timeout=PATIENCE, what="the task's end to be told")
    log.close()
    types = [event["type"] for event in told]
    reports = [event for event in told if event["type"] == "task-progress"]
    assert len(reports) <= 2 + int(seconds / 0.5)  # three within a second
    assert [reports[0]["done"], reports[-1]["done"]] == [1, 10_000]
    assert (reports[-1]["progress"], reports[-1]["message"]) == (1.0, "item 9999")
    assert types.index("task-succeeded") > max(types.index(one["type"]) for one in reports)
    known = {name for field in (*EVENT_TYPES["task-progress"].fields, *COMMON) for name in field.name.split(", ")}
    assert {name for one in reports for name in one} == known
    assert {(one["root_id"], one["retries"], one["hostname"]) for one in reports} == {(sent.id, 0, "worker@house")}


def test_a_task_that_must_report_all_and_becomes_another_has_to_report_all_before(running: House) -> None:
    then = running.proj.add.si(1, 2)
    job = running.jobs.submit(running.proj.report_in_turn.si([0.5], [1.0], then=then))
    assert job.result(PATIENCE) == 3
    first, second = running.ended_attempts(job)[0]
    assert (first.outcome, second.outcome) == ("retried", "succeeded")
    assert "its last report is 0.5" in str(first.exception)
    assert len(job.tasks()) == 2  # the first try has added nothing


def test_a_task_outside_of_jobs_must_report_all_as_well(running: House) -> None:
    running.proj.report_in_turn.apply_async(([0.5], [1.0])).get(timeout=PATIENCE)
    with pytest.raises(NoVerdictError, match=r"its last report is 0\.5"):
        running.proj.report_in_turn.apply_async(([0.5],), retries=3).get(timeout=PATIENCE)
