"""Any canvas, run by `advance` alone, does what the canvas says, in whatever order its tasks happen to end."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random

from celery import group
from celery.canvas import Signature, _chain, _chord
from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner.plan import Leaf, Place, Plan, Source
from tests.builders import blocks, plan_of, work
from tracker.advance import advance

# ---- canvases, as a language of its own: what they mean is told here without looking at the plan ---------


@dataclass(frozen=True, kw_only=True)
class Work:
    """A task; `label` tells it from the others."""

    immutable: bool = False
    args: tuple[int, ...] = ()
    label: str = ""


@dataclass(frozen=True)
class Chain:
    parts: tuple["Spec", ...]


@dataclass(frozen=True)
class Group:
    parts: tuple["Spec", ...]


@dataclass(frozen=True)
class Chord:
    header: tuple["Spec", ...]
    body: "Spec"
    immutable: bool = False
    args: tuple[int, ...] = ()


Spec = Work | Chain | Group | Chord


def _call(label: str, *taken: object) -> str:
    """The value of a task: another one for another label or input, and short whatever it takes."""
    return f"{label}:{hashlib.blake2s(repr(taken).encode(), digest_size=6).hexdigest()}"


def _value(spec: Spec, *taken: object) -> object:
    """What a canvas yields when it is given the value of what came before, if any, and partial arguments."""
    match spec:
        case Work():
            return _call(spec.label, *(() if spec.immutable else taken), *spec.args)
        case Chain():
            for part in _steps(spec):
                taken = (_value(part, *taken),)
            return taken[0]
        case Group():
            return [_value(part, *taken) for part in spec.parts]
        case Chord():
            taken = (*(() if spec.immutable else taken), *spec.args)
            return _value(spec.body, [_value(part, *taken) for part in spec.header])


def _steps(spec: Chain) -> Sequence[Spec]:
    """The steps of a chain: Celery splices chains, leaves out empty groups, and takes a group of one for its task."""
    spliced = list(_spliced(spec))
    steps = [part for part in spliced if part != Group(())] or spliced[:1]
    opened = [part.parts[0] if isinstance(part, Group) and len(part.parts) == 1 else part for part in steps]
    return [step for part in opened for step in _spliced(part)]


def _spliced(spec: Spec) -> Iterator[Spec]:
    if isinstance(spec, Chain):
        for part in spec.parts:
            yield from _spliced(part)
    else:
        yield spec


def _labels(spec: Spec) -> frozenset[str]:
    match spec:
        case Work():
            return frozenset({spec.label})
        case Chain() | Group():
            return frozenset().union(*map(_labels, spec.parts))
        case Chord():
            return _labels(spec.body).union(*map(_labels, spec.header))


def _waits_for(spec: Spec, before: frozenset[str] = frozenset()) -> Iterator[tuple[str, frozenset[str]]]:
    """Each task with all that have to end before it."""
    match spec:
        case Work():
            yield spec.label, before
        case Chain():
            for part in spec.parts:
                yield from _waits_for(part, before)
                before |= _labels(part)
        case Group():
            for part in spec.parts:
                yield from _waits_for(part, before)
        case Chord():
            for part in spec.header:
                yield from _waits_for(part, before)
            yield from _waits_for(spec.body, before.union(*map(_labels, spec.header)))


def _canvas(spec: Spec) -> Signature:
    """The canvas, made with Celery's classes themselves: its operators rewrite groups of none and one."""
    match spec:
        case Work():
            return work().signature((*spec.args, spec.label), immutable=spec.immutable)
        case Chain():
            return _chain(*map(_canvas, spec.parts))
        case Group():
            return group([_canvas(part) for part in spec.parts])
        case Chord():
            made = _chord([_canvas(part) for part in spec.header], _canvas(spec.body), args=spec.args)
            made.immutable = spec.immutable
            return made


def _loses_arguments(spec: Spec) -> bool:
    """Whether Celery would drop arguments given to this: a chain that begins with a group gives them to nobody."""
    match spec:
        case Work():
            return False
        case Chain():
            first = _steps(spec)[0]
            return isinstance(first, Group) or _loses_arguments(first)
        case Group():
            return any(map(_loses_arguments, spec.parts))
        case Chord():
            return any(map(_loses_arguments, spec.header))


def _numbered(spec: Spec, numbers: Iterator[int]) -> Spec:
    match spec:
        case Work():
            return replace(spec, label=f"t{next(numbers)}")
        case Chain() | Group():
            return type(spec)(tuple(_numbered(part, numbers) for part in spec.parts))
        case Chord():
            header = tuple(_numbered(part, numbers) for part in spec.header)
            args = () if any(map(_loses_arguments, header)) else spec.args
            return replace(spec, header=header, body=_numbered(spec.body, numbers), args=args)


def _larger(parts: st.SearchStrategy[Spec]) -> st.SearchStrategy[Spec]:
    # A chain of one would be taken apart by Celery's class: its only task stands for it.
    several = st.lists(parts, min_size=2, max_size=6).map(tuple)
    any_number = st.lists(parts, max_size=6).map(tuple)
    return several.map(Chain) | any_number.map(Group) | st.builds(Chord, any_number, parts, _seldom, _partial)


_seldom = st.sampled_from([False, False, False, True])
_partial = st.lists(st.integers(0, 9), max_size=2).map(tuple)
_works: st.SearchStrategy[Spec] = st.builds(Work, immutable=_seldom, args=_partial)
specs = st.recursive(_works | st.just(Group(())), _larger, max_leaves=40).map(lambda spec: _numbered(spec, count()))


