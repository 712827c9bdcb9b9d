"""How attempts look, and what they failed with: tables, and the lines that `watch` prints as it happens."""

import dataclasses
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from rich.table import Table
from rich.text import Text

from jobrunner.cli.output import UNKNOWN, new_table, reported, stamp
from jobrunner.error_groups import ErrorGroup
from jobrunner.store.attempts import FAILED_FOR_GOOD, AttemptView, EndView, failed_attempts, unusual_ends
from jobrunner.store.database import Database
from jobrunner.text import SENTENCE, one_line

_COLORS = {"succeeded": "green", "started": "cyan", "revoked": "yellow", "retried": "magenta", "lost": "magenta",
           "unknown": "magenta", "failed": "red", "input-lost": "red"}  # fmt: skip
#: Tasks that are told of in one look which were skipped or ended partial: a group of thousands may be skipped at once.
_ENDS = 20
#: Seconds between two looks for failures, at least; and how many times longer than a look the rest is.
_REST = 0.5
_TIMES = 10


def attempts_table(views: Iterable[AttemptView]) -> Table:
    """Return attempts as a table: who had which task, from when on, and how that ended."""
    table = new_table("TASK", "NAME", "TRY", "WORKER", "STARTED", "TOOK", "OUTCOME", "NOTE")
    for view in views:
        word = "foreign" if view.foreign else view.outcome or (view.last_event or "").removeprefix("task-")
        table.add_row(
            view.task_id,
            view.name or UNKNOWN,
            _try(view),
            view.worker or "",
            stamp(view.started_at) if view.started_at else "",
            f"{(view.ended_at - view.started_at).total_seconds():.3f} s" if view.started_at and view.ended_at else "",
            Text(word, style=_COLORS.get(word, "")),
            one_line(view.exception or view.result or reported(view), SENTENCE),
        )
    return table


def with_attempts(tasks: Iterable[dict[str, Any]], views: Iterable[AttemptView]) -> list[dict[str, Any]]:
    """Return tasks as JSON-friendly values, each with its attempts."""
    by_task: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for view in views:
        by_task[view.task_id].append(dataclasses.asdict(view))
    return [task | {"attempts": by_task[task["id"]]} for task in tasks]


def _try(view: AttemptView) -> str:
    """Return the number of a try as Celery counts, and the delivery if that was sent anew."""
    number = str(view.retries + 1)
    return number if view.delivery == 1 else f"{number}, delivery {view.delivery}"


def errors_table(groups: Iterable[ErrorGroup]) -> Table:
    """Return groups of failed attempts as a table."""
    table = new_table("ERROR", "ATTEMPTS", "TASKS", "FIRST", "LAST", "WORKERS")
    for one in groups:
        table.add_row(
            one_line(one.error, SENTENCE),
            str(one.attempts),
            str(one.tasks),
            stamp(one.first_at) if one.first_at else "",
            stamp(one.last_at) if one.last_at else "",
            ", ".join(one.workers),
        )
    return table


def failure_line(view: AttemptView) -> str:
    """Say in a line what has failed, in which try, by whom, and why."""
    word = "failed" if view.outcome in FAILED_FOR_GOOD or view.fatal else "soft-failed"
    at = view.ended_at.astimezone().strftime("%H:%M:%S") if view.ended_at else "--:--:--"
    about = f"{view.name or UNKNOWN} [{view.task_id}], try {_try(view)}, {view.worker or 'nobody'}: {view.why}"
    return f"{at}  {word}  {one_line(about, SENTENCE)}"


def end_line(view: EndView) -> str:
    """Say in a line which task was skipped or ended partial, and why."""
    at = view.ended_at.astimezone().strftime("%H:%M:%S") if view.ended_at else "--:--:--"
    about = f"{view.name or UNKNOWN} [{view.task_id}]: {view.note or 'no reason was given'}"
    return f"{at}  {view.state}  {one_line(about, SENTENCE)}"


class FailureWatch:
    """Finds what has failed, was skipped or ended partial since it was asked last, and says so in lines.

    What had failed before is only counted, in `before`. It reads all of that, so it rests in proportion to how long
    that takes.
    """

    def __init__(self, database: Database, job_id: str) -> None:
        self._database, self._job_id = database, job_id
        self._known: set[tuple[object, ...]] = set()
        failed, ends = self._look()
        self.before = len(failed)
        self._note(failed, ends)
        self._due = 0.0

    def news(self, *, last: bool = False) -> list[str]:
        """Return what has happened since; nothing, unless it is the `last` time, if that was asked a moment ago."""
        began = time.monotonic()
        if began < self._due and not last:
            return []
        failed, ends = self._look()
        lines = [failure_line(one) for one in failed if one.key not in self._known]
        new = [one for one in ends if one.key not in self._known]
        lines += [end_line(one) for one in new[:_ENDS]]
        self._note(failed, ends)
        now = time.monotonic()
        self._due = now + max(_REST, _TIMES * (now - began))
        lines.sort()  # each begins with its time
        if len(new) > _ENDS:
            lines.append(
                f"… and {len(new) - _ENDS:,} more were skipped or ended partial: see `jobrunner tasks --state`"
            )
        return lines

    def _look(self) -> tuple[list[AttemptView], list[EndView]]:
        with self._database.read() as connection:
            return failed_attempts(connection, self._job_id), unusual_ends(connection, self._job_id)

    def _note(self, failed: Iterable[AttemptView], ends: Iterable[EndView]) -> None:
        self._known |= {one.key for one in failed} | {one.key for one in ends}
