"""Failures and what comes after them in the plan: tasks that can never run say so at once, and why (C5).

Where failures propagate, they have `failed (upstream)`. Else they stay pending, and their note names what blocks them;
they are canceled when their job ends. Either way the reason `upstream` marks them, so that they are found again when
the failure is corrected, accepted or requeued.

What comes after a task is found by what tasks wait for, a few statements for each level of nested chains, however many
tasks failed or wait.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from jobrunner.plan import BlockKind, Place
from jobrunner.records import Block, Task
from jobrunner.states import ENDED_JOB, CancelReason, TaskState
from jobrunner.store import tracking
from jobrunner.store.tracking.upstream import BLOCKED_BY, CANCELED_BEFORE, InVain, Waiting, failed_before
from tracker.rebuild import chains_around
from tracker.settle import Changes

if TYPE_CHECKING:
    from sqlalchemy import Connection


@dataclass(slots=True)
class Failures:
    """What has happened since plans moved on last: tasks that failed, and jobs in which to look at all failures."""

    _failed: dict[str, Task] = field(default_factory=dict)
    #: Jobs with a failure less than before, or with tasks that were reset.
    _fewer: set[str] = field(default_factory=set)
    #: Jobs with tasks more than before, maybe after a failure.
    _grown: set[str] = field(default_factory=set)

    def note(self, task: Task, state: TaskState) -> None:
        """Note that a task moves."""
        if not task.block_id or task.state is state:
            return
        if state is TaskState.FAILED:
            self._failed[task.id] = task
        elif task.state is TaskState.FAILED:
            self._fewer.add(task.job_id)

    def note_waiting(self, job_ids: Iterable[str]) -> None:
        """Note jobs in which tasks wait again."""
        self._fewer.update(job_ids)

    def note_grown(self, job_ids: Iterable[str]) -> None:
        """Note jobs that tasks have joined."""
        self._grown.update(job_ids)

    def lift(self, connection: "Connection", changes: Changes) -> None:
        """Let what waits in vain wait again, in jobs with fewer failures; before plans open what follows."""
        for job_id in self._fewer:
            for discovers, number in tracking.unmark_upstream(connection, job_id):
                changes.move_many(job_id, TaskState.FAILED, TaskState.PENDING, number, discovers=discovers)

    def mark(self, connection: "Connection", changes: Changes, now: datetime, *, propagates: bool) -> None:
        """Mark what can never run; `propagates` holds for jobs that do not say so themselves."""
        failed = {one.id: one for one in self._failed.values() if one.state is TaskState.FAILED}
        failed |= {one.id: one for one in tracking.own_failures(connection, self._fewer | self._grown)}
        if failed:
            self._mark(connection, changes, now, failed.values(), propagates=propagates)
        for job in tracking.jobs_by_id(connection, self._fewer).values():
            if job.state in ENDED_JOB and job.id not in changes.revived:
                number = tracking.cancel_pending(connection, job.id, CancelReason.UPSTREAM, CANCELED_BEFORE, now)
                changes.move(job.id, TaskState.PENDING, TaskState.CANCELED, number)
        for noted in (self._failed, self._fewer, self._grown):
            noted.clear()

    def _mark(
        self,
        connection: "Connection",
        changes: Changes,
        now: datetime,
        failed: Collection[Task],
        *,
        propagates: bool,
    ) -> None:
        behind = _behind(connection, failed)
        if not behind:
            return
        jobs = tracking.jobs_by_id(connection, {one.job_id for one, _ in behind})
        fail = {one.id: propagates if one.propagate is None else one.propagate for one in jobs.values()}
        names = tracking.names_of(connection, {cause for _, cause in behind})
        in_vain = [
            InVain(one.id, TaskState.FAILED, failed_before(names[cause], cause))
            if fail[one.job_id]
            else InVain(one.id, TaskState.PENDING, f"{BLOCKED_BY}{names[cause]} [{cause}]")
            for one, cause in behind
        ]
        tracking.mark_upstream(connection, in_vain, now)
        failed_so = Counter((one.job_id, one.discovers) for one, _ in behind if fail[one.job_id])
        for (job_id, discovers), number in failed_so.items():
            changes.move_many(job_id, TaskState.PENDING, TaskState.FAILED, number, discovers=discovers)


@dataclass(frozen=True, slots=True)
class _After:
    """What comes after a position of a chain waits in vain for this failed task."""

    position: int
    cause: str


def _behind(connection: "Connection", failed: Collection[Task]) -> list[tuple[Waiting, str]]:
    """Return the pending tasks after failed ones, each with the one of those that it names."""
    chains = _chains_of(connection, failed)
    found: list[tuple[Waiting, str]] = []
    while chains:
        here = [
            (one, chains[one.opens_block].cause)
            for one in tracking.waiting_for(connection, chains)
            if one.opens_at > chains[one.opens_block].position
        ]
        found += here
        blocks = tracking.blocks_upward(connection, {one.block_id for one, _ in here})
        chains = _inner_chains(blocks, {(one.block_id, one.opens_block): cause for one, cause in here})
    return found


def _chains_of(connection: "Connection", failed: Collection[Task]) -> dict[str, _After]:
    blocks = tracking.blocks_upward(connection, {one.block_id for one in failed})
    chains: dict[str, _After] = {}
    for one in failed:
        for place in chains_around(blocks, Place(one.block_id, one.position)):
            known = chains.get(place.block)
            if known is None or place.position < known.position:
                chains[place.block] = _After(place.position, one.id)
    return chains


def _inner_chains(blocks: Mapping[str, Block], causes: Mapping[tuple[str, str], str]) -> dict[str, _After]:
    """Return the chains between where tasks stand and the chain that is to open them: all of these wait as well."""
    chains: dict[str, _After] = {}
    for (block_id, opens_block), cause in causes.items():
        here: str | None = block_id
        while here is not None and here != opens_block and here not in chains:
            if blocks[here].kind == BlockKind.CHAIN:
                chains[here] = _After(0, cause)
            here = blocks[here].parent_id
    return chains
