"""What `submit` would make of a canvas: the tree of its tasks, folded, and what would be refused. Writes nothing.

Neither a database nor a broker is asked, so whether a key or an id is taken stays open.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from celery import Celery

from jobrunner import ids
from jobrunner.envelope import Envelopes
from jobrunner.errors import InvalidCanvasError
from jobrunner.message import check_task, message_of
from jobrunner.plan import Block, Leaf, Plan, from_canvas
from jobrunner.submit import ids_chosen, taken

#: Children of a block that are alike and shown; the others are only counted.
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A task, or a chain or group with its children; `more` after them stands for a number of nodes like the last.

    A `task` has its name and sequence; `number` counts the children of a block before any are folded.
    """

    kind: str
    name: str = ""
    sequence: int = 0
    number: int = 1
    children: Sequence["Node"] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What would be submitted; without a tree where the canvas has none, and `refused` then says why."""

    tree: Node | None
    #: Tasks by sequence, and by name.
    levels: Sequence[int]
    names: Counter[str]
    refused: Sequence[InvalidCanvasError]

    @property
    def total(self) -> int:
        """The number of tasks."""
        return sum(self.levels)


def preview(app: Celery, canvas: object) -> Preview:
    """Walk a canvas as `submit` does, and go on where a task of it would be refused.

    A canvas that is no tree is refused by its first fault, because nothing is known of what is behind it.
    """
    try:
        plan = from_canvas(canvas, new_id=ids.uuid7)
    except InvalidCanvasError as error:
        return Preview(tree=None, levels=(), names=Counter(), refused=[error])
    levels = Counter(leaf.sequence for leaf in plan.leaves)
    return Preview(
        tree=_tree(plan),
        levels=[levels[level] for level in sorted(levels)],
        names=Counter(leaf.task for leaf in plan.leaves),
        refused=list(_refusals(app, plan)),
    )


def _refusals(app: Celery, plan: Plan) -> Iterator[InvalidCanvasError]:
    try:
        ids_chosen(plan)
    except InvalidCanvasError as error:
        yield error
    envelopes, needed = Envelopes(app), taken(plan)
    for leaf in plan.leaves:
        try:
            message_of(envelopes, check_task(app, leaf), leaf, is_taken=leaf.id in needed)
        except InvalidCanvasError as error:
            yield error


def _tree(plan: Plan) -> Node:
    """Return the canvas as a tree; the root chain is left out if the canvas is its only child."""
    inside: defaultdict[str, list[Leaf | Block]] = defaultdict(list)
    nodes: list[Leaf | Block] = [*plan.leaves, *plan.blocks]
    for one in nodes:
        if one.place is not None:
            inside[one.place.block].append(one)
    (root,) = (block for block in plan.blocks if block.place is None)
    node, _ = _Outline(inside).node(root)
    return node.children[0] if node.number == 1 else node


class _Outline:
    """Makes nodes, each with a number that is the same for all that look alike: equal trees of equal task names."""

    def __init__(self, inside: dict[str, list[Leaf | Block]]) -> None:
        self._inside = inside
        self._looks: dict[tuple[object, ...], int] = {}

    def node(self, one: Leaf | Block) -> tuple[Node, int]:
        if isinstance(one, Leaf):
            return Node(kind="task", name=one.task, sequence=one.sequence), self._look("task", one.task)
        # A block without tasks has the position of the one after it.
        inner = sorted(self._inside[one.id], key=lambda child: child.place.position if child.place else 0)
        made = [self.node(child) for child in inner]
        children: list[Node] = []
        for _, alike in groupby(made, key=lambda each: each[1]):
            nodes = [node for node, _ in alike]
            shown = len(nodes) if len(nodes) <= _SHOWN + 1 else _SHOWN  # one more takes no more room than its count
            children += nodes[:shown]
            if len(nodes) > shown:
                children.append(Node(kind="more", number=len(nodes) - shown))
        node = Node(kind=one.kind, number=len(made), children=children)
        return node, self._look(one.kind, *(look for _, look in made))

    def _look(self, *parts: object) -> int:
        return self._looks.setdefault(parts, len(self._looks))
