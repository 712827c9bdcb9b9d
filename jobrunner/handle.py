"""The handle of a submitted job: what it is doing, and what came of it. Reads only."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from celery import Celery

from jobrunner.errors import ConfigurationError, JobFailedError, NotFoundError, ValueLostError, WaitTimeoutError
from jobrunner.plan import Source
from jobrunner.states import ENDED_JOB, ENDED_TASK, JobState, TaskState
from jobrunner.store import reading
from jobrunner.store.database import Database
from jobrunner.store.reading import JobView, TaskView
from jobrunner.store.sources import inputs_of, producer_of
from jobrunner.values import fetch

#: Seconds between two looks while waiting: from the first, doubling, to the last.
_FIRST_LOOK = 0.02
_LAST_LOOK = 0.5
#: Share of a job whose tasks have all ended and which has not: more may be on their way.
_ALMOST = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a job is: `done` of `total` tasks have ended, in whatever way; `counts` by state, without the zeros.

    `share` is 1.0 when the job has ended and less before, whatever `done` says. It is `growing` while tasks are at
    discovering work: `total` is only what is known so far.
    """

    done: int
    total: int
    share: float
    growing: bool
    counts: dict[TaskState, int]

    @classmethod
    def of(cls, view: JobView) -> "Progress":
        """Count the ended tasks of a job."""
        done = sum(number for state, number in view.counts.items() if state in ENDED_TASK)
        ended = view.state in ENDED_JOB
        return cls(
            done=done,
            total=view.total,
            share=1.0 if ended else min(done / max(view.total, 1), _ALMOST),
            growing=not ended and (view.state is JobState.UNDER_CONSTRUCTION or view.discovering > 0),
            counts=view.counts,
        )


class Job:
    """A job by its id. Every property is read afresh; the tracker may lag a moment behind the workers (N3).

    `app` is needed for `result` alone: values lie in its result backend.
    """

    def __init__(self, job_id: str, *, database: Database, app: Celery | None = None) -> None:
        self.id = job_id
        self._app = app
        self._database = database

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
    def progress(self) -> Progress:
        """How many of its tasks have ended."""
        return Progress.of(self.view)

    def tasks(self) -> list[TaskView]:
        """Return all tasks of the job, in order of arrival: of its plan, started or not, and what tasks have sent."""
        with self._database.read() as connection:
            return reading.list_tasks(connection, self.id)

    def wait(self, timeout: float | None = None, *, each: Callable[[JobView], object] | None = None) -> JobState:
        """Wait until the job has ended and return its state; `each` is called with every look at it.

        Raises:
            WaitTimeoutError: it had not ended after `timeout` seconds. The job goes on.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = _FIRST_LOOK
        while True:
            view = self.view
            if each is not None:
                each(view)
            if view.state in ENDED_JOB:
                return view.state
            left = _LAST_LOOK if deadline is None else deadline - time.monotonic()
            if left <= 0:
                msg = f"Job {self.id} is still {view.state} after {timeout:g} s."
                raise WaitTimeoutError(msg, "It goes on; wait for it again, or look at it with `jobrunner show`.")
            time.sleep(min(pause, left))
            pause = min(pause * 2, _LAST_LOOK)

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

    def _lost(self, celery_ids: Sequence[str]) -> ValueLostError:
        with self._database.read() as connection:
            which = producer_of(connection, celery_ids[0])
        more = f", and those of {len(celery_ids) - 1} more tasks," if len(celery_ids) > 1 else ""
        msg = f"Of job {self.id} the value of {which}{more} is no longer in the result backend."
        remedy = "It is kept for result_expires after the job's end: raise that, and submit the job again."
        return ValueLostError(msg, remedy, celery_ids=celery_ids)
