"""The handles of a submitted job and of its tasks: what they are doing, what came of it, and orders about them."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from celery import Celery

from jobrunner.errors import ConfigurationError, JobFailedError, NotFoundError, ValueLostError, WaitTimeoutError
from jobrunner.log_lines import LogLine
from jobrunner.looking import looks
from jobrunner.order_arguments import (
    GRACE,
    cancel_arguments,
    items_arguments,
    requeue_arguments,
    set_arguments,
    unblock_arguments,
)
from jobrunner.order_kinds import Items, OrderKind, Scope
from jobrunner.orders import Order, give
from jobrunner.plan import Source
from jobrunner.progress import Progress
from jobrunner.statements import ItemCounts
from jobrunner.states import ENDED_JOB, JobState
from jobrunner.store import reading
from jobrunner.store.attempts import list_attempts
from jobrunner.store.database import Database
from jobrunner.store.items import ItemErrorView, item_errors_of_task, items_of_job
from jobrunner.store.logs import one_attempt, read_log
from jobrunner.store.orders import find_task
from jobrunner.store.reading import JobView, TaskView
from jobrunner.store.sources import inputs_of, producer_of
from jobrunner.values import fetch

if TYPE_CHECKING:
    from sqlalchemy import Connection


class Job:
    """A job by its id. Every property is read afresh; the tracker may lag a moment behind the workers (N3).

    Methods that order something return at once, with the order: it stands whoever is away, and its `result()` tells
    what changed once it is done. `by` says who gives it, by default the user and the machine; `why` is kept with it.

    `app` is needed for `result` alone: values lie in its result backend. `wake` is called when something was ordered.
    """

    def __init__(
        self,
        job_id: str,
        *,
        database: Database,
        app: Celery | None = None,
        wake: Callable[[], object] | None = None,
    ) -> None:
        self.id = job_id
        self._app = app
        self._database = database
        self._wake = wake

    def __repr__(self) -> str:
        return f"Job({self.id!r})"

    @property
    def view(self) -> JobView:
        """Everything that is known of the job itself."""
        with self._database.read() as connection:
            view = reading.get_job(connection, self.id)
        if view is None:
            msg = f"There is no job {self.id} in {self._database.where}."
            raise NotFoundError(msg, "It may have been pruned, or be in another database.")
        return view

    @property
    def state(self) -> JobState:
        """The job's state."""
        return self.view.state

    @property
    def outcome(self) -> str | None:
        """How it completed: ok, noop or with-errors; None if it has not."""
        return self.view.outcome

    @property
    def reason(self) -> str | None:
        """Why it has failed, in a word; None if it has not."""
        return self.view.reason

    @property
    def progress(self) -> Progress:
        """How many of its tasks have ended."""
        return Progress.of(self.view)

    @property
    def items(self) -> ItemCounts | None:
        """How many items its tasks have processed, of those that say so; None if none does."""
        with self._database.read() as connection:
            return items_of_job(connection, self.id)

    def tasks(self) -> list[TaskView]:
        """Return all tasks of the job, in order of arrival: of its plan, started or not, and what tasks have sent."""
        with self._database.read() as connection:
            return reading.list_tasks(connection, self.id)

    def wait(self, timeout: float | None = None, *, each: Callable[[JobView], object] | None = None) -> JobState:
        """Wait until the job has ended and return its state; `each` is called with every look at it.

        Raises:
            WaitTimeoutError: it had not ended after `timeout` seconds. The job goes on.
        """
        for _ in looks(timeout):
            view = self.view
            if each is not None:
                each(view)
            if view.state in ENDED_JOB:
                return view.state
        msg = f"Job {self.id} is still {view.state} after {timeout:g} s."
        raise WaitTimeoutError(msg, "It goes on; wait for it again, or look at it with `jobrunner show`.")

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the job and return its value: what Celery's `.get()` would return for the same canvas.

        Raises:
            JobFailedError: the job failed or was canceled.
            ValueLostError: it is no longer in the result backend.
            WaitTimeoutError: it had not ended after `timeout` seconds.
        """
        self.wait(timeout)
        view = self.view
        if view.state is not JobState.COMPLETED:
            msg = f"Job {self.id} {view.state}: {view.note or 'no task of it failed'}."
            raise JobFailedError(msg, f"See `jobrunner tasks {self.id}`.")
        source = Source(task=view.value_task, group=view.value_group)
        if source == Source():
            return None
        with self._database.read() as connection:
            inputs = inputs_of(connection, [source])[source]
        if self._app is None:
            msg = f"The value of job {self.id} lies in a result backend."
            raise ConfigurationError(msg, "Ask the JobRunner of its app for the handle.")
        try:
            return fetch(self._app.backend, inputs)
        except ValueLostError as error:
            raise self._lost(error.celery_ids) from None

    # ---- orders --------------------------------------------------------------------------------------------

    def pause(self, *, why: str | None = None, by: str | None = None) -> Order:
        """Start nothing more of it; what runs, ends. Done when nothing runs and nothing can start."""
        return self._order(OrderKind.PAUSE, None, why=why, by=by)

    def resume(self, *, why: str | None = None, by: str | None = None) -> Order:
        """Let it go on after a pause."""
        return self._order(OrderKind.RESUME, None, why=why, by=by)

    def cancel(self, *, grace: float | None = GRACE, why: str | None = None, by: str | None = None) -> Order:
        """End it. What runs is terminated, and killed after `grace` seconds; with None it is left to finish.

        Done when nothing runs and nothing can start.
        """
        return self._order(OrderKind.CANCEL, cancel_arguments(grace), why=why, by=by)

    def requeue(
        self,
        scope: Scope | str | None = None,
        *,
        items: Items | str | None = None,
        why: str | None = None,
        by: str | None = None,
    ) -> Order:
        """Run it again: `incomplete`, what has not ended well and what depends on that, or `all` of it.

        Without a scope all of a completed job, and of any other what is incomplete. With `items="failed"` tasks that
        ended partial run with only the items that they have named as failed, and then what comes after them. Done when
        it goes on.
        """
        return self._order(OrderKind.REQUEUE, requeue_arguments(scope, items), why=why, by=by)

    def set(
        self,
        *,
        priority: int | None = None,
        note: str | None = None,
        labels: Mapping[str, str | None] | None = None,
        why: str | None = None,
        by: str | None = None,
    ) -> Order:
        """Change what is given, and leave the rest; an empty note removes it, and None as a label's text that label.

        Of what is ready, tasks of jobs with a higher priority, from -100 to 100, are sent first.
        """
        arguments = set_arguments(priority=priority, note=note, labels=labels)
        return self._order(OrderKind.SET, arguments, why=why, by=by)

    def unblock(
        self, worker: str, task_name: str | None = None, *, why: str | None = None, by: str | None = None
    ) -> Order:
        """Let a worker get again the tasks of this name, or all, for which it is blocked in this job."""
        return self._order(OrderKind.UNBLOCK, unblock_arguments(worker, task_name), why=why, by=by)

    def task(self, task_id: str) -> "JobTask":
        """Return the handle of one of its tasks; whether it is one shows when something is ordered."""
        return JobTask(task_id, job_id=self.id, database=self._database, wake=self._wake)

    def _order(self, kind: OrderKind, arguments: Mapping[str, Any] | None, *, why: str | None, by: str | None) -> Order:
        job_id = self.view.id  # raises if there is no such job
        (order,) = give(self._database, kind, [(job_id, None)], arguments, by=by, why=why, wake=self._wake)
        return order

    def _lost(self, celery_ids: Sequence[str]) -> ValueLostError:
        with self._database.read() as connection:
            which = producer_of(connection, celery_ids[0])
        more = f", and those of {len(celery_ids) - 1} more tasks," if len(celery_ids) > 1 else ""
        msg = f"Of job {self.id} the value of {which}{more} is no longer in the result backend."
        remedy = (
            f"It is kept for result_expires after the job's end: raise that, and `jobrunner requeue --all {self.id}`."
        )
        return ValueLostError(msg, remedy, celery_ids=celery_ids)


class JobTask:
    """A task of a job by its id, for its item errors, its log and orders about it; what it does is in `Job.tasks()`."""

    def __init__(
        self, task_id: str, *, job_id: str, database: Database, wake: Callable[[], object] | None = None
    ) -> None:
        self.id = task_id
        self.job_id = job_id
        self._database = database
        self._wake = wake

    def __repr__(self) -> str:
        return f"JobTask({self.id!r})"

    def item_errors(self, *, limit: int | None = 1_000, after: int | None = None) -> list[ItemErrorView]:
        """Return why it has not processed some of its items, if it has ended partial: up to 10,000 errors are kept.

        The next page is `after` the number of the last error of this one.
        """
        with self._database.read() as connection:
            return item_errors_of_task(connection, self.id, limit=limit, after=after)

    def cancel(self, *, grace: float | None = GRACE, why: str | None = None, by: str | None = None) -> Order:
        """End it: what runs is terminated, and killed after `grace` seconds; with None it is left to finish."""
        return self._order(OrderKind.CANCEL, cancel_arguments(grace), why=why, by=by)

    def requeue(self, *, items: Items | str | None = None, why: str | None = None, by: str | None = None) -> Order:
        """Run it again, and all that comes after it; with `items="failed"` with only the items that failed."""
        return self._order(OrderKind.REQUEUE, items_arguments(items), why=why, by=by)

    def skip(self, *, why: str | None = None, by: str | None = None) -> Order:
        """Count it as ended well, without a value: what comes after it may run."""
        return self._order(OrderKind.SKIP, None, why=why, by=by)

    def fail(self, *, why: str | None = None, by: str | None = None) -> Order:
        """Count it as failed, whatever becomes of what it runs."""
        return self._order(OrderKind.FAIL, None, why=why, by=by)

    def logs(self, *, attempt: int | None = None, delivery: int | None = None) -> list[LogLine]:
        """Return what it has logged and printed in its last attempt, or in the one with this number (from 1).

        Where it was sent more than once with that number, in the last such `delivery`, or the one that is given.
        """
        with self._database.read() as connection:
            self._check(connection)
            chosen = one_attempt(list_attempts(connection, self.job_id, self.id), attempt, delivery)
            return [] if chosen is None else [line for _, line in read_log(connection, chosen)]

    def _order(self, kind: OrderKind, arguments: Mapping[str, Any] | None, *, why: str | None, by: str | None) -> Order:
        with self._database.read() as connection:
            self._check(connection)
        (order,) = give(self._database, kind, [(self.job_id, self.id)], arguments, by=by, why=why, wake=self._wake)
        return order

    def _check(self, connection: "Connection") -> None:
        """Refuse what is no task of the job."""
        found = find_task(connection, self.id)
        if found is None or found.job_id != self.job_id:
            msg = f"Job {self.job_id} has no task {self.id} in {self._database.where}."
            raise NotFoundError(msg, f"See `jobrunner tasks {self.job_id}`.")
