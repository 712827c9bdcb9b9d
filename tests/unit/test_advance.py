"""How the end of tasks moves a plan on, and how the counts of its tasks move a job on."""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner.order_kinds import Intent
from jobrunner.plan import BlockKind, Place
from jobrunner.states import (
    ENDED_JOB,
    ENDED_TASK,
    JOB_MOVES,
    OPEN_TASK,
    WELL,
    FailureReason,
    JobState,
    TaskState,
    check_job_move,
)
from tests.builders import block, counts
from tracker.advance import Verdict, advance, judge

# ---- advance -------------------------------------------------------------------------------------------


def test_the_end_of_a_task_opens_the_next_place_of_its_chain() -> None:
    moved = advance([Place("root", 0)], {"root": block(size=3)})
    assert moved.opened == (Place("root", 1),)
    assert moved.changed["root"].remaining == 2


def test_the_last_task_of_the_root_opens_nothing() -> None:
    moved = advance([Place("root", 2)], {"root": block(size=3, remaining=1)})
    assert moved.opened == ()
    assert moved.changed["root"].remaining == 0


def test_a_group_opens_nothing_before_its_last_child_has_ended() -> None:
    blocks = {"root": block(size=2), "g": block("g", BlockKind.GROUP, size=2, inside=("root", 0))}
    moved = advance([Place("g", 1)], blocks)
    assert moved.opened == ()
    assert {id_: one.remaining for id_, one in moved.changed.items()} == {"g": 1}


def test_the_last_child_of_a_group_opens_what_follows_the_group() -> None:
    blocks = {"root": block(size=2), "g": block("g", BlockKind.GROUP, size=2, remaining=1, inside=("root", 0))}
    moved = advance([Place("g", 0)], blocks)
    assert moved.opened == (Place("root", 1),)
    assert {id_: one.remaining for id_, one in moved.changed.items()} == {"g": 0, "root": 1}


def test_tasks_that_end_in_one_turn_are_counted_together() -> None:
    blocks = {"root": block(size=2), "g": block("g", BlockKind.GROUP, size=3, inside=("root", 0))}
    moved = advance([Place("g", 2), Place("g", 0), Place("g", 1)], blocks)
    assert moved.opened == (Place("root", 1),)
    assert moved.changed["g"].remaining == 0


def test_an_end_goes_up_as_many_blocks_as_it_completes() -> None:
    blocks = {
        "root": block(size=2),
        "outer": block("outer", BlockKind.GROUP, size=1, inside=("root", 0)),
        "chain": block("chain", BlockKind.CHAIN, size=2, remaining=1, inside=("outer", 0)),
        "inner": block("inner", BlockKind.GROUP, size=1, inside=("chain", 1)),
    }
    moved = advance([Place("inner", 0)], {**blocks, "inner": block("inner", BlockKind.GROUP, inside=("chain", 1))})
    assert moved.opened == (Place("root", 1),)
    assert {id_: one.remaining for id_, one in moved.changed.items()} == {
        "inner": 0,
        "chain": 0,
        "outer": 0,
        "root": 1,
    }


def test_in_a_chain_that_has_ended_nothing_opens_in_whatever_order_its_tasks_are_told() -> None:
    blocks = {"root": block(size=2), "c": block("c", size=3, inside=("root", 0))}
    for order in ((0, 1, 2), (2, 1, 0)):
        moved = advance([Place("c", position) for position in order], blocks)
        assert (moved.opened, moved.resumed) == ((Place("root", 1),), ())


def test_only_blocks_whose_count_changed_are_told() -> None:
    blocks = {"root": block(size=2), "c": block("c", size=2, inside=("root", 0)), "other": block("other")}
    assert set(advance([Place("c", 0)], blocks).changed) == {"c"}


def test_the_blocks_that_were_given_stay_as_they_are() -> None:
    blocks = {"root": block(size=3)}
    advance([Place("root", 0)], blocks)
    assert blocks == {"root": block(size=3)}


def test_nothing_ended_nothing_moves() -> None:
    moved = advance([], {"root": block()})
    assert (dict(moved.changed), moved.opened) == ({}, ())


# ---- judge: by examples --------------------------------------------------------------------------------


@pytest.mark.parametrize("state", sorted(ENDED_JOB))
@pytest.mark.parametrize("tasks", [counts(), counts(failed=1), counts(active=1), counts(completed=1, canceled=1)])
def test_an_ended_job_stays_as_it_is(state: JobState, tasks: Mapping[TaskState, int]) -> None:
    assert judge(state, tasks) == Verdict(state=state)


@pytest.mark.parametrize(
    "tasks",
    [counts(ready=1), counts(queued=2, pending=3), counts(pending=1, ready=1, queued=1), counts(pending=4)],
)
def test_a_job_of_which_nothing_has_started_stays_queued(tasks: Mapping[TaskState, int]) -> None:
    assert judge(JobState.QUEUED, tasks) == Verdict(state=JobState.QUEUED)


