"""What a whole canvas has of its own, and which of its tasks get it: as Celery has it, or refused."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from celery import chain, chord, group
from celery.canvas import Signature, _chain, _chord

from jobrunner.errors import InvalidCanvasError
from jobrunner.plan import Leaf
from tests.builders import leaf, plan_of, work

SLOW = {"queue": "slow", "priority": 3}


def planned(canvas: object) -> dict[str, Leaf]:
    """The leaves of a canvas by label, which partial arguments come before."""
    return {one.args[-1]: one for one in plan_of(canvas).leaves}


def who_has(canvas: object, options: dict[str, Any]) -> set[str]:
    return {label for label, one in planned(canvas).items() if options.items() <= one.options.items()}


def links(canvas: object, option: str) -> dict[str, list[str]]:
    """Whom each task calls back, by label; tasks that call nobody are left out."""
    found = {
        label: [link["args"][-1] for link in one.options.get(option, [])] for label, one in planned(canvas).items()
    }
    return {label: called for label, called in found.items() if called}


def with_args(canvas: Signature, *args: object) -> Signature:
    canvas.args = args
    return canvas


# ---- options -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("canvas", "who"),
    [
        pytest.param(lambda: _chain(leaf("a"), leaf("b"), leaf("c")).set(**SLOW), {"a"}, id="chain: the first task"),
        pytest.param(
            lambda: _chain(_chain(leaf("a"), leaf("b")), leaf("c")).set(**SLOW), {"a"}, id="chain: the very first"
        ),
        pytest.param(
            lambda: _chain(group(leaf("a"), leaf("b")), leaf("c"), leaf("d")).set(**SLOW),
            {"a", "b", "c"},
            id="chain: a group at its head and what joins it",
        ),
        pytest.param(lambda: group(leaf("a"), leaf("b")).set(**SLOW), {"a", "b"}, id="group: all tasks"),
        pytest.param(
            lambda: group(_chain(leaf("a"), leaf("b")), chord([leaf("c")], leaf("d"))).set(**SLOW),
            {"a", "c", "d"},
            id="group: of a chain the first, of a chord all",
        ),
        pytest.param(
            lambda: _chord([leaf("a"), _chain(leaf("b"), leaf("c"))], _chain(leaf("d"), leaf("e"))).set(**SLOW),
            {"a", "b", "d"},
            id="chord: the first tasks of header and body",
        ),
        pytest.param(
            lambda: _chain(leaf("a"), group(leaf("b"), leaf("c")).set(**SLOW)), {"b", "c"}, id="group that ends a chain"
        ),
        pytest.param(
            lambda: _chord([leaf("a")], group(leaf("b"), leaf("c")).set(**SLOW)), {"b", "c"}, id="group as a body"
        ),
        pytest.param(
            lambda: _chord([leaf("a")], _chain(leaf("b"), leaf("c")).set(**SLOW)), {"b"}, id="chain as a body"
        ),
        pytest.param(lambda: group(_chain(leaf("a"), leaf("b")).set(**SLOW), leaf("c")), {"a"}, id="chain in a group"),
        pytest.param(
            lambda: _chain(leaf("a"), _chord([leaf("b")], leaf("c")).set(**SLOW), leaf("d")),
            {"b", "c"},
            id="chord in a chain",
        ),
    ],
)
def test_options_of_a_canvas_are_for_the_tasks_that_celery_sends_with_them(
    canvas: Callable[[], Signature], who: set[str]
) -> None:
    assert who_has(canvas(), SLOW) == who


def test_options_of_a_canvas_take_the_place_of_those_of_its_tasks() -> None:
    found = planned(group(leaf("a", queue="fast", time_limit=5), leaf("b")).set(**SLOW))
    assert found["a"].options == {**SLOW, "time_limit": 5}


def test_the_outer_of_two_canvases_has_the_last_word() -> None:
    found = planned(group(_chain(leaf("a"), leaf("b")).set(queue="inner", priority=1), leaf("c")).set(queue="outer"))
    assert found["a"].options == {"queue": "outer", "priority": 1}


def test_an_option_of_a_canvas_that_is_none_is_no_option() -> None:
    assert planned(group(leaf("a", queue="slow")).set(queue=None))["a"].options == {"queue": "slow"}


@pytest.mark.parametrize("option", ["countdown", "eta"])
def test_a_chord_that_is_to_wait_waits_with_its_header_alone(option: str) -> None:
    delay = {option: datetime(2027, 1, 1, tzinfo=UTC)}
    assert who_has(_chord([leaf("a"), leaf("b")], leaf("c")).set(**delay), delay) == {"a", "b"}
    assert who_has(_chain(group(leaf("a"), leaf("b")), leaf("c")).set(**delay), delay) == {"a", "b"}


def test_how_a_chord_polls_for_its_header_is_no_option_of_its_tasks() -> None:
    found = planned(chord([leaf("a")], leaf("b"), interval=5, max_retries=3))
    assert (found["a"].options, found["b"].options) == ({}, {})


def test_a_skewed_group_starts_its_tasks_one_after_the_other() -> None:
    found = planned(group(leaf(label) for label in "abc").skew(start=1, stop=4))
    assert [one.options["countdown"] for one in found.values()] == [1, 2, 3]


def test_the_id_of_a_chain_is_that_of_its_last_task_and_of_a_chord_that_of_its_body() -> None:
    ends = _chain(leaf("a"), _chord([leaf("b")], _chain(leaf("c"), leaf("d"))))
    assert {label for label, one in planned(ends.set(task_id="mine")).items() if one.id == "mine"} == {"d"}


# ---- partial arguments ---------------------------------------------------------------------------------


def test_partial_arguments_of_the_outermost_chain_are_for_its_first_task() -> None:
    found = planned(with_args(_chain(leaf("a"), leaf("b")), 1, 2))
    assert (found["a"].args, found["b"].args) == ((1, 2, "a"), ("b",))


def test_partial_arguments_of_a_chord_are_for_its_header() -> None:
    canvas = _chord([leaf("a"), _chain(leaf("b"), leaf("c")), leaf("d", immutable=True)], leaf("e"))
    found = planned(_chain(leaf("first"), canvas.clone((1, 2))))
    assert {label: one.args for label, one in found.items()} == {
        "first": ("first",),
        "a": (1, 2, "a"),
        "b": (1, 2, "b"),
        "c": ("c",),
        "d": ("d",),
        "e": ("e",),
    }
    assert found["a"].takes == found["b"].takes


def test_partial_keyword_arguments_of_a_chord_are_for_its_header() -> None:
    found = planned(_chord([leaf("a"), leaf("b", immutable=True)], leaf("c"), kwargs={"kwargs": {"x": 1}}))
    assert {label: one.kwargs for label, one in found.items()} == {"a": {"x": 1}, "b": {}, "c": {}}


def test_the_arguments_of_outer_chords_come_before_those_of_inner_ones() -> None:
    inner = _chord([leaf("a")], leaf("b")).clone((2,))
    assert planned(_chord([inner], leaf("c")).clone((1,)))["a"].args == (1, 2, "a")


def test_an_immutable_chord_keeps_its_own_arguments_and_takes_no_others() -> None:
    inner = _chord([leaf("a")], leaf("b")).clone((2,))
    inner.immutable = True
    assert planned(_chord([inner], leaf("c")).clone((1,)))["a"].args == (2, "a")


# ---- callbacks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("canvas", "who"),
    [
        pytest.param(lambda: _chain(leaf("a"), leaf("b")), {"b"}, id="chain: the last"),
        pytest.param(lambda: _chord([leaf("a")], leaf("b")), {"b"}, id="chord: the body"),
        pytest.param(lambda: _chain(leaf("a"), _chord([leaf("b")], _chain(leaf("c"), leaf("d")))), {"d"}, id="nested"),
    ],
)
def test_the_last_task_of_a_canvas_calls_back_for_it(canvas: Callable[[], Signature], who: set[str]) -> None:
    assert links(canvas().set(link=leaf("callback")), "link") == {label: ["callback"] for label in who}


def test_callbacks_of_a_canvas_come_behind_those_of_its_task() -> None:
    last = leaf("b", link=[leaf("own")])
    assert links(_chain(leaf("a"), last).set(link=leaf("given")), "link") == {"b": ["own", "given"]}
    assert [link["args"] for link in last.options["link"]] == [("own",)]


@pytest.mark.parametrize(
    ("canvas", "who"),
    [
        pytest.param(lambda: _chain(leaf("a"), leaf("b")), {"a", "b"}, id="chain"),
        pytest.param(lambda: group(leaf("a"), _chain(leaf("b"), leaf("c"))), {"a", "b", "c"}, id="group"),
        pytest.param(lambda: _chord([leaf("a"), leaf("b")], leaf("c")), {"a", "b", "c"}, id="chord"),
        pytest.param(lambda: _chord([leaf("a")], group(leaf("b"), leaf("c"))), {"a", "b", "c"}, id="body of a group"),
    ],
)
def test_any_task_of_a_canvas_calls_its_errback(canvas: Callable[[], Signature], who: set[str]) -> None:
    assert links(canvas().set(link_error=[leaf("errback")]), "link_error") == {label: ["errback"] for label in who}


@pytest.mark.parametrize(
    "canvas",
    [
        pytest.param(lambda header, errback: _chord(header, leaf("d", link_error=errback)), id="task"),
        pytest.param(
            lambda header, errback: _chain(group(header), leaf("d", link_error=errback)), id="task in a chain"
        ),
        pytest.param(
            lambda header, errback: _chord(header, group(leaf("d", link_error=errback), leaf("e"))), id="group"
        ),
        pytest.param(
            lambda header, errback: _chord(header, _chain(leaf("d"), leaf("e")).set(link_error=errback)), id="chain"
        ),
    ],
)
def test_the_tasks_of_a_header_call_the_errback_of_the_body_that_will_never_run(
    canvas: Callable[[list[Signature], list[Signature]], Signature],
) -> None:
    called = links(canvas([leaf("a"), _chain(leaf("b"), leaf("c"))], [leaf("errback")]), "link_error")
    assert all(called[label] == ["errback"] for label in "abcd")


def test_an_errback_that_comes_from_two_sides_is_called_once() -> None:
    errback = leaf("errback")
    canvas = _chord([leaf("a")], leaf("b", link_error=[errback])).set(link_error=[errback])
    assert links(canvas, "link_error") == {"a": ["errback"], "b": ["errback"]}


# ---- what is refused -----------------------------------------------------------------------------------


def _inner(canvas: Signature) -> Signature:
    return group([leaf("first"), canvas])


@pytest.mark.parametrize(
    ("canvas", "path", "said"),
    [
        pytest.param(
            lambda: _inner(group(leaf("a"), leaf("b")).set(**SLOW)),
            "canvas.tasks[1]",
            "group has options of its own (priority, queue), which Celery drops there. Set them on its tasks.",
            id="options of a group in a group",
        ),
        pytest.param(
            lambda: _chain(leaf("x"), group(leaf("a"), leaf("b")).set(countdown=3), leaf("y")),
            "canvas.tasks[1]",
            "group has options of its own (countdown)",
            id="options of a group that is joined",
        ),
        pytest.param(
            lambda: _chain(leaf("x"), group([_chain(leaf("a"), leaf("b")).set(queue="slow")])),
            "canvas.tasks[1].tasks[0]",
            "chain has options of its own (queue)",
            id="options of a chain alone in a group in a chain",
        ),
        pytest.param(
            lambda: _chain(leaf("x"), group([leaf("a")]).set(queue="slow")),
            "canvas.tasks[1]",
            "group has options of its own (queue)",
            id="options of a group of one in a chain",
        ),
        pytest.param(
            lambda: _chain(leaf("x"), _chain(leaf("a"), leaf("b")).set(queue="slow")),
            "canvas.tasks[1]",
            "chain has options of its own (queue)",
            id="options of a chain in a chain",
        ),
        pytest.param(
            lambda: _chain(leaf("x"), _chain(leaf("a"), leaf("b")).set(link=leaf("callback")), leaf("y")),
            "canvas.tasks[1]",
            "chain has options of its own (link)",
            id="callback of a chain in a chain",
        ),
        pytest.param(
            lambda: work().chunks([(1,), (2,)], 1).set(queue="slow"),
            "canvas",
            "celery.chunks has options of its own (queue)",
            id="options of chunks",
        ),
        pytest.param(
            lambda: _inner(with_args(_chain(leaf("a"), leaf("b")), 1)),
            "canvas.tasks[1]",
            "chain has partial arguments of its own, which Celery drops there. Give them to its first task.",
            id="arguments of an inner chain",
        ),
        pytest.param(
            lambda: with_args(group(leaf("a"), leaf("b")), 1),
            "canvas",
            "group has partial arguments of its own",
            id="arguments of a group",
        ),
        pytest.param(
            lambda: _chord([leaf("a")], leaf("b"), kwargs={"x": 1, "kwargs": {}}),
            "canvas",
            "chord has partial arguments of its own",
            id="keyword arguments beside those of a chord",
        ),
        pytest.param(
            lambda: _chain(leaf("x"), group(leaf("a"), leaf("b"))).set(link=leaf("callback")),
            "canvas.tasks[1]",
            "a group cannot call back. Put the callback behind it, as the next task of a chain.",
            id="callback of a group that ends a chain",
        ),
        pytest.param(
            lambda: group(leaf("a"), leaf("b")).set(link=leaf("callback")),
            "canvas",
            "a group cannot call back.",
            id="callback of a group",
        ),
        pytest.param(
            lambda: _inner(_chain(leaf("a"), leaf("b")).set(link_error=[5])),
            "canvas.tasks[1].link_error[0]",
            "int is no canvas.",
            id="errback that is no signature",
        ),
    ],
)
def test_what_celery_would_drop_is_refused_with_the_path_and_the_remedy(
    canvas: Callable[[], Signature], path: str, said: str
) -> None:
    with pytest.raises(InvalidCanvasError) as refused:
        plan_of(canvas())
    assert refused.value.path == path
    assert said in str(refused.value)


def test_callbacks_that_a_constructor_has_put_on_tasks_are_theirs() -> None:
    grouped = group(leaf("a"), leaf("b"))
    grouped.link(leaf("callback"))
    grouped.link_error(leaf("errback"))
    assert links(grouped, "link") == {"a": ["callback"]}
    assert links(grouped, "link_error") == {"a": ["errback"], "b": ["errback"]}
    chained = chain(leaf("x"), chain(leaf("a"), leaf("b")).on_error(leaf("errback")))
    assert links(chained, "link_error") == {"a": ["errback"], "b": ["errback"]}


def test_giving_to_tasks_leaves_the_canvas_alone() -> None:
    canvas = _chord([leaf("a")], leaf("b")).set(queue="slow", link=leaf("callback"), link_error=leaf("errback"))
    before = repr(dict(canvas))
    plan_of(canvas)
    assert repr(dict(canvas)) == before
    assert (canvas.tasks[0].options, canvas.body.options) == ({}, {})
