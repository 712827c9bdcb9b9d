"""`submit(…, barrier=True)` (A8): no task starts before every task of its job with a lower sequence has ended well.

Pure: a plan in, a plan out. A barrier changes when tasks start and nothing else, so ids, order, what a task takes and
what its value fills stay; `place` and `opens` are new. The root chain holds one group per sequence, its *level*, and
every task stands in that of its own:

    chain(group(a | b, c | d), e)   becomes   root: [level 0: a, c]  [level 1: b, d]  [level 2: e]

So `advance` does as ever: the last task of a level to end well opens the next position of the root chain, and a failed
one never lets its level end.

Whoever adds a task of sequence n to such a job gives it `place=Place(level_block(job_id, n), …)` and
`opens=Place(job_id, n)`, one more for that block's `size` and `remaining`, and the root one more if the block is new.
"""

import uuid
from collections import Counter
from dataclasses import replace

from jobrunner.plan import Block, BlockKind, Leaf, Place, Plan


def level_block(job_id: str, level: int) -> str:
    """Return the id of the group that holds a job's tasks of this sequence: always the same, so never looked up."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{job_id}/level/{level}"))


def with_barrier(plan: Plan) -> Plan:
    """Return the plan in which every level waits for all of the one before it."""
    sizes: Counter[int] = Counter()
    leaves: list[Leaf] = []
    blocks: dict[int, str] = {}
    for leaf in plan.leaves:
        level = leaf.sequence
        block_id = blocks.get(level) or blocks.setdefault(level, level_block(plan.job_id, level))
        leaves.append(replace(leaf, place=Place(block_id, sizes[level]), opens=Place(plan.job_id, level)))
        sizes[level] += 1
    levels = [
        Block(id=blocks[level], kind=BlockKind.GROUP, place=Place(plan.job_id, level), size=sizes[level], yields=None)
        for level in sorted(sizes)
    ]
    root = Block(id=plan.job_id, kind=BlockKind.CHAIN, place=None, size=len(levels), yields=None)
    # The canvas's own groups remain for their lists of values: nothing ends in them any more.
    lists = [replace(block, place=None, size=0) for block in plan.blocks if block.kind is BlockKind.GROUP]
    return replace(plan, leaves=leaves, blocks=[*lists, *levels, root])
