"""The course of a job that runs inline: one task after another, until nothing of it can run any more.

What the tracker does with events and messages, done at once. What opens, why a task has failed, whether a failure rule
is met and where the job ends is decided by the tracker's own functions.
"""

import json
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from celery import Celery, signals, states
from celery.exceptions import WorkerLostError
from celery.utils.saferepr import saferepr
from kombu.exceptions import EncodeError

from jobrunner.additions import Part
from jobrunner.plan import Place
from jobrunner.records import Attempt, Job, Standing
from jobrunner.records import Task as TaskRecord
from jobrunner.reports import report_told
from jobrunner.retry_policy import last_retry
from jobrunner.statements import Statement
from jobrunner.states import JobState, SkipReason, TaskState
from jobrunner.submit import Submission
from jobrunner.testing.board import Board, Task
from jobrunner.testing.body import Ended, attempt, inline
from jobrunner.testing.told import Told
from jobrunner.wire import TASK_PROGRESS, TASK_STATED
from tracker.bounds import explain, why_failed
from tracker.rules import rule_met
from tracker.statements import EMPTY_NOTE, note_of, note_of_skipped

_TASK_ADDED = "task-added"
_EMPTY = SkipReason.EMPTY, EMPTY_NOTE
#: Where Celery says that what a task has sent has ended, in our words; other ends say nothing of how it went.
_ADOPTED = {states.SUCCESS: TaskState.COMPLETED, states.RETRY: TaskState.SOFT_FAILED}


