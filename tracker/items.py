"""Requeue of failed items: which tasks run again with only those, and which cannot (N2 Error).

Nothing that was done may be forgotten. What comes after such a task takes what came of its failed items alone, so it
must have ended well with what came of the others.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from jobrunner.errors import RefusedError
from jobrunner.order_records import Requeue
from jobrunner.plan import Place
from jobrunner.records import Block, Job, Letter, Unprocessed
from jobrunner.statements import ItemCounts, Statement
from jobrunner.states import TaskState
from jobrunner.store import tracking
from jobrunner.store.database import Database
from jobrunner.text import SENTENCE, bounded
from tracker.rebuild import chains_around
from tracker.requeue import begin_requeue
from tracker.settle import Cause
from tracker.turn import Turn

#: Tasks that an answer names, and the history.
_NAMED: Final = 3
_TOLD: Final = 100
_WHOLE: Final = "Requeue it without --items."
_BEHIND: Final = "Let these end well first, or requeue it without --items."


def requeue_items(turn: Turn, job: Job, cause: Cause, task_id: str | None = None) -> None:
    """Let tasks of a job, or one of them, run again with only the items that failed, and then all behind them.

    Raises:
        RefusedError: there is none that can.
    """
    again, left, behind = _chosen(turn, job, task_id)
    what = Requeue(
        tasks=tuple(one.id for one in again),
        items=tuple((one.id, one.delivery) for one in again),
        besides=f"Not with its items alone: {_listed(left)}" if left else "",
    )
    begin_requeue(turn, job, what.with_behind(behind), cause)
    for one in again[:_TOLD]:
        items = "the item" if one.kept == 1 else f"its {one.kept:,} items"
        line = bounded(f"{one.name} [{one.id}] runs again with only {items} that failed", SENTENCE)
        turn.tell(job.id, line, cause, task_id=one.id)
    if len(again) > _TOLD:
        turn.tell(job.id, f"{len(again) - _TOLD:,} more tasks run again with only the items that failed", cause)


def _chosen(turn: Turn, job: Job, task_id: str | None) -> tuple[list[Unprocessed], list[str], set[tuple[str, int]]]:
    """Return the tasks that can, why others cannot, and the places of chains behind which all runs again."""
    found = tracking.unprocessed(turn.connection, job.id, task_id)
    if not found:
        raise RefusedError(_why_none(job, task_id), _WHOLE)
    blocks = tracking.blocks_of(turn.connection, job.id)
    last = last_places(blocks, tracking.last_unwell(turn.connection, job.id))
    grown = tracking.grown_tasks(turn.connection, job.id)
    again: list[Unprocessed] = []
    left: list[str] = []
    for one in found:
        why_not = obstacle(one, grew=one.id in grown) or _unfinished_behind(one, blocks, last)
        if why_not is None:
            again.append(one)
        else:
            left.append(f"{one.name} [{one.id}] {why_not}")
    if not again:
        raise RefusedError(_listed(left))
    return again, left, {(place.block, place.position) for one in again for place in _around(one, blocks)}


def _why_none(job: Job, task_id: str | None) -> str:
    if task_id is not None:
        return f"Task {task_id} has not ended partial."
    if job.counts[TaskState.PARTIAL]:
        return f"What has ended partial in job {job.id} was sent by other tasks, and only those can send it again."
    return f"Job {job.id} has no task that has ended partial."


def items_of(database: Database, letter: Letter) -> str:
    """Return as JSON the list of items that alone a task is to process.

    Raises:
        LookupError: they are gone.
        UnreachableError: the database is away.
    """
    with database.read() as connection:
        items = tracking.failed_items(connection, letter.task_id, letter.only_items or 0)
    known = [one for one in items if one is not None]
    if not known or len(known) < len(items):
        msg = f"the items that failed in delivery {letter.only_items} are gone"
        raise LookupError(msg)
    return f"[{', '.join(known)}]"


# ---- which tasks can ---------------------------------------------------------------------------------------


def obstacle(one: Unprocessed, *, grew: bool) -> str | None:
    """Return why a task cannot run with only its failed items, and what to do, for people; None if it can."""
    named, all_ = _numbers(one)
    if not named:
        return f"has named no items that failed. {_WHOLE}"
    if one.kept < all_:
        return f"has {all_:,} items that were not processed, and only {one.kept:,} are known. {_WHOLE}"
    if one.usable < named:
        return f"has failed items that are too long or no JSON ({named - one.usable:,} of {named:,}). {_WHOLE}"
    if one.takes_nothing:
        return f"takes no argument in whose place they could be. {_WHOLE}"
    if grew:
        return f"has added tasks to the job, which would be removed. {_WHOLE}"
    return None


def _numbers(one: Unprocessed) -> tuple[int, int]:
    """Return how many items the body has named, and how many have failed or were not reached."""
    statement = Statement() if one.statement is None else Statement.loads(one.statement)
    counts = statement.counts or ItemCounts()
    return statement.errors, max(statement.errors, counts.failed + counts.aborted)


def last_places(blocks: Mapping[str, Block], unwell: Iterable[Place]) -> dict[str, int]:
    """Return of each chain the last position that is, or holds, one of these places."""
    last: dict[str, int] = {}
    for here in unwell:
        for place in chains_around(blocks, here):
            last[place.block] = max(place.position, last.get(place.block, 0))
    return last


def _unfinished_behind(one: Unprocessed, blocks: Mapping[str, Block], last: Mapping[str, int]) -> str | None:
    """Return why what comes after a task keeps it from running with only its failed items.

    One that ran so and has not ended well is no partial task any more: all after it waits for it since.
    """
    waits = one.state is TaskState.PARTIAL and any(
        last.get(place.block, 0) > place.position for place in _around(one, blocks)
    )
    return f"comes before tasks that have not ended well with its other items. {_BEHIND}" if waits else None


def _around(one: Unprocessed, blocks: Mapping[str, Block]) -> list[Place]:
    return list(chains_around(blocks, Place(one.block_id, one.position)))


def _listed(lines: list[str]) -> str:
    more = f" … and {len(lines) - _NAMED:,} more." if len(lines) > _NAMED else ""
    return bounded(" ".join(lines[:_NAMED]) + more, SENTENCE)
