"""What HySDS says of tasks and their events (H), as far as states, names and a running house show it."""

import pytest
from celery import chain

from jobrunner.states import TASK_MOVES, TaskState, success
from jobrunner.terminology import ACTIVE_EVENTS, INACTIVE_EVENTS, ours
from tests.house import House

EVENTS = {
    "sent": TaskState.QUEUED,
    "received": TaskState.QUEUED,
    "started": TaskState.ACTIVE,
    "succeeded": TaskState.COMPLETED,
    "failed": TaskState.FAILED,
    "revoked": TaskState.CANCELED,
    "retried": TaskState.SOFT_FAILED,
}

FIELDS = {
    "task-sent": "uuid name args kwargs retries eta expires queue exchange routing_key",
    "task-received": "uuid name args kwargs retries eta hostname timestamp",
    "task-started": "uuid hostname timestamp pid",
    "task-succeeded": "uuid result runtime hostname timestamp",
    "task-failed": "uuid exception traceback hostname timestamp",
    "task-retried": "uuid exception traceback hostname timestamp",
}


def test_h2_jobs_are_tasks_that_run_a_subprocess() -> None:
    assert ours("HySDS", "word", "job") == ("command task",)


@pytest.mark.parametrize(("event", "state"), EVENTS.items(), ids=EVENTS)
def test_h3_every_event_tells_of_a_state(event: str, state: TaskState) -> None:
    assert state in ours("HySDS", "event", event)


def test_h3_the_events_of_a_job_have_the_fields_of_celerys_own(running: House) -> None:
    proj = running.proj
    canvas = chain(proj.add.s(1, 2), proj.fail_times.s(1, running.path("h3")), proj.fail.s())
    _, events = running.events_of(canvas, 15)
    assert {event["type"] for event in events} == set(FIELDS)
    for event in events:
        assert set(FIELDS[event["type"]].split()) <= set(event)


@pytest.mark.parametrize("event", ["succeeded", "failed", "revoked", "retried"])
def test_h3_every_end_may_come_without_a_started(event: str) -> None:
    assert EVENTS[event] in TASK_MOVES[TaskState.QUEUED]


def test_h4_sent_received_and_started_are_active_with_more_to_come() -> None:
    assert set(ACTIVE_EVENTS) == {"sent", "received", "started"}
    for event in ACTIVE_EVENTS:
        assert success(EVENTS[event]) is None


def test_h4_succeeded_failed_revoked_and_retired_are_inactive() -> None:
    assert set(INACTIVE_EVENTS) == {"succeeded", "failed", "revoked", "retried"}


def test_h4_retired_is_retried() -> None:
    assert ours("HySDS", "event", "retired") == ours("HySDS", "event", "retried") == (TaskState.SOFT_FAILED,)
