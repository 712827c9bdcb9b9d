"""What bodies state of their work, as workers tell it: nested, grown, adopted, outside of jobs, and many at once."""

import pytest
from celery import chain

from jobrunner.statements import MOST_ERRORS
from jobrunner.states import JobState, TaskState
from tests.house import PATIENCE, House
from tests.waiting import until

pytestmark = pytest.mark.house_on("sqlite-redis", chaos=["postgresql-rabbitmq"])


def test_a_body_that_calls_its_own_task_gets_what_that_returns_and_only_its_own_word_counts(running: House) -> None:
    state = running.proj.state_of_itself
    job = running.jobs.submit(state.si(1))
    assert job.result(PATIENCE) == 1
    assert [one.state for one in job.tasks()] == [TaskState.COMPLETED]
    skipped = running.jobs.submit(chain(state.si(2), running.proj.identity.s()))
    assert skipped.result(PATIENCE) == [1, 2]
    assert [one.state for one in skipped.tasks()] == [TaskState.SKIPPED, TaskState.COMPLETED]


def test_a_task_that_grows_may_state_as_much_and_has_the_value_of_what_it_has_grown_into(running: House) -> None:
    job = running.jobs.submit(running.proj.expand_in_part.si(running.proj.identity.si(7)), on_partial="tolerate")
    assert job.result(PATIENCE) == 7
    assert job.view.outcome == "with-errors"
    assert [one.state for one in job.tasks()] == [TaskState.PARTIAL, TaskState.COMPLETED]


def test_what_a_task_of_a_job_has_sent_may_state_as_much(running: House) -> None:
    proj = running.proj
    job = running.jobs.submit(proj.call.si(proj.process.si(["a", "b"], ["b"]), proj.skip.si(0, "why")))
    assert (job.wait(PATIENCE), job.view.reason) == (JobState.FAILED, "partial")
    assert sorted(one.state for one in job.tasks()) == ["completed", "partial", "skipped"]


def test_outside_of_jobs_the_value_flows_and_nothing_is_told(running: House) -> None:
    proj = running.proj
    assert proj.process.delay(["a", "b"], ["b"]).get(PATIENCE) == ["a"]
    assert proj.skip.delay([1], "why").get(PATIENCE) == [1]


@pytest.mark.chaos
@pytest.mark.house_on("sqlite-redis")
@pytest.mark.timeout(300)
def test_an_attempt_whose_statement_the_event_log_does_not_take_is_tried_again_when_it_does(house: House) -> None:
    house.broker()
    tracker = house.tracker()
    worker = house.worker(JOBRUNNER_EVENT_LOG_LIMIT="300")  # Redis forgets about a hundred entries at a time
    gate = house.gate("open")
    job = house.jobs.submit(house.proj.wait_and_fail_many.si(1_000, str(gate)))  # in four parts
    until(lambda: job.tasks()[0].started_at is not None, timeout=PATIENCE, what="the task to start")
    tracker.kill()

    def full() -> bool:
        """Run one more task, whose events go into the log."""
        house.proj.identity.delay(1).get(timeout=PATIENCE)
        return "The event log is full" in worker.text

    until(full, timeout=PATIENCE, what="the event log to be full")
    gate.open()
    worker.says("EventLogFullError")
    house.tracker(ready=None)
    assert (job.wait(2 * PATIENCE), job.view.reason) == (JobState.FAILED, "partial")
    (only,) = job.tasks()
    assert (only.retries, len(job.task(only.id).item_errors())) == (1, 1_000)


def test_ten_thousand_item_errors_are_kept_and_shown_page_by_page(running: House) -> None:
    job = running.jobs.submit(running.proj.fail_many.si(MOST_ERRORS))
    assert (job.wait(PATIENCE), job.view.reason) == (JobState.FAILED, "partial")
    (only,) = job.tasks()
    assert (only.items and only.items.failed) == MOST_ERRORS
    handle, numbers = job.task(only.id), []
    while page := handle.item_errors(limit=4_000, after=numbers[-1] if numbers else None):
        numbers += [one.number for one in page]
    assert numbers == list(range(MOST_ERRORS))
    shown = running.ask("show", "--errors", job.id)
    assert len(shown.out) < 200_000
    assert "… and 9,900 more: --offset 100" in shown.err
