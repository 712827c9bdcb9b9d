"""Values are lost at any moment: `retreat` and `advance` keep the counters true and bring any plan to its end."""

from collections import Counter
from collections.abc import Sequence
from itertools import count
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner.plan import Block, BlockKind, Leaf, Place, Plan, Source
from tests.builders import blocks, plan_of
from tests.property.test_plan_runs import Spec, _canvas, specs
from tracker.advance import advance, retreat


class Run:
    """Runs a plan in memory, in which tasks find that values are lost; `losses` bounds how often."""

    def __init__(self, plan: Plan, random: Random, losses: int = 20) -> None:
        self.plan, self.random, self.losses = plan, random, losses
        self.blocks = blocks(plan)
        self.states = dict.fromkeys((one.id for one in plan.leaves), "pending")
        self.runs: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.open(Place(plan.job_id, 0))

    def open(self, place: Place) -> None:
        for one in self.plan.leaves:
            if one.opens == place and self.states[one.id] == "pending":
                self.states[one.id] = "ready"

    def turn(self) -> bool:
        """Let some of the ready tasks run; those that find a value lost run again after its producer."""
        ready = [one for one in self.plan.leaves if self.states[one.id] == "ready"]
        if not ready:
            return False
        some = self.random.sample(ready, self.random.randint(1, len(ready)))
        lost = {one.id: self.finds_lost(one) for one in some}
        ended = [one for one in some if not lost[one.id]]
        self.end(ended)
        self.replay([one for one in some if lost[one.id]], lost, {one.id for one in ended})
        return True

    def finds_lost(self, one: Leaf) -> list[Leaf]:
        producers = [] if one.takes is None else self.producers(one.takes)
        found = [each for each in producers if self.random.random() < 0.3][: max(self.losses, 0)]
        self.losses -= len(found)
        return found

    def producers(self, source: Source) -> list[Leaf]:
        if source.task is not None:
            return [one for one in self.plan.leaves if one.id == source.task]
        inner = [one for one in self.plan.blocks if one.yields and one.yields.block == source.group]
        found = [one for one in self.plan.leaves if one.yields and one.yields.block == source.group]
        return found + [each for one in inner for each in self.producers(Source(group=one.id))]

    def end(self, leaves: Sequence[Leaf]) -> None:
        for one in leaves:
            self.states[one.id] = "well"
            self.runs[one.id] += 1
        moved = advance([one.place for one in leaves], self.blocks)
        self.blocks |= moved.changed
        for place in moved.opened:
            self.open(place)
        for chain in moved.resumed:
            self.open(Place(chain, min(self.unfinished(chain))))
        self.check()

    def replay(self, consumers: Sequence[Leaf], lost: dict[str, list[Leaf]], just_ended: set[str]) -> None:
        again = []
        for one in consumers:
            for producer in lost[one.id]:
                if self.states[producer.id] == "well" and producer.id not in just_ended:
                    self.states[producer.id] = "ready"
                    self.lost[producer.id] += 1
                    again.append(producer.place)
            waits = any(self.states[producer.id] != "well" for producer in lost[one.id])
            self.states[one.id] = "pending" if waits else "ready"
        self.blocks |= retreat(again, self.blocks)
        self.check()

    def unfinished(self, block_id: str) -> list[int]:
        """Positions of a block's children that have not ended well, by what the tasks are."""
        tasks = [one for one in self.plan.leaves if one.place.block == block_id and self.states[one.id] != "well"]
        inner = [one for one in self.plan.blocks if one.place and one.place.block == block_id and one.size]
        return [one.place.position for one in tasks] + [
            one.place.position for one in inner if one.place and self.unfinished(one.id)
        ]

    def check(self) -> None:
        assert {id_: one.remaining for id_, one in self.blocks.items()} == {
            one.id: len(self.unfinished(one.id)) for one in self.plan.blocks
        }

    def to_the_end(self) -> None:
        while self.turn():
            pass
        assert set(self.states.values()) <= {"well"}
        assert self.runs == {one.id: 1 + self.lost[one.id] for one in self.plan.leaves}


@settings(max_examples=60, deadline=None)
@given(spec=specs, random=st.randoms(use_true_random=False))
def test_only_what_was_lost_runs_again_and_every_job_ends(spec: Spec, random: Random) -> None:
    Run(plan_of(_canvas(spec)), random).to_the_end()


@st.composite
def levels(draw: st.DrawFn) -> Plan:
    """A plan of groups one after another, whose tasks take what any earlier level has made."""
    ids = count(1)
    leaves: list[Leaf] = []
    made = []
    for level, size in enumerate(draw(st.lists(st.integers(1, 4), min_size=2, max_size=6))):
        before = [one.id for one in leaves]
        made.append(Block(id=f"b{level}", kind=BlockKind.GROUP, place=Place("root", level), size=size, yields=None))
        for position in range(size):
            takes = Source(task=draw(st.sampled_from(before))) if before else None
            leaves.append(
                Leaf(
                    id=f"t{next(ids)}", task="work", args=(), kwargs={}, options={}, path="", sequence=level,
                    place=Place(f"b{level}", position), opens=Place("root", level), takes=takes, yields=None,
                )
            )  # fmt: skip
    root = Block(id="root", kind=BlockKind.CHAIN, place=None, size=len(made), yields=None)
    return Plan(job_id="root", leaves=leaves, blocks=[*made, root], value=None)


@settings(max_examples=100, deadline=None)
@given(plan=levels(), random=st.randoms(use_true_random=False))
def test_what_takes_the_value_of_a_task_far_before_it_waits_for_that_alone(plan: Plan, random: Random) -> None:
    Run(plan, random).to_the_end()


@settings(max_examples=60, deadline=None)
@given(spec=specs, random=st.randoms(use_true_random=False))
def test_what_retreats_and_ends_well_again_leaves_every_counter_as_it_was(spec: Spec, random: Random) -> None:
    run = Run(plan_of(_canvas(spec)), random, losses=0)
    for _ in range(random.randint(0, 10)):
        run.turn()
    well = [one.place for one in run.plan.leaves if run.states[one.id] == "well"]
    some = random.sample(well, random.randint(0, len(well)))
    held = {**run.blocks, **retreat(some, run.blocks)}
    moved = advance(random.sample(some, len(some)), held)
    assert {**held, **moved.changed} == run.blocks
