"""The plan of a job that runs inline, in memory: its tasks and blocks, what waits for what, and where values come from.

What the tracker keeps in tables `task` and `block`; what opens when something ends is decided by the same function.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import takewhile
from typing import Any

from jobrunner.additions import Part
from jobrunner.plan import BlockKind, Place, Source
from jobrunner.records import Block
from jobrunner.statements import Statement
from jobrunner.states import TaskState
from jobrunner.submit import Submission
from jobrunner.testing.body import Letter
from tracker.advance import advance

#: Where what has no place in the plan stands.
NOWHERE = Place("", 0)


@dataclass(slots=True, kw_only=True, eq=False)
class Task:
    """A task of the job: what stands in its row, and what has come of it."""

    id: str
    name: str
    queue: str
    arrival: int
    sequence: int
    created_by: str | None
    discovers: bool
    max_retries: int | None
    place: Place
    opens: Place
    takes: Source | None
    #: None for one that another task has sent: Celery runs that.
    letter: Letter | None = None
    state: TaskState = TaskState.PENDING
    reason: str | None = None
    note: str | None = None
    retries: int = 0
    value: Any = None
    #: The node whose value is this one's, if it has expanded.
    grown: Source | None = None
    statement: Statement = field(default_factory=Statement)
    item_errors: list[Mapping[str, Any]] = field(default_factory=list)
    progress: float | None = None
    said: str | None = None
    error: BaseException | None = None
    traceback: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    runtime: float | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any], letter: Letter, **more: Any) -> "Task":
        """Make one of what would be its row in table `task`."""
        values = {name: row[name] for name in ("id", "name", "queue", "discovers", "max_retries")}
        return cls(
            **values | more,
            place=Place(row["block_id"], row["position"]),
            opens=Place(row["opens_block"], row["opens_at"]),
            takes=_source(row["takes_task"], row["takes_group"]),
            letter=letter,
        )

    @property
    def called(self) -> str:
        """How sentences name it."""
        return f"{self.name} [{self.id}]"


class Board:
    """Tasks in order of arrival, and the blocks around them."""

    def __init__(self, submission: Submission) -> None:
        self.job_id: str = submission.job["id"]
        self.tasks: dict[str, Task] = {}
        self.blocks: dict[str, Block] = {}
        self.has_grown = False
        self._waiting: defaultdict[Place, list[Task]] = defaultdict(list)
        #: What fills the list of a group's values, by position.
        self._items: defaultdict[str, dict[int, Source]] = defaultdict(dict)
        self._app = submission.messages[0].task.app if submission.messages else None
        self._add_blocks(submission.block_rows())
        letters = (Letter.of(self._app, row) for row in submission.message_rows())
        for row, letter in zip(submission.task_rows(), letters, strict=True):
            more = {"arrival": row["arrival"], "sequence": row["sequence"], "created_by": None}
            self._add_task(row, Task.of(row, letter, **more))

    def opens_at(self, place: Place) -> Sequence[Task]:
        """Return the tasks that wait for a place to open."""
        return self._waiting[place]

    def end_well(self, task: Task) -> list[Task]:
        """Return the tasks that open because this one has ended well, in order of arrival."""
        moved = advance([task.place], self.blocks)
        self.blocks.update(moved.changed)
        return [one for place in moved.opened for one in self._waiting[place]]

    def adopt(self, task_id: str, name: str, creator: str | None) -> Task:
        """Return what a task of the job has sent by Celery's own means; it has no place in the plan."""
        sequence = self.tasks[creator].sequence + 1 if creator in self.tasks else 0
        return self.tasks.setdefault(
            task_id,
            Task(id=task_id, name=name, queue="", arrival=len(self.tasks), sequence=sequence, created_by=creator,
                 discovers=False, max_retries=None, place=NOWHERE, opens=NOWHERE, takes=None),
        )  # fmt: skip

    # ---- growing ---------------------------------------------------------------------------------------------

    def graft(self, creator: Task, parts: Iterable[Part]) -> None:
        """Put what a task has added behind it: a chain takes its place, of it and then a group of the additions."""
        parts = list(parts)
        groups = Counter((one.chain, one.group) for one in parts if one.total)
        for part in parts:
            self._add_part(creator, part)
        for (chain, group), size in groups.items():
            self.has_grown = True
            outer = {"parent_id": creator.place.block, "position": creator.place.position}
            self._add_block(id=chain, kind=BlockKind.CHAIN, size=2, **outer)
            self._add_block(id=group, kind=BlockKind.GROUP, size=size, parent_id=chain, position=1)
            creator.place = Place(chain, 0)

    def _add_part(self, creator: Task, part: Part) -> None:
        self._add_blocks(dict(one) for one in part.blocks)
        for added in part.tasks:
            row = dict(added)
            more = {"arrival": len(self.tasks), "sequence": creator.sequence + added.sequence, "created_by": creator.id}
            self._add_task(row, Task.of(row, Letter.of(self._app, dict(added.message)), **more))
        if part.expands:
            creator.grown = _source(part.value_task, part.value_group)

    def _add_task(self, row: Mapping[str, Any], task: Task) -> None:
        self.tasks[task.id] = task
        self._waiting[task.opens].append(task)
        self._fills(row, Source(task=task.id))

    def _add_blocks(self, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            self._add_block(**{name: row[name] for name in ("id", "kind", "parent_id", "position", "size")})
            self._items.setdefault(row["id"], {})
            self._fills(row, Source(group=row["id"]))

    def _add_block(self, **values: Any) -> None:
        self.blocks[values["id"]] = Block(job_id=self.job_id, remaining=values["size"], **values)

    def _fills(self, row: Mapping[str, Any], source: Source) -> None:
        if row["yields_group"] is not None:
            self._items[row["yields_group"]][row["yields_at"]] = source

    # ---- values ----------------------------------------------------------------------------------------------

    def value_of(self, source: Source) -> Any:
        """Return the value of a node, as `jobrunner.store.sources` finds it."""
        if source.task is None:
            return [self.value_of(one) for one in self._values(source)]
        task = self.tasks[source.task]
        return task.value if task.grown is None else self.value_of(task.grown)

    def is_empty(self, source: Source) -> bool:
        """Whether there is nothing in what a node yields: of a group, in what any of its tasks yields."""
        if source.task is None:
            return all(self.is_empty(one) for one in self._values(source))
        task = self.tasks[source.task]
        if task.grown is not None:
            return self.is_empty(task.grown)
        return task.value is None or (
            isinstance(task.value, str | bytes | list | dict | tuple | set | frozenset) and not task.value
        )

    def _values(self, source: Source) -> list[Source]:
        filled = self._items[source.group or ""]
        return [filled[position] for position in sorted(filled)]

    # ---- looking around --------------------------------------------------------------------------------------

    def around(self, place: Place) -> Iterator[Place]:
        """Yield a place and those of the blocks around it, from the inside out."""
        here: Place | None = place
        while here is not None:
            yield here
            here = self._outside(here)

    def chains_around(self, place: Place) -> dict[str, int]:
        """Return the chains in which a place stands, each with its position there."""
        return {one.block: one.position for one in self.around(place) if self._is_chain(one)}

    def behind(self, place: Place) -> Place:
        """Return the place directly after one in its chain, or where that ends a chain, after it there; or nowhere."""
        here: Place | None = place
        while here is not None and self._is_chain(here):
            if here.position + 1 < self.blocks[here.block].size:
                return Place(here.block, here.position + 1)
            here = self._outside(here)
        return NOWHERE

    def branch(self, task: Task) -> Place | str:
        """Return in which branch a task stands of the group that opens with it, or its id if it opens alone."""
        within = takewhile(lambda one: one.block != task.opens.block, self.around(task.place))
        groups = [one for one in within if not self._is_chain(one)]
        return groups[-1] if groups else task.id

    def inside(self, place: Place) -> list[Task]:
        """Return the tasks at a place, however deep."""
        return [one for one in self.tasks.values() if one.letter is not None and place in self.around(one.place)]

    def _outside(self, place: Place) -> Place | None:
        block = self.blocks[place.block]
        return None if block.parent_id is None else Place(block.parent_id, block.position)

    def _is_chain(self, place: Place) -> bool:
        return self.blocks[place.block].kind == BlockKind.CHAIN


def _source(task: str | None, group: str | None) -> Source | None:
    return None if task is None and group is None else Source(task=task, group=group)
