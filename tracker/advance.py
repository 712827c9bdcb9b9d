"""What is ready now: how the end of tasks moves a plan on, and how the counts of its tasks move a job on.

Pure: values in, values out. Ending a task costs as many steps as the plan is deep.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from jobrunner.plan import BlockKind, Place
from jobrunner.records import Block
from jobrunner.states import ENDED_JOB, OPEN_TASK, WELL, FailureReason, JobState, TaskState


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
    for place in ended_well:
        here: Place | None = place
        while here is not None:
            known = changed.get(here.block) or blocks[here.block]
            block = changed[here.block] = replace(known, remaining=known.remaining - 1)
            if block.remaining == 0:
                here = _around(block)
                continue
            if block.kind == BlockKind.CHAIN and block.remaining == block.size - here.position - 1:
                opened.append(Place(block.id, here.position + 1))
            elif block.kind == BlockKind.CHAIN:
                resumed.append(block.id)
            here = None
    return Advance(changed=changed, opened=tuple(opened), resumed=tuple(resumed))


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
    observed: bool = False,
) -> Verdict:
    """Return the next state of a job from its present one and its tasks counted by state.

    Of these, `discovering` tasks are at discovering work, and `discovered` have tried to. One legal move at a time: ask
    again until nothing changes. Independent branches go on after a failure; the job ends when nothing of it can run any
    more. If it is only `observed`, nobody knows whether it has ended: a task that becomes known later makes it active
    again.
    """
    if state in ENDED_JOB:
        grown = observed and judge(JobState.ACTIVE, counts).state is not state
        return Verdict(state=JobState.ACTIVE if grown else state)
    unopened = counts[TaskState.PENDING]
    if sum(counts[one] for one in OPEN_TASK):
        started = sum(counts.values()) - unopened - counts[TaskState.READY] - counts[TaskState.QUEUED]
        return Verdict(state=_going_on(state, started, discovering, discovered))
    if not unopened and sum(counts[one] for one in WELL) == sum(counts.values()):
        return Verdict(state=JobState.COMPLETED)
    if counts[TaskState.FAILED]:
        return Verdict(state=JobState.FAILED, reason=FailureReason.TASK)
    if counts[TaskState.CANCELED]:
        return Verdict(state=JobState.CANCELED if state is JobState.ACTIVE else JobState.ACTIVE)
    return Verdict(state=state)


def _going_on(state: JobState, started: int, discovering: int, discovered: int) -> JobState:
    """Return the state of a job with open tasks: while only discovery has started, it is under construction (N1)."""
    if state is JobState.ACTIVE or started > discovering + discovered:
        return JobState.ACTIVE
    if discovering:
        return JobState.UNDER_CONSTRUCTION
    return JobState.QUEUED if discovered else state
