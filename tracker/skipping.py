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
        for one in skips:
            tracking.skip_tasks(connection, [task.id for task in one.found], one.note, now)
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

    def choose(
        self, first: Mapping[str, Sequence[Successor]], blocks: Mapping[str, Block]
    ) -> Iterator[tuple[str, Sequence[Successor]]]:
        """Yield what is skipped of the first tasks, by their blocks, with the block of whose inside all chains matter.

        Of a branch that has several first tasks all have to be named.
        """
        branches: defaultdict[str, list[tuple[str, Sequence[Successor]]]] = defaultdict(list)
        for block_id, tasks in first.items():
            branch, within = _branch(block_id, tasks[0].opens_block, blocks)
            if branch is not None or not self.branches:
                branches[branch or block_id].append((within, tasks))
                continue
            for one in tasks:  # each is a branch of its own
                branches[one.id].append((within, [one]))
        chosen = list(branches)
        if self.branches and branches:  # else all of it has ended already
            begins = {id_: {one.name for _, tasks in those for one in tasks} for id_, those in branches.items()}
            chosen = [id_ for id_ in branches if begins[id_] <= self.branches]
            self.unknown = self.branches.difference(*(begins[id_] for id_ in chosen))
        for id_ in chosen:
            yield from branches[id_]

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
    waiting = _by_place(tracking.successors(connection, {place.block for place in places}))
    first = {place: waiting.get(place, {}) for place in places}
    _know(connection, blocks, (id_ for tasks in first.values() for id_ in tasks))
    here = [(one, *chosen) for place, one in places.items() for chosen in one.choose(first[place], blocks)]
    while here:
        chains: dict[str, _Skip] = {}
        for one, within, tasks in here:
            one.found += tasks
            chains |= dict.fromkeys(_chains_between(blocks, tasks[0].block_id, within), one)
        inner = _by_place(tracking.successors(connection, chains) if chains else [])
        _know(connection, blocks, (id_ for tasks in inner.values() for id_ in tasks))
        here = [(chains[place.block], place.block, tasks) for place, those in inner.items() for tasks in those.values()]


def _by_place(tasks: Iterable[Successor]) -> Mapping[Place, Mapping[str, Sequence[Successor]]]:
    """Return tasks by the place that they wait for, and of each by their blocks: there may be very many of one."""
    found: dict[tuple[str, int, str], list[Successor]] = {}
    for task in tasks:
        found.setdefault((task.opens_block, task.opens_at, task.block_id), []).append(task)
    by_place: defaultdict[Place, dict[str, Sequence[Successor]]] = defaultdict(dict)
    for (block, position, within), those in found.items():
        by_place[Place(block, position)][within] = those
    return by_place


def _know(connection: "Connection", blocks: dict[str, Block], block_ids: Iterable[str]) -> None:
    """Read those of these blocks that are not known yet, and all around them."""
    blocks |= tracking.blocks_upward(connection, set(block_ids) - blocks.keys())


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


def _branch(block_id: str, opens_block: str, blocks: Mapping[str, Block]) -> tuple[str | None, str]:
    """Return of which branch of what comes next the tasks of a block are, and in what of it chains matter.

    What comes next is that with which the outermost chains begin: a task, or a group, whose children are branches.
    None is for tasks that are branches themselves.
    """
    around: list[Block] = []
    here = block_id
    while here != opens_block:
        around.append(blocks[here])
        here = blocks[here].parent_id or ""
    while around and around[-1].kind == BlockKind.CHAIN:
        around.pop()
    if not around:
        return None, block_id
    return (around[-2].id if len(around) > 1 else None), around[-1].id


def _chains_between(blocks: Mapping[str, Block], inside: str, within: str) -> Iterator[str]:
    """Yield the chains around a place that are in this block."""
    here: str | None = inside
    while here is not None and here != within:
        if blocks[here].kind == BlockKind.CHAIN:
            yield here
        here = blocks[here].parent_id
