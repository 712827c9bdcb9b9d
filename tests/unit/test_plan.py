"""From a canvas to a plan: what each kind of canvas becomes, what is refused, and what is left alone."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from celery import chain, chord, group
from celery.canvas import Signature, _chain, _chord
from celery.result import AsyncResult, GroupResult

from jobrunner.errors import InvalidCanvasError
from jobrunner.plan import Block, BlockKind, Leaf, Place, Plan, Source
from tests import builders
from tests.builders import app, labels, leaf, paths, plan_of, work


def _block(plan: Plan, id_: str) -> Block:
    (found,) = [one for one in plan.blocks if one.id == id_]
    return found


def _groups(plan: Plan) -> list[Block]:
    return [one for one in plan.blocks if one.kind is BlockKind.GROUP]


def _outer_group(plan: Plan) -> Block:
    (found,) = [one for one in _groups(plan) if one.place is not None and one.place.block == plan.job_id]
    return found


def _value_of(one: Leaf) -> Source:
    return Source(task=one.id)


# ---- shapes --------------------------------------------------------------------------------------------


def test_a_single_task_is_a_chain_of_one() -> None:
    plan = plan_of(leaf("a"))
    assert plan.blocks == [Block(id=plan.job_id, kind=BlockKind.CHAIN, place=None, size=1, yields=None)]
    (a,) = plan.leaves
    assert (a.place, a.opens) == (Place(plan.job_id, 0), Place(plan.job_id, 0))
    assert (a.takes, a.yields, a.sequence, a.path) == (None, None, 0, "canvas")
    assert plan.value == _value_of(a)


def test_the_job_has_the_first_new_id() -> None:
    assert plan_of(leaf()).job_id == "id0"


def test_the_root_is_the_only_block_without_a_place() -> None:
    plan = plan_of(chain(leaf("a"), group(leaf("b"), leaf("c"))))
    assert [one.id for one in plan.blocks if one.place is None] == [plan.job_id]


def test_all_ids_of_a_plan_differ() -> None:
    plan = plan_of(chord([leaf("a"), chain(leaf("b"), group(leaf("c"), leaf("d")))], leaf("e")))
    ids = [one.id for one in (*plan.leaves, *plan.blocks)]
    assert len(set(ids)) == len(ids) == 5 + 5  # root, chord, header, chain and its group


def test_leaves_come_in_order_of_arrival() -> None:
    plan = plan_of(chain(leaf("a"), group(chain(leaf("b"), leaf("c")), leaf("d")), leaf("e")))
    assert list(labels(plan)) == ["a", "b", "c", "d", "e"]


def test_a_leaf_keeps_its_signature() -> None:
    signature = leaf("a", queue="slow", priority=3)
    (a,) = plan_of(signature).leaves
    assert (a.task, a.args, a.options) == (signature.task, signature.args, signature.options)


def test_a_leaf_keeps_the_id_that_it_was_given() -> None:
    assert plan_of(group(leaf("a", task_id="mine"), leaf("b"))).leaves[0].id == "mine"


def test_one_signature_used_twice_becomes_two_tasks() -> None:
    twice = leaf("a")
    first, second = plan_of(group(twice, twice)).leaves
    assert first.id != second.id


def test_a_chain_runs_one_after_another_and_hands_on_each_value() -> None:
    plan = plan_of(_chain(leaf("a"), leaf("b"), leaf("c")))
    a, b, c = plan.leaves
    inner = a.place.block
    assert _block(plan, inner).size == 3
    assert [one.place for one in (a, b, c)] == [Place(inner, 0), Place(inner, 1), Place(inner, 2)]
    assert [one.takes for one in (a, b, c)] == [None, _value_of(a), _value_of(b)]
    assert plan.value == _value_of(c)


def test_a_group_runs_side_by_side_and_its_value_is_a_list() -> None:
    plan = plan_of(group(leaf("a"), leaf("b")))
    (block,) = _groups(plan)
    assert (block.size, block.place) == (2, Place(plan.job_id, 0))
    assert [one.place for one in plan.leaves] == [Place(block.id, 0), Place(block.id, 1)]
    assert [one.yields for one in plan.leaves] == [Place(block.id, 0), Place(block.id, 1)]
    assert plan.value == Source(group=block.id)


def test_each_task_of_a_group_takes_what_the_group_takes() -> None:
    found = labels(plan_of(chain(leaf("a"), group(leaf("b"), leaf("c")))))
    assert found["b"].takes == found["c"].takes == _value_of(found["a"])


def test_a_group_of_one_yields_a_list() -> None:
    plan = plan_of(group([leaf("a")]))
    (block,) = _groups(plan)
    assert plan.value == Source(group=block.id)
    assert plan.leaves[0].yields == Place(block.id, 0)


def test_an_empty_group_yields_an_empty_list() -> None:
    plan = plan_of(group([]))
    (block,) = _groups(plan)
    assert plan.leaves == []
    assert (block.size, plan.value) == (0, Source(group=block.id))
    assert _block(plan, plan.job_id).size == 0


def test_a_group_of_empty_groups_yields_empty_lists() -> None:
    plan = plan_of(group([group([]), group([])]))
    outer = _outer_group(plan)
    assert sorted(one.yields.position for one in _groups(plan) if one.yields is not None) == [0, 1]
    assert (outer.size, plan.value) == (0, Source(group=outer.id))


def test_a_block_without_tasks_is_not_counted_and_does_not_hold_up_what_comes_next() -> None:
    plan = plan_of(_chain(leaf("a"), group([group([]), group([])]), leaf("b")))
    a, b = plan.leaves
    outer = next(one for one in _groups(plan) if one.yields is None)
    assert (_block(plan, a.place.block).size, b.place.position) == (2, 1)
    assert b.takes == Source(group=outer.id)


def test_a_task_behind_leading_empty_groups_starts_at_once() -> None:
    plan = plan_of(chord([], leaf("a")))
    (a,) = plan.leaves
    assert (a.opens, a.place.position, a.sequence) == (Place(plan.job_id, 0), 0, 0)
    assert a.takes == Source(group=_groups(plan)[0].id)


def test_an_empty_group_in_a_chain_is_left_out_as_in_celery() -> None:
    plan = plan_of(_chain(leaf("a"), group([]), leaf("b")))
    a, b = plan.leaves
    assert (_groups(plan), b.takes) == ([], _value_of(a))


def test_a_chain_of_empty_groups_alone_yields_an_empty_list() -> None:
    plan = plan_of(_chain(group([]), group([])))
    assert (plan.leaves, plan.value) == ([], Source(group=_groups(plan)[0].id))


def test_a_group_of_one_in_a_chain_is_its_task_as_in_celery() -> None:
    plan = plan_of(_chain(leaf("a"), group([leaf("b")]), leaf("c")))
    found = labels(plan)
    assert (_groups(plan), found["c"].takes) == ([], _value_of(found["b"]))
    assert found["b"].path == "canvas.tasks[1].tasks[0]"


def test_an_empty_group_among_others_keeps_its_place_in_the_list() -> None:
    plan = plan_of(group([leaf("a"), group([]), leaf("b")]))
    outer = _outer_group(plan)
    (empty,) = [one for one in _groups(plan) if one is not outer]
    assert empty.yields == Place(outer.id, 1)
    assert [one.yields for one in plan.leaves] == [Place(outer.id, 0), Place(outer.id, 2)]
    assert [one.place for one in plan.leaves] == [Place(outer.id, 0), Place(outer.id, 1)]
    assert outer.size == 2


def test_a_chord_is_a_chain_of_its_header_and_its_body() -> None:
    plan = plan_of(chord([leaf("a"), leaf("b")], leaf("c")))
    header, found = _groups(plan)[0], labels(plan)
    assert header.place is not None
    outer = _block(plan, header.place.block)
    assert (outer.kind, outer.size) == (BlockKind.CHAIN, 2)
    assert (header.place.position, found["c"].place) == (0, Place(outer.id, 1))
    assert (found["c"].takes, plan.value) == (Source(group=header.id), _value_of(found["c"]))


def test_a_chord_and_the_chain_that_it_stands_for_have_the_same_plan() -> None:
    as_chord = plan_of(_chord([leaf("a"), leaf("b")], leaf("c")))
    as_chain = plan_of(_chain(group(leaf("a"), leaf("b")), leaf("c")))
    assert as_chord.blocks == as_chain.blocks
    assert as_chord.value == as_chain.value
    for one, other in zip(as_chord.leaves, as_chain.leaves, strict=True):
        assert (one.id, one.place, one.opens) == (other.id, other.place, other.opens)
        assert (one.takes, one.yields, one.sequence) == (other.takes, other.yields, other.sequence)


def test_a_chord_of_one_passes_a_list_to_its_body() -> None:
    plan = plan_of(chord([leaf("a")], leaf("b")))
    assert labels(plan)["b"].takes == Source(group=_groups(plan)[0].id)


def test_the_body_of_a_chord_may_be_a_group() -> None:
    plan = plan_of(chain(group(leaf("a"), leaf("b")), group(leaf("c"), leaf("d"))))
    found = labels(plan)
    header, body = found["a"].place.block, found["c"].place.block
    assert found["c"].takes == found["d"].takes == Source(group=header)
    assert plan.value == Source(group=body)


def test_nested_groups_stay_nested() -> None:
    plan = plan_of(group([leaf("a"), group([leaf("b"), leaf("c")])]))
    outer = _outer_group(plan)
    (inner,) = [one for one in _groups(plan) if one is not outer]
    assert (inner.place, inner.yields) == (Place(outer.id, 1), Place(outer.id, 1))
    assert [one.yields for one in plan.leaves] == [Place(outer.id, 0), Place(inner.id, 0), Place(inner.id, 1)]


def test_pipes_make_the_same_plan_as_chains() -> None:
    piped = plan_of(leaf("a") | group(leaf("b"), leaf("c")) | leaf("d"))
    chained = plan_of(chain(leaf("a"), group(leaf("b"), leaf("c")), leaf("d")))
    assert (piped.blocks, piped.value, paths(piped.leaves)) == (chained.blocks, chained.value, paths(chained.leaves))


# ---- opens, yields, takes, levels ----------------------------------------------------------------------


def test_a_task_opens_with_the_nearest_place_that_has_to_open() -> None:
    # The example of the module's docstring.
    found = labels(plan_of(chain(leaf("a"), group(chain(leaf("b"), leaf("c")), leaf("d")), leaf("e"))))
    outer = found["a"].place.block
    assert found["b"].opens == found["d"].opens == Place(outer, 1)
    assert found["c"].opens == Place(found["c"].place.block, 1) == found["c"].place
    assert found["e"].opens.position == 1  # Celery makes a chord of the group and what follows


def test_only_the_last_task_of_a_chain_fills_the_place_in_the_list() -> None:
    plan = plan_of(group(chain(leaf("a"), leaf("b")), leaf("c")))
    found, (block,) = labels(plan), _groups(plan)
    assert found["a"].yields is None
    assert (found["b"].yields, found["c"].yields) == (Place(block.id, 0), Place(block.id, 1))


def test_a_group_that_ends_a_chain_fills_the_place_of_the_chain() -> None:
    plan = plan_of(group([_chain(leaf("a"), group(leaf("b"), leaf("c"))), leaf("d")]))
    outer = _outer_group(plan)
    (inner,) = [one for one in _groups(plan) if one is not outer]
    assert inner.yields == Place(outer.id, 0)


def test_an_immutable_task_takes_nothing() -> None:
    found = labels(plan_of(chain(leaf("a"), leaf("b", immutable=True), leaf("c"))))
    assert found["b"].takes is None
    assert found["c"].takes == _value_of(found["b"])


def test_an_immutable_body_takes_nothing_but_still_waits_for_its_header() -> None:
    found = labels(plan_of(chord([leaf("a"), leaf("b")], leaf("c", immutable=True))))
    assert (found["c"].takes, found["c"].opens, found["c"].sequence) == (None, found["c"].place, 1)


def test_setting_a_group_immutable_makes_each_task_of_it_take_nothing() -> None:
    found = labels(plan_of(chain(leaf("a"), group(leaf("b"), leaf("c")).set(immutable=True))))
    assert found["b"].takes is found["c"].takes is None


def test_the_flag_of_a_whole_chain_is_lost_as_in_celery() -> None:
    inner = _chain(leaf("b"), leaf("c")).set(immutable=True)
    found = labels(plan_of(_chain(leaf("a"), group([inner, leaf("d")]))))
    assert found["b"].takes == found["d"].takes == _value_of(found["a"])


def test_the_header_of_an_immutable_chord_takes_nothing_and_its_body_the_values_of_the_header() -> None:
    inner = _chord([leaf("b"), leaf("c")], leaf("d"))
    inner.immutable = True
    found = labels(plan_of(_chain(leaf("a"), inner)))
    assert (found["b"].takes, found["c"].takes) == (None, None)
    assert found["d"].takes == Source(group=found["b"].place.block)


def test_levels_count_the_longest_way_to_a_task() -> None:
    found = labels(plan_of(chain(leaf("a"), group(chain(leaf("b"), leaf("c")), leaf("d")), leaf("e"))))
    assert {label: one.sequence for label, one in found.items()} == {"a": 0, "b": 1, "c": 2, "d": 1, "e": 3}


def test_an_empty_group_takes_up_no_level() -> None:
    canvas = _chain(leaf("a"), group([group([]), group([])]), leaf("b"))
    assert [one.sequence for one in plan_of(canvas).leaves] == [0, 1]


def test_paths_lead_to_each_task() -> None:
    canvas = _chain(leaf("a"), _chord([leaf("b"), group([leaf("c")])], leaf("d")))
    assert paths(plan_of(canvas).leaves) == [
        "canvas.tasks[0]",
        "canvas.tasks[1].tasks[0]",
        "canvas.tasks[1].tasks[1].tasks[0]",
        "canvas.tasks[1].body",
    ]


# ---- map, chunks, generators, dicts --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["map", "starmap"])
def test_a_map_is_one_task(kind: str) -> None:
    (only,) = plan_of(getattr(work(), kind)([(1,), (2,)])).leaves
    assert (only.task, only.path) == (f"celery.{kind}", "canvas")


def test_chunks_are_a_group_of_starmaps() -> None:
    plan = plan_of(work().chunks([(1,), (2,), (3,)], 2))
    assert [one.task for one in plan.leaves] == ["celery.starmap", "celery.starmap"]
    assert [len(one.kwargs["it"]) for one in plan.leaves] == [2, 1]
    assert paths(plan.leaves) == ["canvas.tasks[0]", "canvas.tasks[1]"]
    assert plan.value == Source(group=_groups(plan)[0].id)


def test_chunks_take_nothing() -> None:
    plan = plan_of(_chain(leaf("a"), work().chunks([(1,), (2,)], 1)))
    assert [one.takes for one in plan.leaves] == [None, None, None]


@pytest.mark.parametrize(
    "canvas",
    [
        pytest.param(lambda: chain(work().chunks([(1,), (2,), (3,)], 2), leaf("z")), id="chain"),
        pytest.param(lambda: chord(work().chunks([(1,), (2,), (3,)], 2), leaf("z")), id="chord"),
        pytest.param(lambda: json.loads(json.dumps(work().chunks([(1,), (2,), (3,)], 2))), id="json"),
    ],
)
def test_chunks_that_celery_copied_are_still_a_group_of_starmaps(canvas: Callable[[], Signature]) -> None:
    # Copies are plain signatures of `celery.chunks`, which would send its subtasks behind the job's back.
    names = [one.task for one in plan_of(canvas()).leaves]
    assert [name for name in names if name != "work"] == ["celery.starmap", "celery.starmap"]


@pytest.mark.parametrize(
    "canvas",
    [
        pytest.param(lambda: group(leaf(label) for label in "abc"), id="group"),
        pytest.param(lambda: chain(leaf(label) for label in "abc"), id="chain"),
        pytest.param(lambda: chord((leaf(label) for label in "ab"), leaf("c")), id="chord"),
    ],
)
def test_a_generator_of_tasks_is_walked_and_can_be_walked_again(canvas: Callable[[], Signature]) -> None:
    made = canvas()
    assert list(labels(plan_of(made))) == list(labels(plan_of(made))) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "canvas",
    [
        pytest.param(lambda: leaf("a"), id="task"),
        pytest.param(lambda: _chain(leaf("a"), leaf("b", immutable=True)), id="chain"),
        pytest.param(lambda: group(leaf("a"), group([leaf("b")])), id="group"),
        pytest.param(lambda: chord([leaf("a"), chain(leaf("b"), leaf("c"))], leaf("d")), id="chord"),
    ],
)
def test_a_canvas_that_went_through_json_has_the_same_plan(canvas: Callable[[], Signature]) -> None:
    plan, told = plan_of(canvas()), plan_of(json.loads(json.dumps(canvas())))
    assert (told.blocks, told.value) == (plan.blocks, plan.value)
    for one, other in zip(told.leaves, plan.leaves, strict=True):
        assert (one.path, one.place, one.opens, one.takes) == (other.path, other.place, other.opens, other.takes)
        assert (one.task, list(one.args)) == (other.task, list(other.args))


# ---- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("canvas", "said"),
    [
        pytest.param(work(), "the task work is no canvas yet. Pass a signature of it, such as work.s(…).", id="task"),
        pytest.param(len, "builtin_function_or_method is no canvas", id="function"),
        pytest.param(AsyncResult("x", app=app()), "this is a result", id="result"),
        pytest.param(GroupResult("x", [], app=app()), "this is a result", id="group result"),
        pytest.param(5, "int is no canvas", id="int"),
        pytest.param(None, "NoneType is no canvas", id="none"),
        pytest.param("work", "str is no canvas", id="name"),
        pytest.param([leaf("a")], "list is no canvas", id="list"),
        pytest.param({"name": "work"}, "dict is no canvas", id="dict without a task"),
        pytest.param((leaf(one) for one in "ab"), "generator is no canvas", id="generator"),
    ],
)
def test_what_is_no_canvas_is_refused(canvas: object, said: str) -> None:
    with pytest.raises(InvalidCanvasError, match=r"^canvas: ") as refused:
        plan_of(canvas)
    assert said in str(refused.value)
    assert refused.value.path == "canvas"
    assert refused.value.remedy


@pytest.mark.parametrize(
    "canvas",
    [
        pytest.param({"task": "work", "subtask_type": "unheard of"}, id="unknown type"),
        pytest.param({"task": "celery.chord", "subtask_type": "chord"}, id="chord without anything"),
    ],
)
def test_a_dict_that_celery_cannot_read_is_refused_not_crashed_on(canvas: dict[str, Any]) -> None:
    with pytest.raises(InvalidCanvasError, match=r"^canvas: "):
        plan_of(canvas)


def test_a_dict_that_only_names_its_task_is_a_task_without_arguments() -> None:
    (only,) = plan_of({"task": "work"}).leaves
    assert (only.task, only.takes) == ("work", None)


def test_what_is_no_canvas_inside_a_canvas_is_refused_with_the_path_to_it() -> None:
    canvas = _chain(leaf("a"), group([leaf("b"), leaf("c")]))
    canvas.tasks[1].tasks[1] = 5
    with pytest.raises(InvalidCanvasError, match="int is no canvas") as refused:
        plan_of(canvas)
    assert refused.value.path == "canvas.tasks[1].tasks[1]"


def test_partial_arguments_of_a_task_are_its_own_business() -> None:
    (only,) = plan_of(work().s("a", 1)).leaves
    assert only.args == ("a", 1)


def test_a_chord_without_a_body_is_refused() -> None:
    with pytest.raises(InvalidCanvasError, match="a chord without a body") as refused:
        plan_of(group([leaf("a"), _chord([leaf("b")])]))
    assert refused.value.path == "canvas.tasks[1]"


def test_a_chain_without_tasks_is_refused() -> None:
    with pytest.raises(InvalidCanvasError, match="a chain without tasks has no value") as refused:
        plan_of(group([leaf("a"), _chain()]))
    assert refused.value.path == "canvas.tasks[1]"


def test_a_chain_of_two_thousand_tasks_has_a_plan() -> None:
    plan = plan_of(chain(leaf(str(number)) for number in range(2_000)))
    assert [one.sequence for one in plan.leaves] == list(range(2_000))
    assert plan.leaves[1_999].takes == _value_of(plan.leaves[1_998])


@pytest.mark.parametrize(
    ("around", "levels"),
    [
        pytest.param(lambda inner: group([inner, leaf("b")]), 1, id="groups"),
        pytest.param(lambda inner: _chain(leaf("b"), group([inner, leaf("c")])), 51, id="chains and groups"),
        pytest.param(lambda inner: _chord([inner, leaf("b")], leaf("c")), 51, id="chords in headers"),
        pytest.param(lambda inner: _chord([leaf("b"), leaf("c")], inner), 51, id="chords in bodies"),
    ],
)
def test_a_canvas_of_fifty_levels_has_a_plan(around: Callable[[Signature], Signature], levels: int) -> None:
    canvas = leaf("a")
    for _ in range(50):
        canvas = around(canvas)
    assert max(one.sequence for one in plan_of(canvas).leaves) == levels - 1


def test_a_pipe_of_groups_and_tasks_by_turns_has_a_plan() -> None:
    steps = [step for number in range(20) for step in (group(leaf("a"), leaf("b")), leaf(str(number)))]
    plan = plan_of(chain(steps))
    assert (len(plan.leaves), plan.leaves[-1].sequence) == (60, 39)


def test_a_canvas_nested_too_deeply_is_refused_not_crashed_on() -> None:
    canvas = leaf("a")
    for _ in range(2_000):
        canvas = group([canvas, leaf("b")])
    with pytest.raises(InvalidCanvasError, match="nested too deeply"):
        plan_of(canvas)


def test_a_canvas_that_holds_itself_is_refused_not_walked_for_ever() -> None:
    canvas = group([leaf("a")])
    canvas.tasks.append(canvas)
    with pytest.raises(InvalidCanvasError, match="nested too deeply"):
        plan_of(canvas)


# ---- the canvas is left alone --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "canvas",
    [
        pytest.param(lambda: leaf("a"), id="task"),
        pytest.param(lambda: chain(leaf("a"), group(leaf("b"), leaf("c")), leaf("d")), id="chain"),
        pytest.param(lambda: group(leaf("a"), group([chain(leaf("b"), leaf("c"))])), id="group"),
        pytest.param(lambda: chord([leaf("a"), leaf("b")], chain(leaf("c"), leaf("d"))), id="chord"),
        pytest.param(lambda: work().chunks([(1,), (2,)], 1), id="chunks"),
    ],
)
def test_walking_a_canvas_does_not_change_it(canvas: Callable[[], Signature]) -> None:
    walked = canvas()
    before = copy.deepcopy(json.loads(json.dumps(walked)))
    plan_of(walked)
    assert json.loads(json.dumps(walked)) == before
    assert "task_id" not in json.dumps(before)


@pytest.mark.parametrize("canvas", [lambda: leaf("a"), lambda: group(leaf("a"), leaf("b"))])
def test_a_canvas_that_was_frozen_has_a_plan_all_the_same(canvas: Callable[[], Signature]) -> None:
    frozen = canvas()
    frozen.freeze()
    plan = plan_of(frozen)
    assert [one.id for one in plan.leaves] == [one.options["task_id"] for one in plan.leaves]


def test_new_ids_come_from_the_caller() -> None:
    ids = iter(["job", "inner", "first", "second"])
    plan = builders.plan.from_canvas(_chain(leaf("a"), leaf("b")), new_id=lambda: next(ids))
    assert (plan.job_id, [one.id for one in plan.leaves]) == ("job", ["first", "second"])
    assert {one.id for one in plan.blocks} == {"job", "inner"}
