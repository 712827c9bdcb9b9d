"""What a job that ran inline has come to: its state, and why; and what becomes of tasks that can never run."""

from collections import Counter
from collections.abc import Sequence

from celery.utils.saferepr import saferepr

from jobrunner.records import Failed
from jobrunner.states import (
    DISCOVERED,
    CancelReason,
    FailureReason,
    JobOutcome,
    JobState,
    PartialRule,
    TaskState,
)
from jobrunner.store.tracking.upstream import failed_before
from jobrunner.testing.board import Board, Task
from jobrunner.testing.course import Course
from jobrunner.text import SENTENCE, bounded
from tracker.advance import judge
from tracker.rules import why_met
from tracker.statements import note_of_partial


def conclude(course: Course, *, propagates: bool) -> None:
    """Let a job of which nothing runs any more follow its tasks, as `tracker.settle` does."""
    job, board = course.job, course.board
    _end_the_rest(course, propagates=propagates)
    job.counts = Counter(task.state for task in board.tasks.values())
    job.total = len(board.tasks)
    verdict = judge(JobState.ACTIVE, job.counts, tolerates=job.partial_rule == PartialRule.TOLERATE)
    job.state, job.reason = verdict.state, verdict.reason
    partial = [task for task in board.tasks.values() if task.state is TaskState.PARTIAL]
    if course.failures:
        _blame(course)
    elif partial:
        job.note = _partial_note(partial)
    if job.state is JobState.COMPLETED:
        job.outcome = _outcome(board, partial)


def _end_the_rest(course: Course, *, propagates: bool) -> None:
    """End what has not run: after a failure rule was met, or because something before it has failed."""
    for task in course.board.tasks.values():
        if task.state not in {TaskState.PENDING, TaskState.READY}:
            continue
        task.state, task.reason = TaskState.CANCELED, CancelReason.RULE
        cause = _cause(course.board, task, course.failures)
        if cause is not None:
            task.reason = CancelReason.UPSTREAM
            if propagates:
                task.state, task.reason = TaskState.FAILED, FailureReason.UPSTREAM
            task.note = failed_before(cause.name, cause.id)


def _cause(board: Board, task: Task, failures: Sequence[Task]) -> Task | None:
    """Return the failed task that stands before this one in a chain around both."""
    here = board.chains_around(task.place)
    for failed in failures:
        before = board.chains_around(failed.place) if failed.letter is not None else {}
        if any(position < here.get(chain, 0) for chain, position in before.items()):
            return failed
    return None


def _blame(course: Course) -> None:
    job, first = course.job, course.failures[0]
    why = first.note or saferepr(first.error)
    if job.will_fail == FailureReason.THRESHOLD:
        failed = Failed(id=first.id, name=first.name, reason=first.reason, discovers=first.discovers, why=why)
        job.reason = job.will_fail
        job.note = bounded(f"{why_met(job, len(course.failures), failed)}: {why}", SENTENCE)
        return
    job.reason = first.reason or (FailureReason.CONSTRUCTION if first.discovers else FailureReason.TASK)
    job.note = bounded(f"{first.called} failed: {why}", SENTENCE)


def _partial_note(partial: Sequence[Task]) -> str:
    first = partial[0]
    named = Failed(id=first.id, name=first.name, reason=None, discovers=first.discovers, why=first.note or "")
    items = sum(task.statement.counts.failed for task in partial if task.statement.counts)
    return note_of_partial(named, len(partial), items)


def _outcome(board: Board, partial: Sequence[Task]) -> JobOutcome:
    if partial:
        return JobOutcome.WITH_ERRORS
    return JobOutcome.NOOP if _had_nothing_to_do(board) else JobOutcome.OK


def _had_nothing_to_do(board: Board) -> bool:
    """Whether there are no tasks, those that discover work found none, or no other has done anything."""
    tasks = board.tasks.values()
    if any(task.discovers and task.state in DISCOVERED for task in tasks) and not board.has_grown:
        return True
    return not any(_has_worked(task) for task in tasks)


def _has_worked(task: Task) -> bool:
    """Whether a task did more than to find out that there is nothing to do."""
    if task.state is TaskState.COMPLETED:
        return not task.discovers and task.statement.skips is None
    return task.state is TaskState.PARTIAL