# ---- the smallest tracker ------------------------------------------------------------------------------


@dataclass
class Run:
    """Runs a plan in memory: only `advance` decides what opens, and nothing but the plan says who takes what."""

    plan: Plan
    ready: list[Leaf] = field(default_factory=list)
    opened: list[Leaf] = field(default_factory=list)
    ended: list[Leaf] = field(default_factory=list)
    values: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.blocks = blocks(self.plan)
        self.waiting = defaultdict(list)
        for one in self.plan.leaves:
            self.waiting[one.opens].append(one)
        self.lists: dict[str, dict[int, Source]] = defaultdict(dict)
        for node, source in [
            *((one, Source(task=one.id)) for one in self.plan.leaves),
            *((one, Source(group=one.id)) for one in self.plan.blocks),
        ]:
            if node.yields is not None:
                assert node.yields.position not in self.lists[node.yields.block], "two nodes fill one place"
                self.lists[node.yields.block][node.yields.position] = source
        self.open(Place(self.plan.job_id, 0))

    def open(self, place: Place) -> None:
        self.ready += self.waiting[place]
        self.opened += self.waiting[place]

    def end(self, leaves: Sequence[Leaf]) -> None:
        """End some ready tasks in one turn."""
        for one in leaves:
            self.ready.remove(one)
            self.ended.append(one)
            taken = () if one.takes is None else (self.value_of(one.takes),)
            self.values[one.id] = _call(one.args[-1], *taken, *one.args[:-1])
        moved = advance([one.place for one in leaves], self.blocks)
        self.blocks |= moved.changed
        for place in moved.opened:
            self.open(place)

    def value_of(self, source: Source) -> object:
        if source.task is not None:
            return self.values[source.task]
        assert source.group is not None
        filled = self.lists[source.group]
        return [self.value_of(filled[position]) for position in range(len(filled))]

    def to_the_end(self, random: Random) -> object:
        """End tasks in random order, some of them together, and return the job's value."""
        while self.ready:
            self.end(random.sample(self.ready, random.randint(1, len(self.ready))))
        assert self.plan.value is not None
        return self.value_of(self.plan.value)


def _names(leaves: Sequence[Leaf]) -> list[str]:
    return [one.args[-1] for one in leaves]


# ---- properties ----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(spec=specs, random=st.randoms())
def test_every_task_runs_exactly_once(spec: Spec, random: Random) -> None:
    run = Run(plan_of(_canvas(spec)))
    run.to_the_end(random)
    assert sorted(_names(run.opened)) == sorted(_names(run.ended)) == sorted(_labels(spec))


@settings(max_examples=60, deadline=None)
@given(spec=specs, random=st.randoms())
def test_a_task_is_ready_as_soon_as_all_that_it_depends_on_has_ended_and_never_before(
    spec: Spec, random: Random
) -> None:
    run, waits_for = Run(plan_of(_canvas(spec))), dict(_waits_for(spec))
    while True:
        ended = set(_names(run.ended))
        assert set(_names(run.ready)) == {one for one, needs in waits_for.items() if needs <= ended} - ended
        if not run.ready:
            break
        run.end(random.sample(run.ready, random.randint(1, len(run.ready))))


@settings(max_examples=60, deadline=None)
@given(spec=specs, random=st.randoms())
def test_the_value_is_that_of_the_canvas_evaluated_directly(spec: Spec, random: Random) -> None:
    assert Run(plan_of(_canvas(spec))).to_the_end(random) == _value(spec)


@settings(max_examples=60, deadline=None)
@given(spec=specs, random=st.randoms())
def test_in_the_end_no_block_has_children_left(spec: Spec, random: Random) -> None:
    run = Run(plan_of(_canvas(spec)))
    assert all(one.remaining == one.size >= 0 for one in run.blocks.values())
    run.to_the_end(random)
    assert {one.remaining for one in run.blocks.values()} == {0}


@settings(max_examples=60, deadline=None)
@given(spec=specs, one=st.randoms(), other=st.randoms())
def test_the_order_in_which_tasks_end_changes_nothing(spec: Spec, one: Random, other: Random) -> None:
    plan = plan_of(_canvas(spec))
    first, second = Run(plan), Run(plan)
    assert first.to_the_end(one) == second.to_the_end(other)
    assert first.values == second.values
    assert first.blocks == second.blocks


@settings(max_examples=60, deadline=None)
@given(spec=specs)
def test_tasks_that_end_one_by_one_or_all_together_open_the_same(spec: Spec) -> None:
    plan = plan_of(_canvas(spec))
    together, one_by_one = Run(plan), Run(plan)
    while together.ready:
        now = list(together.ready)
        together.end(now)
        for each in now:
            one_by_one.end([each])
        assert sorted(_names(together.ready)) == sorted(_names(one_by_one.ready))
        assert together.blocks == one_by_one.blocks


@settings(max_examples=60, deadline=None)
@given(spec=specs)
def test_the_level_of_a_task_is_the_longest_way_to_it(spec: Spec) -> None:
    longest: dict[str, int] = {}
    for label, needs in sorted(_waits_for(spec), key=lambda each: len(each[1])):
        longest[label] = 1 + max((longest[one] for one in needs), default=-1)
    assert {one.args[-1]: one.sequence for one in plan_of(_canvas(spec)).leaves} == longest
