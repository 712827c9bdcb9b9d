"""The states and their legal moves."""

from collections.abc import Mapping
from enum import StrEnum

import pytest

from jobrunner.errors import IllegalMoveError
from jobrunner.states import (
    ENDED_JOB,
    ENDED_TASK,
    JOB_MOVES,
    OPEN_TASK,
    TASK_CORRECTIONS,
    TASK_MOVES,
    WELL,
    CancelReason,
    FailureReason,
    JobOutcome,
    JobState,
    TaskState,
    check_job_move,
    check_task_move,
    success,
)

# Copied from the design by hand, on purpose: a slip in the tables of `jobrunner.states` must show.
JOB_TABLE = """
under-construction: queued, active, pausing, paused, completed, failed, cancel-requested
waiting: queued, paused, failed, cancel-requested
queued: under-construction, active, pausing, paused, completed, failed, cancel-requested
active: completed, failed, canceled, pausing, cancel-requested
pausing: paused, active, queued, completed, failed, canceled, cancel-requested
paused: queued, active, waiting, under-construction, pausing, requeueing, cancel-requested, completed, failed, canceled
cancel-requested: canceled
canceled: requeueing
requeueing: queued, waiting, paused, cancel-requested
completed: requeueing, active
failed: requeueing, canceled
"""

TASK_TABLE = """
pending: ready, skipped, failed, canceled
ready: queued, pending, skipped, failed, canceled
queued: active, completed, partial, skipped, soft-failed, failed, canceled, ready, pending
active: completed, partial, skipped, soft-failed, failed, canceled, ready, pending
soft-failed: queued, ready, active, completed, partial, skipped, failed, canceled, pending
completed: pending
partial: pending
skipped: pending
failed: pending, skipped, canceled
canceled: pending
"""

REASONS = "task retries timeout upstream partial lost poison no-workers threshold expired input-lost construction order"


def _parse(table: str) -> dict[str, set[str]]:
    lines = (line.split(": ") for line in table.strip().splitlines())
    return {state: set(targets.split(", ")) for state, targets in lines}


def _plain(
    moves: Mapping[JobState, frozenset[JobState]] | Mapping[TaskState, frozenset[TaskState]],
) -> dict[str, set[str]]:
    return {str(state): {str(target) for target in targets} for state, targets in moves.items()}


def _reachable(moves: Mapping[str, set[str]], start: str) -> set[str]:
    seen = {start}
    while new := set().union(*(moves[state] for state in seen)) - seen:
        seen |= new
    return seen


def test_jobs_move_as_the_design_says() -> None:
    assert _plain(JOB_MOVES) == _parse(JOB_TABLE)


def test_tasks_move_as_the_design_says() -> None:
    assert _plain(TASK_MOVES) == _parse(TASK_TABLE)


def test_every_state_has_a_row_of_moves() -> None:
    assert set(JOB_MOVES) == set(JobState)
    assert set(TASK_MOVES) == set(TaskState)


@pytest.mark.parametrize("start", ["queued", "waiting", "paused"])
def test_every_job_state_can_be_reached_from_each_state_in_which_a_job_starts_out(start: str) -> None:
    assert _reachable(_plain(JOB_MOVES), start) == set(JobState)


def test_every_task_state_can_be_reached_from_pending() -> None:
    assert _reachable(_plain(TASK_MOVES), "pending") == set(TaskState)


def test_moves_cannot_be_changed_by_mistake() -> None:
    with pytest.raises(TypeError):
        JOB_MOVES[JobState.CANCELED] = frozenset()  # type: ignore[index]


def test_failure_reasons_are_those_of_the_design() -> None:
    assert set(FailureReason) == set(REASONS.split())


@pytest.mark.parametrize("member", [*JobState, *TaskState, *FailureReason, *CancelReason, *JobOutcome], ids=repr)
def test_every_member_says_what_it_means(member: StrEnum) -> None:
    assert member.__doc__ != type(member).__doc__
    assert (member.__doc__ or "").endswith(".")


@pytest.mark.parametrize("member", [*JobState, *TaskState], ids=repr)
def test_every_state_says_who_moves_it_on(member: StrEnum) -> None:
    movers = ("tracker", "operator", "worker", "first task", "Celery")
    assert any(mover in (member.__doc__ or "") for mover in movers)