@pytest.mark.parametrize(
    "tasks",
    [
        counts(active=1),
        counts(soft_failed=1),
        counts(queued=1, active=1),
        counts(ready=1, completed=1),
        counts(queued=1, failed=1),
        counts(ready=1, skipped=1, pending=2),
    ],
)
def test_a_job_of_which_something_has_started_and_something_can_still_run_is_active(
    tasks: Mapping[TaskState, int],
) -> None:
    assert judge(JobState.QUEUED, tasks) == Verdict(state=JobState.ACTIVE)
    assert judge(JobState.ACTIVE, tasks) == Verdict(state=JobState.ACTIVE)


@pytest.mark.parametrize("tasks", [counts(), counts(pending=2), counts(pending=1, canceled=1), counts(failed=1)])
def test_a_job_waits_for_others_whatever_has_become_of_its_tasks(tasks: Mapping[TaskState, int]) -> None:
    assert judge(JobState.WAITING, tasks, unmet=1) == Verdict(state=JobState.WAITING)
    assert judge(JobState.WAITING, tasks, unmet=1, intent=Intent.PAUSE) == Verdict(state=JobState.PAUSED)
    assert judge(JobState.PAUSED, tasks, unmet=1) == Verdict(state=JobState.WAITING)
    assert judge(JobState.FAILED, tasks, unmet=1) == Verdict(state=JobState.FAILED)


def test_an_active_job_does_not_go_back_when_its_tasks_wait_to_be_sent_again() -> None:
    assert judge(JobState.ACTIVE, counts(ready=1, pending=1)) == Verdict(state=JobState.ACTIVE)


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.ACTIVE])
@pytest.mark.parametrize("tasks", [counts(completed=2), counts(completed=1, skipped=1), counts(skipped=1), counts()])
def test_a_job_whose_tasks_all_ended_well_is_completed(state: JobState, tasks: Mapping[TaskState, int]) -> None:
    assert judge(state, tasks) == Verdict(state=JobState.COMPLETED)


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.ACTIVE])
@pytest.mark.parametrize(
    "tasks",
    [counts(failed=1), counts(failed=1, completed=3), counts(failed=1, pending=2), counts(failed=1, canceled=1)],
)
def test_a_job_of_which_a_task_failed_and_nothing_can_run_has_failed(
    state: JobState, tasks: Mapping[TaskState, int]
) -> None:
    assert judge(state, tasks) == Verdict(state=JobState.FAILED, reason=FailureReason.TASK)


@pytest.mark.parametrize("open_state", sorted(OPEN_TASK))
def test_branches_that_do_not_depend_on_a_failure_go_on(open_state: TaskState) -> None:
    tasks = {**counts(failed=1, pending=1), open_state: 1}
    assert judge(JobState.ACTIVE, tasks) == Verdict(state=JobState.ACTIVE)


@pytest.mark.parametrize("tasks", [counts(canceled=1), counts(canceled=1, pending=2), counts(canceled=1, completed=1)])
def test_a_job_whose_last_runnable_task_was_canceled_is_canceled_by_way_of_active(
    tasks: Mapping[TaskState, int],
) -> None:
    assert judge(JobState.QUEUED, tasks) == Verdict(state=JobState.ACTIVE)
    assert judge(JobState.ACTIVE, tasks) == Verdict(state=JobState.CANCELED)


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.ACTIVE])
def test_a_job_that_waits_for_its_plan_to_open_stays_as_it_is(state: JobState) -> None:
    assert judge(state, counts(pending=2)) == Verdict(state=state)
    assert judge(state, counts(pending=2, completed=1)) == Verdict(state=state)


@pytest.mark.parametrize(
    "discovery", [counts(active=1), counts(soft_failed=1, completed=1), counts(active=1, queued=1)]
)
def test_a_job_of_which_only_discovery_has_started_is_under_construction(discovery: Mapping[TaskState, int]) -> None:
    done = discovery[TaskState.COMPLETED]
    verdict = judge(JobState.QUEUED, {**discovery, TaskState.PENDING: 5}, discovering=1, discovered=done)
    assert verdict == Verdict(state=JobState.UNDER_CONSTRUCTION)


def test_a_job_is_queued_once_discovery_has_ended_and_active_once_something_else_has_started() -> None:
    found = counts(completed=1, ready=3)
    assert judge(JobState.UNDER_CONSTRUCTION, found, discovered=1) == Verdict(state=JobState.QUEUED)
    found = counts(completed=1, active=1, queued=2)
    for state in (JobState.UNDER_CONSTRUCTION, JobState.QUEUED):
        assert judge(state, found, discovered=1) == Verdict(state=JobState.ACTIVE)


def test_a_job_that_is_active_does_not_go_back_under_construction() -> None:
    assert judge(JobState.ACTIVE, counts(active=1, pending=1), discovering=1) == Verdict(state=JobState.ACTIVE)


# ---- judge: all there is -------------------------------------------------------------------------------


def _every_mix() -> Iterator[Mapping[TaskState, int]]:
    """Tasks in none, one or several of the states: judge only asks which of the counts are zero."""
    for present in product((0, 1), repeat=len(TaskState)):
        yield dict(zip(TaskState, present, strict=True))


