"""With a barrier any canvas, run by `advance` alone, runs level by level, and yields what it yields without one."""

from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner.barrier import level_block, with_barrier
from jobrunner.plan import BlockKind, Leaf
from tests.builders import plan_of
from tests.property.test_plan_runs import Run, Spec, _canvas, _value, specs


def held(spec: Spec) -> Run:
    return Run(with_barrier(plan_of(_canvas(spec))))


def levels(run: Run) -> list[list[Leaf]]:
    """All tasks of a run by sequence."""
    last = max((one.sequence for one in run.plan.leaves), default=-1)
    return [[one for one in run.plan.leaves if one.sequence == level] for level in range(last + 1)]


@settings(max_examples=60, deadline=None)
@given(spec=specs, random=st.randoms())
def test_no_task_starts_before_all_of_a_lower_sequence_have_completed_whatever_the_order_of_endings(
    spec: Spec, random: Random
) -> None:
    run = held(spec)
    for level in levels(run):
        left = {one.id for one in level}
        assert left
        while left:
            assert {one.id for one in run.ready} == left
            ending = random.sample(run.ready, random.randint(1, len(run.ready)))
            left -= {one.id for one in ending}
            run.end(ending)
    assert run.ready == []
    assert {one.remaining for one in run.blocks.values()} == {0}


@settings(max_examples=60, deadline=None)
@given(spec=specs, random=st.randoms())
def test_a_failed_task_keeps_all_of_a_higher_sequence_from_running(spec: Spec, random: Random) -> None:
    run = held(spec)
    failing = {one.id for one in run.plan.leaves if random.random() < 0.1}
    while well := [one for one in run.ready if one.id not in failing]:
        run.end(random.sample(well, random.randint(1, len(well))))
    last = min((one.sequence for one in run.plan.leaves if one.id in failing), default=len(levels(run)))
    assert {one.id for one in run.opened} == {one.id for one in run.plan.leaves if one.sequence <= last}


@settings(max_examples=60, deadline=None)
@given(spec=specs, random=st.randoms())
def test_the_value_is_that_of_the_canvas_without_a_barrier(spec: Spec, random: Random) -> None:
    assert held(spec).to_the_end(random) == _value(spec)


@settings(max_examples=60, deadline=None)
@given(spec=specs)
def test_a_barrier_changes_when_tasks_start_and_nothing_else(spec: Spec) -> None:
    before = plan_of(_canvas(spec))
    after = with_barrier(before)
    assert (after.job_id, after.value) == (before.job_id, before.value)
    pairs = zip(before.leaves, after.leaves, strict=True)
    assert [replace(new, place=old.place, opens=old.opens) for old, new in pairs] == list(before.leaves)
    assert {one.id: one.yields for one in after.blocks if one.yields} == {
        one.id: one.yields for one in before.blocks if one.yields
    }


@settings(max_examples=60, deadline=None)
@given(spec=specs)
def test_each_level_is_a_group_with_an_id_of_its_own_that_can_be_told_in_advance(spec: Spec) -> None:
    run = held(spec)
    for number, level in enumerate(levels(run)):
        block = run.blocks[level_block(run.plan.job_id, number)]
        assert (block.kind, block.size, block.position) == (BlockKind.GROUP, len(level), number)
        assert {one.place.block for one in level} == {block.id}
        assert [one.place.position for one in level] == list(range(len(level)))
    assert run.blocks[run.plan.job_id].size == len(levels(run))
