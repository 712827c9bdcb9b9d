"""What Flamenco's statuses say (F1 and F4), as far as states and moves alone show it."""

from collections.abc import Mapping

import pytest

from jobrunner.states import JOB_MOVES, TASK_MOVES, JobState, TaskState
from jobrunner.terminology import Kind, ours

JOB_ARROWS = """
under-construction -> queued
under-construction -> active
queued -> active
queued -> canceled
active -> completed
active -> canceled
active -> failed
completed -> queued
failed -> queued
failed -> canceled
cancel-requested -> canceled
canceled -> queued
requeueing -> queued
""".strip().splitlines()

TASK_ARROWS = """
queued -> active
queued -> canceled
active -> completed
active -> canceled
active -> failed
active -> soft-failed
completed -> queued
soft-failed -> queued
soft-failed -> completed
soft-failed -> failed
soft-failed -> canceled
failed -> queued
failed -> canceled
canceled -> queued
""".strip().splitlines()

# What may be passed on the way to a status, where Flamenco draws one arrow: the order that is being carried out, and
# what comes before a task is sent. Passing anything else would be another arrow.
STOPS: dict[tuple[Kind, str], set[str]] = {
    ("job", "queued"): {JobState.REQUEUEING},
    ("job", "canceled"): {JobState.CANCEL_REQUESTED},
    ("task", "queued"): {TaskState.PENDING, TaskState.READY},
}
MOVES: dict[Kind, dict[str, frozenset[str]]] = {
    "job": {str(state): frozenset(targets) for state, targets in JOB_MOVES.items()},
    "task": {str(state): frozenset(targets) for state, targets in TASK_MOVES.items()},
}


def _is_a_way(kind: Kind, arrow: str) -> bool:
    """Tell whether all states that the left name stands for lead to one that the right name stands for."""
    left, right = arrow.split(" -> ")
    start, end = set(ours("Flamenco", kind, left)), set(ours("Flamenco", kind, right))
    # States that share the left name may be passed as well: to Flamenco, nothing happens between them.
    stops = STOPS.get((kind, right), set()) | start
    return bool(start) and all(_leads(MOVES[kind], state, end, stops) for state in start)


def _leads(moves: Mapping[str, frozenset[str]], start: str, end: set[str], stops: set[str]) -> bool:
    seen: set[str] = set()
    front = {start}
    while front:
        seen |= front
        targets = {target for state in front for target in moves[state]}
        if targets & end:
            return True
        front = (targets & stops) - seen
    return False


@pytest.mark.parametrize("arrow", JOB_ARROWS)
def test_f1_every_arrow_of_a_job_is_a_way_through_our_moves(arrow: str) -> None:
    assert _is_a_way("job", arrow)


@pytest.mark.parametrize("arrow", TASK_ARROWS)
def test_f4_every_arrow_of_a_task_is_a_way_through_our_moves(arrow: str) -> None:
    assert _is_a_way("task", arrow)


@pytest.mark.parametrize("arrow", ["canceled -> completed", "completed -> failed", "cancel-requested -> queued"])
def test_f1_an_arrow_of_a_job_that_flamenco_lacks_is_no_way(arrow: str) -> None:
    assert not _is_a_way("job", arrow)


@pytest.mark.parametrize("arrow", ["canceled -> active", "completed -> failed", "failed -> completed"])
def test_f4_an_arrow_of_a_task_that_flamenco_lacks_is_no_way(arrow: str) -> None:
    assert not _is_a_way("task", arrow)


@pytest.mark.parametrize("name", sorted({name for arrow in JOB_ARROWS for name in arrow.split(" -> ")} | {"paused"}))
def test_f1_a_job_status_has_the_same_name_with_us(name: str) -> None:
    assert ours("Flamenco", "job", name) == (JobState(name),)


@pytest.mark.parametrize("name", ["queued", "active", "completed", "soft-failed", "failed", "canceled"])
def test_f4_a_task_status_has_the_same_name_with_us(name: str) -> None:
    assert TaskState(name) in ours("Flamenco", "task", name)


def test_f1_queued_is_ready_to_be_assigned() -> None:
    assert JobState.ACTIVE in JOB_MOVES[JobState.QUEUED]


def test_f1_a_cancel_requested_by_a_user_ends_in_canceled_only() -> None:
    assert JOB_MOVES[JobState.CANCEL_REQUESTED] == {JobState.CANCELED}


def test_f1_completed_failed_and_canceled_jobs_are_queued_again_by_requeueing() -> None:
    for ended in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELED):
        assert JobState.REQUEUEING in JOB_MOVES[ended]
        assert JobState.QUEUED not in JOB_MOVES[ended]


def test_f4_queued_is_ready_to_be_assigned() -> None:
    assert ours("Flamenco", "task", "queued") == (TaskState.READY, TaskState.QUEUED)


def test_f4_soft_failed_is_same_as_queued_but_has_been_failed_by_a_worker_in_an_earlier_execution() -> None:
    queued, soft_failed = TASK_MOVES[TaskState.QUEUED], TASK_MOVES[TaskState.SOFT_FAILED]
    assert queued - {TaskState.SOFT_FAILED} <= soft_failed
    assert {state for state in TaskState if TaskState.SOFT_FAILED in TASK_MOVES[state]} == {
        TaskState.QUEUED,  # its start was not seen
        TaskState.ACTIVE,
    }


def test_f4_a_paused_task_is_one_that_its_job_holds() -> None:
    assert ours("Flamenco", "task", "paused") == (TaskState.READY,)
    assert TaskState.READY in TASK_MOVES[TaskState.QUEUED]
