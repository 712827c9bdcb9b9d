"""What tasks skip of what comes directly after them: it ends in the turn in which they do, and is never sent (N2).

What comes next is a task, or a group. Of a group all branches end so, or those that begin with tasks of the names that
were said, each with all that is nested in it. What stands behind runs, and takes nothing from there.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from jobrunner.plan import BlockKind, Place
from jobrunner.records import Attempt, Block, HistoryLine, Task
from jobrunner.states import WELL, TaskState
from jobrunner.store import tracking
from jobrunner.store.tracking.skipped import Successor
from jobrunner.text import SENTENCE, bounded
from tracker.settle import Changes
from tracker.statements import note_of_skipped, stated

if TYPE_CHECKING:
    from sqlalchemy import Connection

#: What triggers the lines of history.
_SAID = "current.skip_next"


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """The places of plans where tasks have ended so, and what the histories of their jobs say."""

    places: Sequence[Place] = ()
    history: Sequence[HistoryLine] = ()


@dataclass(slots=True)
class Skips:
    """What tasks that have ended well said of what comes next, since plans moved on last."""

    _said: dict[str, "_Skip"] = field(default_factory=dict)

    def note(self, task: Task, before: TaskState, decider: Attempt) -> None:
        """Note what the execution has stated that decides about a task, if that has just ended well by it."""
        if decider.statement is None or task.state not in WELL or before in WELL or task.ordered is not None:
            return
        statement = stated(decider)
        if statement is not None and statement.skips is not None and task.block_id:
            self._said[task.id] = _Skip(task, statement.skips, frozenset(statement.branches))

    def carry_out(self, connection: "Connection", changes: Changes, now: datetime) -> Skipped:
        """End what is to be skipped; the plan moves on by the places that are returned."""
        if not self._said:
            return Skipped()
        skips = list(self._said.values())
        self._said.clear()
        names = tracking.names_of(connection, [one.task.id for one in skips])
        for one in skips:
            one.by = f"{names[one.task.id]} [{one.task.id}]"
            one.note = note_of_skipped(one.why, one.by)
        _find(connection, skips)
        skipped = [(task, one) for one in skips for task in one.found]
        tracking.skip_tasks(connection, [(task.id, one.note) for task, one in skipped], now)
        for (job_id, discovers), number in Counter((task.job_id, task.discovers) for task, _ in skipped).items():
            changes.move_many(job_id, TaskState.PENDING, TaskState.SKIPPED, number, discovers=discovers)
        return Skipped(
            places=[Place(task.block_id, task.position) for task, _ in skipped],
            history=[
                HistoryLine(
                    job_id=one.task.job_id, task_id=one.task.id, at=now, line=bounded(line, SENTENCE), trigger=_SAID
                )
                for one in skips
                for line in one.lines()
            ],
        )


@dataclass(slots=True)
class _Skip:
    """What one task has said, and what of its plan that is about: nothing, if no place comes next."""

    task: Task
    why: str
    branches: frozenset[str]
    by: str = ""
    note: str = ""
    place: Place | None = None
    found: list[Successor] = field(default_factory=list)
    unknown: frozenset[str] = frozenset()

    def choose(self, first: Iterable[Successor], blocks: Mapping[str, Block]) -> Iterator[tuple[Successor, str]]:
        """Yield the first tasks of what is skipped, each with the block of whose inside that is all that matters."""
        branches: defaultdict[str, list[tuple[Successor, str]]] = defaultdict(list)
        for one in first:
            branch, within = _branch(one, blocks)
            branches[branch].append((one, within))
        begins = {branch: {one.name for one, _ in those} for branch, those in branches.items()}
        chosen = [branch for branch in branches if not self.branches or begins[branch] <= self.branches]
        if begins:  # else all of it has ended already
            self.unknown = self.branches.difference(*(begins[branch] for branch in chosen))
        for branch in chosen:
            yield from branches[branch]

    def lines(self) -> Iterator[str]:
        """Yield what the job's history says of it."""
        if self.place is None:
            yield f"{self.by} would have what comes next skipped ({self.why}): nothing comes directly after it"
        if self.found:
            number = f"{len(self.found):,} tasks" if len(self.found) > 1 else self.found[0].name
            yield f"{self.by} has skipped {number}: {self.why}"
        if self.unknown:
            unknown = ", ".join(sorted(self.unknown))
            yield f"{self.by} would have {unknown} skipped ({self.why}): no branch that waits after it begins with that"


def _find(connection: "Connection", skips: Collection[_Skip]) -> None:
    """Find what is skipped: a few statements for each level of nested chains, however many tasks there are."""
    blocks = tracking.blocks_upward(connection, {one.task.block_id for one in skips})
    for one in skips:
        one.place = _behind(blocks, Place(one.task.block_id, one.task.position))
    places = {one.place: one for one in skips if one.place is not None}
    waiting: defaultdict[Place, list[Successor]] = defaultdict(list)
    for task in tracking.successors(connection, {place.block for place in places}):
        waiting[Place(task.opens_block, task.opens_at)].append(task)
    blocks |= tracking.blocks_upward(connection, {task.block_id for place in places for task in waiting[place]})
    here = [(task, within, one) for place, one in places.items() for task, within in one.choose(waiting[place], blocks)]
    while here:
        chains: dict[str, _Skip] = {}
        for task, within, one in here:
            one.found.append(task)
            chains |= dict.fromkeys(_chains_between(blocks, task.block_id, within), one)
        inner = tracking.successors(connection, chains) if chains else []
        blocks |= tracking.blocks_upward(connection, {task.block_id for task in inner})
        here = [(task, task.opens_block, chains[task.opens_block]) for task in inner]


def _behind(blocks: Mapping[str, Block], here: Place) -> Place | None:
    """Return the place directly after one in its chain; a chain that ends a chain, and only that, is a part of it."""
    while blocks[here.block].kind == BlockKind.CHAIN:
        block = blocks[here.block]
        if here.position + 1 < block.size:
            return Place(block.id, here.position + 1)
        if block.parent_id is None:
            return None
        here = Place(block.parent_id, block.position)
    return None


def _branch(task: Successor, blocks: Mapping[str, Block]) -> tuple[str, str]:
    """Return of which branch of what comes next a task is, by a name; and in what of it chains matter.

    What comes next is that with which the outermost chains begin: a task, or a group, whose children are branches.
    """
    around: list[Block] = []
    here = task.block_id
    while here != task.opens_block:
        around.append(blocks[here])
        here = blocks[here].parent_id or ""
    while around and around[-1].kind == BlockKind.CHAIN:
        around.pop()
    if not around:
        return task.id, task.block_id
    return (around[-2].id if len(around) > 1 else task.id), around[-1].id


def _chains_between(blocks: Mapping[str, Block], inside: str, within: str) -> Iterator[str]:
    """Yield the chains around a place that are in this block."""
    here: str | None = inside
    while here is not None and here != within:
        if blocks[here].kind == BlockKind.CHAIN:
            yield here
        here = blocks[here].parent_id
