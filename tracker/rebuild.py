"""Count a plan anew: which blocks have how much left, what is open, and what had run too early.

Pure. Ending a task moves a few counters (`tracker.advance`); after a requeue, which touches any number of tasks, all of
them follow from the rows.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from jobrunner.plan import BlockKind, Place
from jobrunner.records import Block, Children

_NONE = Children(tasks=0, unfinished=0, first_unfinished=None, last_well=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """Blocks whose count changes, and the places whose tasks may run.

    `unfinished` is of every chain the first place that has not ended well. `stranded` are those of them behind which
    something has ended well all the same: what that took is not what it would take now.
    """

    changed: tuple[Block, ...]
    unfinished: tuple[Place, ...]
    opened: tuple[Place, ...]
    stranded: tuple[Place, ...]


@dataclass(slots=True)
class _Count:
    """What is known of a block once all inside of it is counted."""

    remaining: int
    first: int | None
    last_well: int | None


def rebuild(root: str, blocks: Mapping[str, Block], tasks: Mapping[str, Children]) -> Rebuilt:
    """Count the plan below the block `root`; `tasks` has what is in each block directly, of those that hold any."""
    inner: defaultdict[str | None, list[Block]] = defaultdict(list)
    for one in blocks.values():
        inner[one.parent_id].append(one)
    order = list(_downward(root, inner))
    counts: dict[str, _Count] = {}
    for block_id in reversed(order):
        counts[block_id] = _count(tasks.get(block_id, _NONE), inner[block_id], counts)
    return Rebuilt(
        changed=tuple(
            replace(blocks[id_], remaining=one.remaining)
            for id_, one in counts.items()
            if one.remaining != blocks[id_].remaining
        ),
        unfinished=tuple(Place(id_, one.first) for id_, one in counts.items() if one.first is not None),
        opened=tuple(_opened(root, blocks, inner, counts)),
        stranded=tuple(
            Place(id_, one.first)
            for id_, one in counts.items()
            if blocks[id_].kind == BlockKind.CHAIN
            and one.first is not None
            and one.last_well is not None
            and one.last_well > one.first
        ),
    )


def chains_around(blocks: Mapping[str, Block], here: Place) -> Iterator[Place]:
    """Yield the places of all chains around a place, from the inside."""
    around: Place | None = here
    while around is not None and around.block in blocks:
        block = blocks[around.block]
        if block.kind == BlockKind.CHAIN:
            yield around
        around = None if block.parent_id is None else Place(block.parent_id, block.position)


def _downward(root: str, inner: Mapping[str | None, list[Block]]) -> Iterator[str]:
    """Yield a block and all in it, each after the one around it."""
    waiting = [root]
    while waiting:
        here = waiting.pop()
        yield here
        waiting += [one.id for one in inner.get(here, ())]


def _count(tasks: Children, inside: list[Block], counts: Mapping[str, _Count]) -> _Count:
    unfinished = [one.position for one in inside if counts[one.id].remaining]
    well = [one.position for one in inside if counts[one.id].last_well is not None]
    firsts = unfinished if tasks.first_unfinished is None else [*unfinished, tasks.first_unfinished]
    lasts = well if tasks.last_well is None else [*well, tasks.last_well]
    return _Count(
        remaining=tasks.unfinished + len(unfinished),
        first=min(firsts, default=None),
        last_well=max(lasts, default=None),
    )


def _opened(
    root: str, blocks: Mapping[str, Block], inner: Mapping[str | None, list[Block]], counts: Mapping[str, _Count]
) -> Iterator[Place]:
    waiting = [root]
    while waiting:
        here = waiting.pop()
        first = counts[here].first
        if first is None:
            continue
        is_chain = blocks[here].kind == BlockKind.CHAIN
        if is_chain:
            yield Place(here, first)
        waiting += [
            one.id for one in inner[here] if counts[one.id].remaining and (not is_chain or one.position == first)
        ]
