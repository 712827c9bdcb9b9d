"""The handle of a job that has run inline: says from memory what `jobrunner.Job` says from the database."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, NoReturn

from celery.utils.saferepr import saferepr

from jobrunner.errors import JobFailedError, RefusedError
from jobrunner.handle import Job, JobTask
from jobrunner.plan import Source
from jobrunner.statements import ItemCounts
from jobrunner.states import JobState, TaskState
from jobrunner.store.database import Database
from jobrunner.store.items import ItemErrorView
from jobrunner.store.reading import JobView, TaskView
from jobrunner.testing.board import Task
from jobrunner.testing.course import Course

#: What Celery's worker would have told of a task last.
_LAST_EVENTS = {TaskState.COMPLETED: "task-succeeded", TaskState.PARTIAL: "task-succeeded"}


class InlineJob(Job):
    """A job that has ended before anybody got this handle. It is in no database, so nothing can be ordered about it."""

    def __init__(self, course: Course, row: Mapping[str, Any], ended_at: datetime, *, database: Database) -> None:
        super().__init__(row["id"], database=database)
        self._course, self._row, self._ended_at = course, row, ended_at

    def __repr__(self) -> str:
        return f"InlineJob({self.id!r})"

    @property
    def view(self) -> JobView:
        """Everything that is known of the job itself."""
        job, row = self._course.job, self._row
        tasks = self._course.board.tasks.values()
        return JobView(
            id=job.id, name=job.name, key=row["key"], observed=False, barrier=row["barrier"], state=job.state,
            reason=job.reason, outcome=job.outcome, note=job.note, intent=None, hold_version=None, priority=0,
            annotation=None, labels={}, failure_rule=job.failure_rule, threshold=job.threshold,
            propagate=job.propagate, partial_rule=job.partial_rule,
            will_fail=job.will_fail, unmet=0, run=1, total=job.total,
            counts={state: number for state, number in job.counts.items() if number}, discovering=0,
            discovered=sum(task.discovers and task.started_at is not None for task in tasks),
            submitted_at=row["submitted_at"], applied_at=row["submitted_at"],
            started_at=min((task.started_at for task in tasks if task.started_at), default=None),
            ended_at=self._ended_at, value_task=row["value_task"], value_group=row["value_group"],
        )  # fmt: skip

    @property
    def items(self) -> ItemCounts | None:
        """How many items its tasks have processed, of those that say so; None if none does."""
        counts = [asdict(one) for task in self._course.board.tasks.values() if (one := task.statement.counts)]
        return ItemCounts(**{name: sum(one[name] for one in counts) for name in counts[0]}) if counts else None

    def tasks(self) -> list[TaskView]:
        """Return all tasks of the job, in order of arrival."""
        return [_view(task, self.id) for task in self._course.board.tasks.values()]

    def result(self, timeout: float | None = None) -> Any:  # noqa: ARG002  it has ended
        """Return the value of the job: what Celery's `.get()` would return for the same canvas.

        Raises:
            JobFailedError: the job failed. Its cause is what the first failed task has raised.
        """
        job = self._course.job
        if job.state is not JobState.COMPLETED:
            msg = f"Job {self.id} {job.state}: {job.note}."
            raise JobFailedError(msg) from self.error
        source = Source(task=self._row["value_task"], group=self._row["value_group"])
        return None if source == Source() else self._course.board.value_of(source)

    @property
    def error(self) -> BaseException | None:
        """What the task has raised that failed first."""
        return self._course.failures[0].error if self._course.failures else None

    def task(self, task_id: str) -> "InlineJobTask":
        """Return the handle of one of its tasks."""
        task = self._course.board.tasks.get(task_id)
        return InlineJobTask(task_id, task, job_id=self.id, database=self._database)

    def _order(self, *_: Any, **__: Any) -> NoReturn:
        raise _refusal(self.id)


class InlineJobTask(JobTask):
    """A task of a job that has run inline."""

    def __init__(self, task_id: str, task: Task | None, *, job_id: str, database: Database) -> None:
        super().__init__(task_id, job_id=job_id, database=database)
        self._task = task

    def __repr__(self) -> str:
        return f"InlineJobTask({self.id!r})"

    def item_errors(self, *, limit: int | None = 1_000, after: int | None = None) -> list[ItemErrorView]:
        """Return why it has not processed some of its items, if it has ended partial."""
        if self._task is None or self._task.state is not TaskState.PARTIAL:
            return []
        first = 0 if after is None else after + 1
        told = self._task.item_errors[first : None if limit is None else first + limit]
        return [_item_error(self._task, number, one) for number, one in enumerate(told, first)]

    def logs(self, *, attempt: int | None = None, delivery: int | None = None) -> NoReturn:  # noqa: ARG002
        """Refuse: what its body logs and prints goes where all does that this process logs and prints."""
        msg = f"Job {self.job_id} has run inline, and no log is kept of that."
        raise RefusedError(msg, "With pytest, look into caplog and capsys.")

    def _order(self, *_: Any, **__: Any) -> NoReturn:
        raise _refusal(self.job_id)


def _refusal(job_id: str) -> RefusedError:
    msg = f"Job {job_id} has run inline, and is in no database."
    return RefusedError(msg, "Orders need a tracker: run `jobrunner up`, and submit it there.")


def _item_error(task: Task, number: int, told: Mapping[str, Any]) -> ItemErrorView:
    item, details = (None if told[name] is None else json.loads(told[name]) for name in ("item", "details"))
    more = {name: told[name] for name in ("label", "type", "message")}
    return ItemErrorView(task_id=task.id, name=task.name, number=number, item=item, details=details or {}, **more)


def _view(task: Task, job_id: str) -> TaskView:
    started = task.started_at is not None
    failed = task.state is TaskState.FAILED and started
    return TaskView(
        id=task.id, job_id=job_id, celery_id=task.id, created_by=task.created_by, name=task.name, state=task.state,
        reason=task.reason, note=task.note, queue=task.queue, arrival=task.arrival, sequence=task.sequence,
        delivery=int(started), retries=task.retries if started else None,
        last_event=_LAST_EVENTS.get(task.state, "task-failed" if failed else "task-succeeded") if started else None,
        worker=None, sent_at=task.started_at, started_at=task.started_at, ended_at=task.ended_at,
        progress=task.progress, said=task.said, runtime=task.runtime,
        result=saferepr(task.value) if started and not failed else None,
        exception=saferepr(task.error) if failed else None, traceback=task.traceback, items=task.statement.counts,
    )  # fmt: skip
