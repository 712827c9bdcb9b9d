"""The plan of a job: a Celery canvas as a tree whose leaves are tasks and whose inner blocks are chains and groups.

Pure: a canvas in, a `Plan` out; nothing is frozen, sent or looked up. A chord is a chain of a group and its body, and
the root is always a chain, so a single task is a chain of one.

Everything that the tracker needs later is decided here, so that ending a task costs O(depth) and never O(size):

* `place`: where a node stands: its block, and its position in it.
* `opens`: the place whose opening makes this task ready. In `chain(a, group(chain(b, c), d), e)` opening position 1 of
  the outer chain makes `b` and `d` ready at once, whatever lies between, so both carry that place; `c` carries position
  1 of its own chain.
* `takes`: the node whose value is the first argument, as in Celery; none for an immutable signature or the first one.
* `yields`: the place in a group's list of values that this node's value fills.

Blocks without any task are left out of the counting, because nothing in them can end; their value, an empty list, is
kept.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from celery import group
from celery.canvas import Signature, _chain, _chord, chunks

from jobrunner.canvas import ROOT, Given, Part, chain_parts, chord_parts, to_members
from jobrunner.errors import InvalidCanvasError
from jobrunner.signatures import as_signature


class BlockKind(StrEnum):
    """How the children of a block follow each other."""

    CHAIN = "chain"
    GROUP = "group"


@dataclass(frozen=True, slots=True)
class Place:
    """A position, from 0, in a block."""

    block: str
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The node that a value comes from: a task, or a group (a list of values, nested as the groups are)."""

    task: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One task at its place. `sequence` is its level from 0, `path` the way to it for people.

    What its signature holds is taken out once: a signature's own attributes are slow, and are asked for often.
    """

    id: str
    task: str
    args: Any
    kwargs: Any
    options: Mapping[str, Any]
    path: str
    sequence: int
    place: Place
    opens: Place
    takes: Source | None
    yields: Place | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A chain or group; `size` counts its children that hold tasks."""

    id: str
    kind: BlockKind
    place: Place | None
    size: int
    yields: Place | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The whole tree of a job, or of what is added to one. Leaves are in order of arrival.

    `job_id` is the id of the root block, which is also that of a new job.
    """

    job_id: str
    leaves: Sequence[Leaf]
    blocks: Sequence[Block]
    value: Source | None


def from_canvas(canvas: object, *, new_id: Callable[[], str]) -> Plan:
    """Walk a canvas into the plan of a new job whose ids `new_id` makes.

    Raises:
        InvalidCanvasError: it is no canvas, or holds what a plan cannot represent; the error names the path to it.
    """
    job_id = new_id()
    return _plan(canvas, _Start.of_job(job_id), job_id, new_id)


def grow(canvas: object, *, place: Place, opens: Place, new_id: Callable[[], str]) -> Plan:
    """Walk a canvas into a plan that will stand at a place of another one, and wait for a place of it to open.

    Its tasks take nothing from around it, and `sequence` counts from 1.

    Raises:
        InvalidCanvasError: as `from_canvas`.
    """
    return _plan(canvas, _Start(place=place, opens=opens, takes=None, yields=None, sequence=1), new_id(), new_id)


class _Start(NamedTuple):
    """What a node inherits from where it stands."""

    place: Place | None
    opens: Place
    takes: Source | None
    yields: Place | None
    sequence: int

    @classmethod
    def of_job(cls, job_id: str) -> "_Start":
        return cls(place=None, opens=Place(job_id, 0), takes=None, yields=None, sequence=0)


def _plan(canvas: object, start: _Start, root_id: str, new_id: Callable[[], str]) -> Plan:
    root = Part(as_signature(canvas, "canvas"), "canvas", ROOT)
    walk = _Walk(new_id)
    try:
        end = walk.chain(root_id, [root], start)
    except RecursionError:
        msg = "it is nested too deeply to be walked."
        raise InvalidCanvasError(msg, "Flatten it, or submit its parts as jobs of their own.") from None
    return Plan(job_id=root_id, leaves=walk.leaves, blocks=walk.blocks, value=end.value)


class _End(NamedTuple):
    """What a node leaves to the one after it: its value, the next free level, and whether it holds any task."""

    value: Source | None
    sequence: int
    holds_tasks: bool


class _Walk:
    """Collects leaves and blocks; one method per canvas type, each returns what the next step waits for."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        self.new_id = new_id
        self.leaves: list[Leaf] = []
        self.blocks: list[Block] = []

    def node(self, part: Part, start: _Start) -> _End:
        signature, path, given = part
        match signature:
            case _chain():
                return self.chain(self.new_id(), chain_parts(*part), start)
            case _chord():
                takes = None if signature.immutable else start.takes
                return self.chain(self.new_id(), chord_parts(*part), start._replace(takes=takes))
            case group():
                return self.group(signature.tasks, path, to_members(*part), start)
            case _ if signature["task"] == "celery.chunks":  # not its class: Celery's copies of it are plain signatures
                given = to_members(*part)
                return self.group(chunks(**signature.kwargs).group().tasks, path, given, start)
            case _:
                return self.leaf(given.to(signature), path, start)

    def leaf(self, signature: Signature, path: str, start: _Start) -> _End:
        options = signature["options"]
        assert start.place is not None  # noqa: S101  a leaf always stands in a block, at least in the root
        leaf = Leaf(
            id=options.get("task_id") or self.new_id(),
            task=signature["task"],
            args=signature["args"],
            kwargs=signature["kwargs"],
            options=options,
            path=path,
            sequence=start.sequence,
            place=start.place,
            opens=start.opens,
            takes=None if signature.get("immutable") else start.takes,
            yields=start.yields,
        )
        self.leaves.append(leaf)
        return _End(value=Source(task=leaf.id), sequence=start.sequence + 1, holds_tasks=True)

    def chain(self, block_id: str, parts: Sequence[Part], start: _Start) -> _End:
        """Children one after another; only the last one's value leaves the chain."""
        position, takes, sequence = 0, start.takes, start.sequence
        for index, part in enumerate(parts):
            place = Place(block_id, position)
            child = _Start(
                place=place,
                opens=start.opens if position == 0 else place,
                takes=takes,
                yields=start.yields if index == len(parts) - 1 else None,
                sequence=sequence,
            )
            end = self.node(part, child)
            position += end.holds_tasks
            takes, sequence = end.value, end.sequence
        self.blocks.append(Block(id=block_id, kind=BlockKind.CHAIN, place=start.place, size=position, yields=None))
        return _End(value=takes, sequence=sequence, holds_tasks=position > 0)

    def group(self, tasks: Iterable[Any], path: str, given: Given, start: _Start) -> _End:
        """Children side by side, each with the group's own input; the value is the list of theirs."""
        block_id, size, sequence = self.new_id(), 0, start.sequence
        for index, task in enumerate(tasks):
            child_path = f"{path}.tasks[{index}]"
            child = _Start(
                place=Place(block_id, size),
                opens=start.opens,
                takes=start.takes,
                yields=Place(block_id, index),
                sequence=start.sequence,
            )
            end = self.node(Part(as_signature(task, child_path), child_path, given), child)
            size += end.holds_tasks
            sequence = max(sequence, end.sequence)
        self.blocks.append(Block(id=block_id, kind=BlockKind.GROUP, place=start.place, size=size, yields=start.yields))
        return _End(value=Source(group=block_id), sequence=sequence, holds_tasks=size > 0)
