"""How jobs, tasks, workers and settings look: tables and lines for people, JSON for programs."""

import dataclasses
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobrunner.handle import Progress
from jobrunner.records import HistoryLine
from jobrunner.statements import ItemCounts
from jobrunner.states import ENDED_TASK, WELL, FailureRule, JobOutcome, JobState, PartialRule, TaskState, success
from jobrunner.store.attempts import AttemptView
from jobrunner.store.leases import TrackerStatus
from jobrunner.store.reading import JobView, TaskView, WorkerBlockView, WorkerView
from jobrunner.text import SENTENCE, one_line

_COLORS = {"completed": "green", "failed": "red", "canceled": "yellow", "partial": "yellow", "active": "cyan",
           "soft-failed": "magenta",
           "online": "green", "lost": "red"}  # fmt: skip
#: What `observed` and `lossy` mean, for people.
OBSERVED = "a plain Celery canvas, known by the events of its tasks: jobrunner follows it, and can cancel it"
LOSSY = "a worker without jobrunner: what it tells while no tracker listens is lost"
#: Columns that go on in the next line where a terminal is narrow.
_FOLDED = frozenset({"NOTE", "VALUE", "ORIGIN", "WHAT", "WAITS", "ERROR", "WORKERS"})
#: States of a task that is at nothing: what an attempt before has reported is past.
_BEFORE = frozenset({TaskState.PENDING, TaskState.READY, TaskState.QUEUED})
#: In the place of a name that was not told yet.
UNKNOWN = "?"
#: Creators above a task that are shown by how far it is set in.
_DEEPEST = 8
#: Columns of a table that goes to a file or a pipe, which has no width.
_WIDE = 1_000


def console(*, stderr: bool = False) -> Console:
    """Return a console that neither guesses at words nor wraps what goes into a pipe."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, highlight=False, markup=False, width=None if stream.isatty() else _WIDE)


def state_text(state: str) -> Text:
    """Return a state in its colour."""
    return Text(state, style=_COLORS.get(state, ""))


def _with(state: Text, word: str, holds: bool) -> Text:
    return state.append(f", {word}", style="dim") if holds else state


def print_json(value: Any) -> None:
    """Print a value as JSON, times as ISO 8601."""
    click.echo(
        json.dumps(value, indent=2, default=lambda one: one.isoformat() if isinstance(one, datetime) else str(one))
    )


def job_json(view: JobView) -> dict[str, Any]:
    """Return a job as JSON-friendly values; `share` and `growing` are those of its progress."""
    progress = Progress.of(view)
    return dataclasses.asdict(view) | {"share": progress.share, "growing": progress.growing}


def doubt(tracker: TrackerStatus | None, behind: float | None) -> str | None:
    """Say why what is shown may not be how things are: it is what a tracker has written down.

    `behind` is how many seconds old that may be, if it matters.
    """
    if tracker is None or not tracker.alive:
        ago = "" if behind is None else f" {_seconds(behind)} ago"
        return f"No tracker is running: this is what the last one knew{ago}."
    if tracker.trouble is not None:
        return f"The tracker waits: {tracker.trouble}."
    return None if behind is None else f"The tracker is {_late(behind)}."


def _late(behind: float) -> str:
    return f"{_seconds(behind)} behind: what happened since may not show yet"


def task_json(view: TaskView, parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a task as JSON-friendly values; `parameters`, `success` and `progress` are Arvados's.

    The latter is 1.0 when the task has ended well, and else what its attempt has reported; of one that has reported
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


def worker_json(view: WorkerView, blocks: Iterable[WorkerBlockView] = ()) -> dict[str, Any]:
    """Return a worker as JSON-friendly values, with what it is blocked for."""
    blocked = [dataclasses.asdict(one) for one in blocks if one.worker == view.name]
    return dataclasses.asdict(view) | {"blocked": blocked, "note": LOSSY if view.lossy else None}


def jobs_table(views: Iterable[JobView], waits: Mapping[str, str | None]) -> Table:
    """Return jobs as a table; `waits` says of some, by id, for what, in a column that is there only if it is needed."""
    table = new_table("JOB", "NAME", "STATE", "TASKS", "SUBMITTED", "TOOK", *(["WAITS"] if waits else []))
    for view in views:
        progress = Progress.of(view)
        table.add_row(
            view.id,
            view.name or UNKNOWN,
            _with(Text(state_line(view), style=_COLORS.get(view.state, "")), "observed", view.observed),
            f"{progress.done}/{_total(progress)}",
            _ago(view.submitted_at),
            _took(view),
            *([waits.get(view.id) or ""] if waits else []),
        )
    return table


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


def workers_table(views: Iterable[WorkerView]) -> Table:
    """Return workers as a table."""
    table = new_table("WORKER", "STATE", "PID", "SINCE", "HEARD", "ACTIVE", "RECEIVED", "LOST")
    for view in views:
        table.add_row(
            view.name,
            _with(state_text(view.state), "lossy", view.lossy),
            "" if view.pid is None else str(view.pid),
            stamp(view.online_at),
            _ago(view.seen_at),
            str(view.active),
            str(view.received),
            _lost(view),
        )
    return table


def worker_blocks_table(blocks: Iterable[WorkerBlockView]) -> Table:
    """Return which workers get no more tasks of which name, in which jobs, as a table."""
    table = new_table("BLOCKED", "FOR TASKS", "OF JOB", "NAME", "SINCE")
    for one in blocks:
        table.add_row(one.worker, one.task_name, one.job_id, one.job_name, stamp(one.blocked_at))
    return table


def _lost(view: WorkerView) -> str:
    """Say what of a worker's events is known to be lost; nothing if nothing is."""
    lost = {"event": view.events_dropped, "batch": view.batches_missed}
    plurals = {"event": "events", "batch": "batches"}
    return ", ".join(f"{number:,} {one if number == 1 else plurals[one]}" for one, number in lost.items() if number)


