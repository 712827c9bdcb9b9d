"""The bar of those who wait for a job: how far it is, and lines above that."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from jobrunner.cli.output import console, reported, tasks_line
from jobrunner.progress import ALMOST, Progress
from jobrunner.states import TaskState
from jobrunner.store.attempts import AttemptView
from jobrunner.store.reading import JobView
from jobrunner.text import one_line

#: States of tasks that it counts.
_WORTH_TELLING = (TaskState.ACTIVE, TaskState.SOFT_FAILED, TaskState.FAILED)
#: Characters of what a task says of its progress: there is little room.
_BRIEF = 40


class Bar:
    """Shows how far a job is, and above that lines of text."""

    def __init__(self, progress: RichProgress, name: str) -> None:
        self._progress = progress
        self._task = progress.add_task(name, total=None, tasks="", counts="")

    def __call__(self, view: JobView, reports: Sequence[AttemptView] = ()) -> None:
        """Show how far the job is, and what of it runs as far as that has said so; in words the latest of these."""
        done = Progress.of(view)
        doing = [f"{done.counts[state]} {state}" for state in _WORTH_TELLING if state in done.counts]
        doing += [one_line(reported(one), _BRIEF) for one in reports[:1]]
        share = share_with(done, reports)
        self._progress.update(self._task, completed=share, total=1.0, tasks=tasks_line(done), counts=", ".join(doing))

    def say(self, line: str) -> None:
        """Print a line, which stays."""
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress_bar(name: str, *, quiet: bool = False) -> Iterator[Bar]:
    """Yield what shows a job's progress; on a terminal a live bar, else nothing until the end."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[tasks]}"),
        TextColumn("{task.fields[counts]}"), TimeElapsedColumn(),
    )  # fmt: skip
    terminal = console(stderr=True)
    with RichProgress(*columns, console=terminal, disable=quiet or not terminal.is_terminal) as progress:
        yield Bar(progress, name)


def share_with(progress: Progress, reports: Iterable[AttemptView]) -> float:
    """Return how far a job is if what its tasks have reported counts as well: it is done when they have ended."""
    parts = sum(one.progress for one in reports if one.progress is not None)
    known = progress.share + parts / max(progress.total, 1)
    return progress.share if progress.share == 1.0 else min(known, ALMOST)