class Course:
    """Runs a job to its end; `will_fail` says why nothing more of it has started."""

    def __init__(self, app: Celery, submission: Submission) -> None:
        row = submission.job
        self._app = app
        self.board = Board(submission)
        self.job = Job(
            id=row["id"], name=row["name"], observed=False, state=JobState.ACTIVE, reason=None, note=None,
            failure_rule=row["failure_rule"], threshold=row["threshold"], propagate=row["propagate"],
            partial_rule=row["partial_rule"], total=row["total"], started_at=None, ended_at=None,
        )  # fmt: skip
        #: In the order in which they failed.
        self.failures: list[Task] = []
        self._ready: deque[Task] = deque()
        #: Why tasks are to be skipped when their turn comes: a word and a sentence.
        self._skips: dict[str, tuple[str, str]] = {}

    def run(self) -> None:
        """Run what opens, until nothing does, or its failure rule is met."""
        with inline(self._app) as told:
            signals.task_postrun.connect(self._on_postrun)
            try:
                self._open(self.board.opens_at(Place(self.job.id, 0)))
                while self._ready and self.job.will_fail is None:
                    self._take(self._ready.popleft(), told)
                    self._meet_rule()
            finally:
                signals.task_postrun.disconnect(self._on_postrun)

    def _open(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            task.state = TaskState.READY
            self._ready.append(task)

    def _take(self, task: Task, told: Told) -> None:
        skipped = self._skips.get(task.id) or self._found_empty(task)
        if skipped is None:
            self._run(task, told)
        else:
            task.reason, task.note = skipped
            self._end_well(task, TaskState.SKIPPED)

    def _found_empty(self, task: Task) -> tuple[str, str] | None:
        asks = getattr(self._app.tasks[task.name], "skip_empty", False)
        return _EMPTY if asks and task.takes is not None and self.board.is_empty(task.takes) else None

    # ---- attempts --------------------------------------------------------------------------------------------

    def _run(self, task: Task, told: Told) -> None:
        letter = task.letter
        assert letter is not None  # noqa: S101  what is taken has been planned
        taken = () if task.takes is None else (self.board.value_of(task.takes),)
        args, kwargs = (*taken, *letter.args), letter.kwargs
        task.state, task.started_at = TaskState.ACTIVE, datetime.now(UTC)
        history: list[Attempt] = []
        while True:
            ended = attempt(
                self._app, told, letter, task_id=task.id, job_id=self.job.id, retries=task.retries, args=args,
                kwargs=kwargs,
            )  # fmt: skip
            self._hear(task, ended)
            history.append(_record(task, ended))
            if ended.retry is not None:
                # What the body has given itself lacks the value, which goes along with the message.
                args, kwargs = ended.retry.args, ended.retry.kwargs
                args = args if not taken or (args and args[0] is taken[0]) else (*taken, *args)
            elif not isinstance(ended.error, WorkerLostError) or task.retries >= last_retry(task.max_retries):
                break
            task.retries += 1
        if ended.error is None:
            self._succeed(task, ended)
        else:
            self._fail(task, history)

    def _hear(self, task: Task, ended: Ended) -> None:
        task.runtime, task.error, task.traceback = ended.seconds, ended.error, ended.traceback
        task.progress = task.said = None
        task.statement, task.item_errors = Statement(), []
        for event in ended.told:
            if event["type"] == TASK_STATED:
                task.item_errors += event.get("errors", [])
                task.statement = _statement(event) or task.statement
            elif event["type"] == TASK_PROGRESS and (report := report_told(event)) is not None:
                task.progress, task.said = report.share, report.message

    def _succeed(self, task: Task, ended: Ended) -> None:
        backend = self._app.backend
        try:
            task.value = backend.decode(backend.encode(backend.prepare_value(ended.value)))
        except EncodeError as error:  # on a worker, no retry policy covers it either
            task.error = error
            self._fail(task, [_record(task, Ended(told=(), seconds=ended.seconds, error=error))])
            return
        before = task.place
        parts = [Part.model_validate(event["part"]) for event in ended.told if event["type"] == _TASK_ADDED]
        self.board.graft(task, parts)
        if task.statement.skips is not None:
            self._skip_behind(task, before, task.statement)
        task.note = note_of(task.statement)
        self._end_well(task, task.statement.state)

    def _end_well(self, task: Task, state: TaskState) -> None:
        task.state, task.ended_at = state, datetime.now(UTC)
        self._open(self.board.end_well(task))

    def _fail(self, task: Task, history: list[Attempt]) -> None:
        row = TaskRecord(
            id=task.id, job_id=self.job.id, celery_id=task.id, block_id=task.place.block, position=task.place.position,
            state=TaskState.ACTIVE, note=None, max_retries=task.max_retries, delivery=1, first_retries=0, sent_at=None,
            started_at=task.started_at, ended_at=None,
        )  # fmt: skip
        reason = why_failed(row, history[-1], history)
        task.state, task.ended_at, task.reason = TaskState.FAILED, datetime.now(UTC), reason
        task.note = explain(reason, history[-1].exception, row)
        self.failures.append(task)

    def _meet_rule(self) -> None:
        self.job.total = len(self.board.tasks)
        if self.failures and self.job.will_fail is None:
            self.job.will_fail = rule_met(self.job, len(self.failures))

    # ---- what is skipped -------------------------------------------------------------------------------------

    def _skip_behind(self, task: Task, place: Place, statement: Statement) -> None:
        """Note what comes directly after a task as skipped; of a group, the branches that begin with what it names."""
        branches: defaultdict[str | Place, list[Task]] = defaultdict(list)
        for one in self.board.opens_at(self.board.behind(place)):
            branches[self.board.branch(one)].append(one)
        for branch, first in branches.items():
            if not statement.branches or {one.name for one in first} <= set(statement.branches):
                chosen = first if isinstance(branch, str) else self.board.inside(branch)
                why = note_of_skipped(statement.skips or "", task.called)
                self._skips.update((one.id, (SkipReason.SAID, why)) for one in chosen)

    # ---- what tasks send by Celery's own means ---------------------------------------------------------------

    def _on_postrun(self, sender: Any, task_id: str, state: str, retval: Any, **_: Any) -> None:
        request = sender.request
        planned = self.board.tasks.get(task_id)
        if request.root_id != self.job.id or (planned is not None and planned.letter is not None):
            return
        task = self.board.adopt(task_id, sender.name, request.parent_id)
        task.state, task.retries = _ADOPTED.get(state, TaskState.FAILED), request.retries
        task.started_at = task.ended_at = datetime.now(UTC)
        if task.state is TaskState.COMPLETED:
            task.value = retval
        elif task.state is TaskState.FAILED:
            task.error, task.note = retval, saferepr(retval)
            self.failures.append(task)


def _record(task: Task, ended: Ended) -> Attempt:
    """Return what the tracker would know of an attempt."""
    error = ended.retry.error if ended.retry else ended.error
    standing = Standing.RETRIED if ended.retry else Standing.FAILED if ended.error else Standing.SUCCEEDED
    return Attempt(
        task_id=task.id, delivery=1, retries=task.retries, celery_id=task.id, standing=standing,
        outcome=standing.name.lower(), exception=None if error is None else saferepr(error),
    )  # fmt: skip


def _statement(event: Mapping[str, Any]) -> Statement | None:
    told = event.get("statement")
    return None if told is None else Statement.loads(json.dumps(told))
