"""What is ready now: how the end of tasks moves a plan on, and how the counts of its tasks move a job on.

Pure: values in, values out. Ending a task costs as many steps as the plan is deep.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from jobrunner.order_kinds import Intent
from jobrunner.plan import BlockKind, Place
from jobrunner.records import Block
from jobrunner.states import ENDED_JOB, JOB_MOVES, OPEN_TASK, WELL, FailureReason, JobState, TaskState

#: States that end when what was ordered is done, whatever the tasks say.
ORDERED_JOB = frozenset({JobState.CANCEL_REQUESTED, JobState.REQUEUEING})
_HELD = frozenset({JobState.PAUSING, JobState.PAUSED})
_UNSTARTED = frozenset({TaskState.PENDING, TaskState.READY, TaskState.QUEUED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """Blocks whose count changed, and the places that open: the tasks that wait for these become ready.

    In the chains of `resumed` something has ended well once more: there the first child opens that has not.
    """

    changed: Mapping[str, Block]
    opened: tuple[Place, ...]
    resumed: tuple[str, ...]


def advance(ended_well: Iterable[Place], blocks: Mapping[str, Block]) -> Advance:
    """Move a plan on after tasks at these places ended well; `blocks` holds their blocks and all around them."""
    changed: dict[str, Block] = {}
    opened, resumed = [], []
    ended: Mapping[str, list[int]] = _by_block(ended_well)
    while ended:  # block by block: of a wide group very many may have ended at once
        around: list[Place] = []
        for id_, positions in ended.items():
            known = changed.get(id_) or blocks[id_]
            block = changed[id_] = replace(known, remaining=known.remaining - len(positions))
            last = max(positions)
            if block.remaining == 0:
                around += [one for one in (_around(block),) if one is not None]
            elif block.kind == BlockKind.CHAIN and block.remaining == block.size - last - 1:
                opened.append(Place(id_, last + 1))
            elif block.kind == BlockKind.CHAIN:
                resumed.append(id_)
        ended = _by_block(around)
    # In a block that has ended all the same nothing is left to open: of what was skipped there may be very many.
    left = {id_ for id_, block in changed.items() if block.remaining}
    return Advance(
        changed=changed,
        opened=tuple(place for place in opened if place.block in left),
        resumed=tuple(id_ for id_ in resumed if id_ in left),
    )


def retreat(run_again: Iterable[Place], blocks: Mapping[str, Block]) -> Mapping[str, Block]:
    """Return the blocks whose count changes when tasks at these places, which had ended well, run again.

    What has ended well around and behind them stays so; `blocks` as for `advance`.
    """
    changed: dict[str, Block] = {}
    for place in run_again:
        here: Place | None = place
        while here is not None:
            known = changed.get(here.block) or blocks[here.block]
            block = changed[here.block] = replace(known, remaining=known.remaining + 1)
            here = _around(block) if known.remaining == 0 else None
    return changed


def _by_block(places: Iterable[Place]) -> Mapping[str, list[int]]:
    """Return the positions by the block that they are in."""
    positions: defaultdict[str, list[int]] = defaultdict(list)
    for place in places:
        positions[place.block].append(place.position)
    return positions


def _around(block: Block) -> Place | None:
    return None if block.parent_id is None else Place(block.parent_id, block.position)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The state that a job moves to next, and why if it failed."""

    state: JobState
    reason: FailureReason | None = None


def judge(
    state: JobState,
    counts: Mapping[TaskState, int],
    *,
    discovering: int = 0,
    discovered: int = 0,
    kept: int = 0,
    intent: str | None = None,
    observed: bool = False,
    unmet: int = 0,
    tolerates: bool = False,
) -> Verdict:
    """Return the next state of a job from its present one and its tasks counted by state.

    Of these, `discovering` tasks are at discovering work, `discovered` have tried to, and `kept` others had ended
    before this run of the job. One legal move at a time: ask again until nothing changes. Independent branches go on
    after a failure; the job ends when nothing of it can run any more, whatever the operator's `intent`. If it is only
    `observed`, nobody knows whether it has ended: a task that becomes known later makes it active again. As long as it
    waits for `unmet` other jobs, it is judged by nothing else. A task that ended partial fails it in the end, unless it
    `tolerates` that.
    """
    if state in ORDERED_JOB or (state is JobState.CANCELED and intent == Intent.CANCEL):
        return Verdict(state=state)
    if state in ENDED_JOB:
        grown = observed and judge(JobState.ACTIVE, counts, tolerates=tolerates).state is not state
        return Verdict(state=JobState.ACTIVE if grown else state)
    if unmet:
        return Verdict(state=JobState.PAUSED if intent == Intent.PAUSE else JobState.WAITING)
    if not sum(counts[one] for one in OPEN_TASK):
        return _at_end(state, counts, tolerates=tolerates)
    if intent == Intent.PAUSE:
        return Verdict(state=_held(state, counts[TaskState.ACTIVE]))
    started = sum(number for one, number in counts.items() if one not in _UNSTARTED) - kept
    return Verdict(state=_going_on(state, started, discovering, discovered))


def _at_end(state: JobState, counts: Mapping[TaskState, int], *, tolerates: bool) -> Verdict:
    """Return the next state of a job of which nothing can happen any more."""
    well = sum(counts[one] for one in WELL) == sum(counts.values())
    if counts[TaskState.FAILED]:
        return Verdict(state=JobState.FAILED, reason=FailureReason.TASK)
    if counts[TaskState.PARTIAL] and not tolerates and (well or counts[TaskState.CANCELED]):
        return Verdict(state=JobState.FAILED, reason=FailureReason.PARTIAL)
    if well:
        return Verdict(state=JobState.COMPLETED)
    if counts[TaskState.CANCELED]:
        return Verdict(state=JobState.CANCELED if JobState.CANCELED in JOB_MOVES[state] else JobState.ACTIVE)
    return Verdict(state=state)


def _held(state: JobState, active: int) -> JobState:
    """Return the state of a job that is to be paused; that it is, workers have to say."""
    if state is JobState.WAITING or (state is JobState.PAUSED and not active):
        return JobState.PAUSED
    return JobState.PAUSING


def _going_on(state: JobState, started: int, discovering: int, discovered: int) -> JobState:
    """Return the state of a job with open tasks: while only discovery has started, it is under construction (N1)."""
    if state is JobState.ACTIVE or started > discovering + discovered:
        return JobState.ACTIVE
    if discovering and state is not JobState.PAUSING:
        return JobState.UNDER_CONSTRUCTION
    return JobState.QUEUED if discovered or state in _HELD else state