def test_a_state_is_found_by_its_value() -> None:
    assert JobState("under-construction") is JobState.UNDER_CONSTRUCTION
    assert TaskState("soft-failed") is TaskState.SOFT_FAILED


@pytest.mark.parametrize("old", JobState)
def test_a_job_may_make_the_listed_moves_and_no_other(old: JobState) -> None:
    allowed = _parse(JOB_TABLE)[old]
    for new in JobState:
        if new in allowed or new is old:
            check_job_move(old, new)
        else:
            with pytest.raises(IllegalMoveError):
                check_job_move(old, new)


@pytest.mark.parametrize("old", TaskState)
def test_a_task_may_make_the_listed_moves_and_no_other(old: TaskState) -> None:
    allowed = _parse(TASK_TABLE)[old]
    for new in TaskState:
        if new in allowed or new is old:
            check_task_move(old, new)
        else:
            with pytest.raises(IllegalMoveError):
                check_task_move(old, new)


def test_a_refused_job_move_is_named_with_the_sorted_list_of_allowed_ones() -> None:
    with pytest.raises(IllegalMoveError) as refused:
        check_job_move(JobState.COMPLETED, JobState.QUEUED)
    assert str(refused.value) == (
        "A job cannot move from completed to queued. From completed it may move to: active, requeueing."
    )


def test_a_refused_task_move_is_named_with_the_sorted_list_of_allowed_ones() -> None:
    with pytest.raises(IllegalMoveError) as refused:
        check_task_move(TaskState.PENDING, TaskState.ACTIVE)
    assert str(refused.value) == (
        "A task cannot move from pending to active. From pending it may move to: canceled, failed, ready, skipped."
    )


def test_an_ended_task_starts_again_only_after_a_reset() -> None:
    assert {str(state) for state in ENDED_TASK} == {"completed", "partial", "skipped", "failed", "canceled"}
    for state in ENDED_TASK:
        assert {TaskState.PENDING} == TASK_MOVES[state] - ENDED_TASK


def test_an_event_corrects_ends_that_events_have_told_and_never_a_success_to_what_is_none() -> None:
    assert set(TASK_CORRECTIONS) == ENDED_TASK
    assert all(TASK_CORRECTIONS[state] < WELL for state in WELL)
    for old, corrected in TASK_CORRECTIONS.items():
        for new in TaskState:
            if new in corrected:
                check_task_move(old, new, corrects=True)
                with pytest.raises(IllegalMoveError):
                    check_task_move(old, new)
            elif new is not old and new not in TASK_MOVES[old]:
                with pytest.raises(IllegalMoveError):
                    check_task_move(old, new, corrects=True)


def test_a_job_goes_on_whose_end_is_corrected() -> None:
    for old in (JobState.FAILED, JobState.CANCELED):
        check_job_move(old, JobState.ACTIVE, corrects=True)
        with pytest.raises(IllegalMoveError):
            check_job_move(old, JobState.ACTIVE)


def test_an_ended_job_starts_again_only_by_requeueing_or_if_completed_for_a_late_task() -> None:
    assert {str(state) for state in ENDED_JOB} == {"completed", "failed", "canceled"}
    onward = {state: JOB_MOVES[state] - ENDED_JOB for state in ENDED_JOB}
    assert onward == {
        JobState.COMPLETED: {JobState.REQUEUEING, JobState.ACTIVE},
        JobState.FAILED: {JobState.REQUEUEING},
        JobState.CANCELED: {JobState.REQUEUEING},
    }


def test_a_task_is_pending_or_open_or_ended() -> None:
    groups = ({TaskState.PENDING}, OPEN_TASK, ENDED_TASK)
    assert sorted(state for group in groups for state in group) == sorted(TaskState)
    assert WELL < ENDED_TASK
    assert {TaskState.FAILED, TaskState.CANCELED} == ENDED_TASK - WELL


@pytest.mark.parametrize("state", TaskState)
def test_success_is_known_once_a_task_ended_well_or_failed(state: TaskState) -> None:
    expected = {"completed": True, "partial": True, "skipped": True, "failed": False}
    assert success(state) is expected.get(state)
