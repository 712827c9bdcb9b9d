"""What HySDS says of tasks and their events (H), as far as states and names alone show it."""

import pytest

from jobrunner.states import TASK_MOVES, TaskState, success
from jobrunner.terminology import ACTIVE_EVENTS, INACTIVE_EVENTS, ours

EVENTS = {
    "sent": TaskState.QUEUED,
    "received": TaskState.QUEUED,
    "started": TaskState.ACTIVE,
    "succeeded": TaskState.COMPLETED,
    "failed": TaskState.FAILED,
    "revoked": TaskState.CANCELED,
    "retried": TaskState.SOFT_FAILED,
}


def test_h2_jobs_are_tasks_that_run_a_subprocess() -> None:
    assert ours("HySDS", "word", "job") == ("command task",)


@pytest.mark.parametrize(("event", "state"), EVENTS.items(), ids=EVENTS)
def test_h3_every_event_tells_of_a_state(event: str, state: TaskState) -> None:
    assert state in ours("HySDS", "event", event)


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