def origins_table(head: str, rows: Mapping[str, tuple[str | None, str]]) -> Table:
    """Return values with their origins as a table, by name."""
    table = new_table(head, "VALUE", "ORIGIN")
    for name, (value, origin) in rows.items():
        table.add_row(name, value or "", origin)
    return table


def job_lines(
    view: JobView,
    why: str | None,
    behind: float | None,
    history: Sequence[HistoryLine] = (),
    reports: Iterable[AttemptView] = (),
    *,
    items: ItemCounts | None = None,
) -> Iterator[str]:
    """Return a job as lines `name  value`; `behind` is how many seconds old that may be, if it matters."""
    yield f"job        {view.id}"
    yield f"name       {view.name or UNKNOWN}"
    if view.observed:
        yield f"observed   {OBSERVED}"
    if view.key:
        yield f"key        {view.key}"
    yield f"state      {state_line(view)}"
    if view.note:
        yield f"because    {view.note}"
    if why:
        yield f"waits      {why}"
    yield from _ordered_lines(view)
    if behind is not None:
        yield f"tracker    {_late(behind)}"
    yield from _work_lines(view, items, reports)
    yield f"submitted  {stamp(view.submitted_at)}"
    if view.started_at:
        yield f"started    {stamp(view.started_at)}"
    if view.ended_at:
        yield f"ended      {stamp(view.ended_at)}, after {_took(view)}"
    for line in history:
        yield f"history    {stamp(line.at)}  {line.line}"


def _work_lines(view: JobView, items: ItemCounts | None, reports: Iterable[AttemptView]) -> Iterator[str]:
    """Say how far the tasks of a job are, and their items."""
    counts = ", ".join(f"{number} {state}" for state, number in view.counts.items()) or "none"
    progress = Progress.of(view)
    yield f"tasks      {_total(progress)}: {counts}" + (", growing" if progress.growing else "")
    if items is not None:
        told = dataclasses.asdict(items)
        yield f"items      {', '.join(f'{name} {number:,}' for name, number in told.items())}"
    for one in reports:
        yield f"running    {one.name or UNKNOWN} [{one.task_id}] {reported(one)}"


def _ordered_lines(view: JobView) -> Iterator[str]:
    """Return what holds for a job and what operators want of it and have set, where that is not as usual."""
    if view.intent:
        yield f"intent     {view.intent}"
    if failures := ", ".join(_failure_words(view)):
        yield f"failures   {failures}"
    if view.run > 1:
        yield f"run        {view.run}"
    if view.priority:
        yield f"priority   {view.priority}"
    if view.annotation:
        yield f"note       {view.annotation}"
    if view.labels:
        yield f"labels     {', '.join(f'{name}={text}' for name, text in sorted(view.labels.items()))}"


def _failure_words(view: JobView) -> Iterator[str]:
    """Say what follows from failures, where that is not as usual."""
    if view.failure_rule == FailureRule.CANCEL:
        yield "after the first nothing more starts"
    if view.failure_rule == FailureRule.THRESHOLD:
        yield f"after {view.threshold} percent of its tasks nothing more starts"
    if view.propagate is not None:
        yield "propagate" if view.propagate else "do not propagate"
    if view.partial_rule == PartialRule.TOLERATE:
        yield "partial tasks are tolerated"


def state_line(view: JobView) -> str:
    """Return the state of a job, and in brackets why it failed, or how it completed if that is not as usual."""
    more = view.reason or (None if view.outcome == JobOutcome.OK else view.outcome)
    return f"{view.state} ({more})" if more else view.state


def tasks_line(progress: Progress) -> str:
    """Say how many tasks have ended, and whether there may be more of them than are known."""
    return f"{progress.done} of {_total(progress)} tasks" + (", growing" if progress.growing else "")


def _total(progress: Progress) -> str:
    return f"{progress.total}+" if progress.growing else str(progress.total)


def ended_line(view: JobView) -> str:
    """Say in one line how a job ended."""
    text = f"{view.name} {state_line(view)}: {tasks_line(Progress.of(view))} in {_took(view)}"
    return text if view.state is JobState.COMPLETED or not view.note else f"{text}; {view.note}"


def new_table(*columns: str) -> Table:
    """Return an empty table with these heads."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, no_wrap=column not in _FOLDED, overflow="fold")
    return table


def _took(view: JobView) -> str:
    if view.started_at is None:
        return ""
    return _seconds(((view.ended_at or datetime.now(UTC)) - view.started_at).total_seconds())


def _ago(moment: datetime) -> str:
    return f"{_seconds((datetime.now(UTC) - moment).total_seconds())} ago"


def _seconds(seconds: float) -> str:
    """Write a duration with the two units that matter."""
    if seconds < 60:  # noqa: PLR2004  seconds in a minute
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def stamp(moment: datetime) -> str:
    """Write a moment in the time zone of the reader."""
    return moment.astimezone().isoformat(sep=" ", timespec="seconds")
