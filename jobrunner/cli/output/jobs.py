"""How jobs look: a table of them, the lines of one, and JSON for programs."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from jobrunner.cli.output.tables import UNKNOWN, new_table, state_text
from jobrunner.cli.output.tasks import reported
from jobrunner.cli.output.times import ago, duration, stamp
from jobrunner.cli.output.tracker import late
from jobrunner.progress import Progress
from jobrunner.records import HistoryLine
from jobrunner.statements import ItemCounts
from jobrunner.states import FailureRule, JobOutcome, JobState, PartialRule
from jobrunner.store.attempts import AttemptView
from jobrunner.store.reading import JobView

#: What `observed` means, for people.
OBSERVED = "a plain Celery canvas, known by the events of its tasks: jobrunner follows it, and can cancel it"


def jobs_table(views: Iterable[JobView], waits: Mapping[str, str | None]) -> Table:
    """Return jobs as a table; `waits` says of some, by id, for what, in a column that is there only if it is needed."""
    table = new_table("JOB", "NAME", "STATE", "TASKS", "SUBMITTED", "TOOK", *(["WAITS"] if waits else []))
    for view in views:
        progress = Progress.of(view)
        table.add_row(
            view.id,
            view.name or UNKNOWN,
            state_text(view.state, state_line(view), mark="observed" if view.observed else ""),
            f"{progress.done}/{_total(progress)}",
            ago(view.submitted_at),
            _took(view),
            *([waits.get(view.id) or ""] if waits else []),
        )
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
        yield f"tracker    {late(behind)}"
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


def _took(view: JobView) -> str:
    if view.started_at is None:
        return ""
    return duration(((view.ended_at or datetime.now(UTC)) - view.started_at).total_seconds())


def job_json(view: JobView) -> dict[str, Any]:
    """Return a job as JSON-friendly values; `share` and `growing` are those of its progress."""
    progress = Progress.of(view)
    return dataclasses.asdict(view) | {"share": progress.share, "growing": progress.growing}
