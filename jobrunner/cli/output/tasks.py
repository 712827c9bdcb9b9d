"""How tasks look: a table of them, what they have reported, and JSON for programs."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from jobrunner.cli.output.tables import UNKNOWN, new_table, state_text
from jobrunner.states import ENDED_TASK, WELL, TaskState, success
from jobrunner.store.attempts import AttemptView
from jobrunner.store.reading import TaskView
from jobrunner.text import SENTENCE, one_line

#: States of a task that is at nothing: what an attempt before has reported is past.
_BEFORE = frozenset({TaskState.PENDING, TaskState.READY, TaskState.QUEUED})
#: Creators above a task that are shown by how far it is set in.
_DEEPEST = 8


def tasks_table(views: Sequence[TaskView]) -> Table:
    """Return tasks as a table; what a task has created stands below it."""
    table = new_table("TASK", "SEQ", "NAME", "STATE", "TRIES", "RUNTIME", "NOTE")
    for depth, view in _below_creators(views):
        tries = "" if view.retries is None else str(view.retries + 1)
        runtime = "" if view.runtime is None else f"{view.runtime:.3f} s"
        table.add_row(
            view.id,
            str(view.sequence),
            _branch(depth) + (view.name or UNKNOWN),
            state_text(view.state).append(f" ({view.reason})" if view.reason else ""),
            tries,
            runtime,
            one_line(view.note or view.result or ("" if view.state in WELL | _BEFORE else reported(view)), SENTENCE),
        )
    return table


def reported(view: TaskView | AttemptView) -> str:
    """Say how far a task has said that it is, and what it has said about it."""
    if view.progress is None:
        return ""
    percent = 100 if view.progress == 1.0 else min(round(100 * view.progress), 99)
    return f"{percent}%" + (f": {view.said}" if view.said else "")


def _below_creators(views: Sequence[TaskView]) -> Iterator[tuple[int, TaskView]]:
    """Yield tasks in their order, each followed by what it has created, with the number of creators above it."""
    shown = {view.id for view in views}
    created: dict[str | None, list[TaskView]] = defaultdict(list)
    for view in views:
        created[view.created_by if view.created_by in shown else None].append(view)
    waiting = [(0, view) for view in reversed(created.pop(None, []))]
    while waiting:
        depth, view = waiting.pop()
        yield depth, view
        waiting += [(depth + 1, one) for one in reversed(created.pop(view.id, []))]
    yield from ((0, view) for left in created.values() for view in left)  # who has created whom goes round in a circle


def _branch(depth: int) -> str:
    return "  " * (min(depth, _DEEPEST) - 1) + "└ " if depth else ""


def task_json(view: TaskView, parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a task as JSON-friendly values; `parameters`, `success` and `progress` are Arvados's.

    The last is 1.0 when the task has ended well, and else what its attempt has reported; of one that has reported
    nothing it is 0.0 before the end, and unknown after it.
    """
    unreported = None if view.state in ENDED_TASK else 0.0
    known = None if view.state in _BEFORE else view.progress
    progress = 1.0 if view.state in WELL else unreported if known is None else known
    return dataclasses.asdict(view) | {
        "parameters": parameters,
        "success": success(view.state),
        "progress": progress,
    }