def _every_verdict(state: JobState) -> Iterator[Verdict]:
    """What judge says of a job in this state, whichever of its tasks discover work."""
    for tasks in _every_mix():
        at_it = sum(tasks[one] for one in (TaskState.ACTIVE, TaskState.SOFT_FAILED))
        tried = sum(tasks[one] for one in (*WELL, TaskState.FAILED))
        for discovering, discovered in product({0, at_it}, {0, tried}):
            yield judge(state, tasks, discovering=discovering, discovered=discovered)


def _reachable() -> frozenset[JobState]:
    """The states that a new job, which is queued, is led to by judge alone."""
    seen: frozenset[JobState] = frozenset()
    found = frozenset({JobState.QUEUED})
    while found != seen:
        seen = found
        found |= {verdict.state for state in seen for verdict in _every_verdict(state)}
    return found


def test_judge_leads_a_new_job_to_these_states() -> None:
    assert _reachable() == {JobState.QUEUED, JobState.UNDER_CONSTRUCTION, JobState.ACTIVE} | ENDED_JOB


def test_every_verdict_is_a_legal_move_from_every_state_that_can_be_reached() -> None:
    moves = {(state, verdict.state) for state in _reachable() for verdict in _every_verdict(state)}
    assert {(old, new) for old, new in moves if old is not new and new not in JOB_MOVES[old]} == set()


def test_judge_asked_again_and_again_comes_to_rest() -> None:
    for start, tasks in product(_reachable(), _every_mix()):
        passed, state = [start], judge(start, tasks).state
        while state is not passed[-1]:
            assert state not in passed
            passed.append(state)
            state = judge(state, tasks).state


@pytest.mark.parametrize("tasks", [counts(partial=1, completed=2), counts(partial=1, canceled=1, pending=1)])
def test_a_partial_task_fails_its_job_in_the_end_unless_that_is_tolerated(tasks: Mapping[TaskState, int]) -> None:
    assert judge(JobState.ACTIVE, tasks) == Verdict(state=JobState.FAILED, reason=FailureReason.PARTIAL)
    ends = JobState.CANCELED if tasks[TaskState.CANCELED] else JobState.COMPLETED
    assert judge(JobState.ACTIVE, tasks, tolerates=True) == Verdict(state=ends)
    assert judge(JobState.ACTIVE, {**tasks, TaskState.READY: 1}) == Verdict(state=JobState.ACTIVE)


@pytest.mark.parametrize("tolerates", [False, True])
def test_beside_a_partial_task_a_failed_one_is_the_reason(tolerates: bool) -> None:
    verdict = judge(JobState.ACTIVE, counts(partial=2, failed=1), tolerates=tolerates)
    assert verdict == Verdict(state=JobState.FAILED, reason=FailureReason.TASK)


def test_only_a_failure_has_a_reason() -> None:
    for state, tasks in product(_reachable() - ENDED_JOB, _every_mix()):
        verdict = judge(state, tasks)
        assert (verdict.reason is not None) == (verdict.state is JobState.FAILED)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(TaskState), max_size=20),
    st.sampled_from([JobState.QUEUED, JobState.ACTIVE]),
    st.booleans(),
)
def test_an_ended_job_has_no_task_that_can_run_and_a_completed_one_only_tasks_that_ended_well(
    tasks: list[TaskState], state: JobState, tolerates: bool
) -> None:
    while (verdict := judge(state, Counter(tasks), tolerates=tolerates)).state is not state:
        state = verdict.state
    assert (state in ENDED_JOB) <= (not OPEN_TASK & set(tasks))
    assert (state is JobState.COMPLETED) == (set(tasks) <= WELL - (set() if tolerates else {TaskState.PARTIAL}))
    assert (state is JobState.FAILED) <= bool({TaskState.FAILED, TaskState.PARTIAL} & set(tasks))
    assert (state is JobState.CANCELED) <= (TaskState.CANCELED in tasks)
    assert (set(tasks) <= ENDED_TASK) <= (state in ENDED_JOB)


# ---- judge: what is only observed ----------------------------------------------------------------------


def _rest(state: JobState, tasks: Mapping[TaskState, int]) -> JobState:
    """Return where an observed job comes to rest, by legal moves."""
    while (found := judge(state, tasks, observed=True).state) is not state:
        check_job_move(state, found, corrects=True)
        state = found
    return state


@pytest.mark.parametrize("state", sorted(ENDED_JOB))
def test_an_observed_job_that_had_ended_is_where_its_tasks_say_all_the_same(state: JobState) -> None:
    for tasks in _every_mix():
        assert _rest(state, tasks) is _rest(JobState.ACTIVE, tasks)


def test_an_observed_job_is_judged_as_any_other_as_long_as_it_has_not_ended() -> None:
    for state, tasks in product((JobState.QUEUED, JobState.ACTIVE), _every_mix()):
        assert judge(state, tasks, observed=True) == judge(state, tasks)
