"""The base class of every task of a bound app: hands a task of a job the values that it takes."""

import json
from typing import Any

import celery
from celery import chord, group
from celery.app.task import Context
from celery.canvas import _chain
from celery.exceptions import Ignore, Reject, Retry
from celery.utils.functional import maybe_list
from celery.utils.serialization import raise_with_context
from kombu.utils.functional import retry_over_time

from jobrunner.errors import InputLostError, InvalidParametersError, JobrunnerError, NoVerdictError, ValueLostError
from jobrunner.keeping import keeping
from jobrunner.retry_policy import last_retry
from jobrunner.statements import Skip
from jobrunner.values import fetch
from jobrunner.wire import HEADER, RUN_HEADER, TaskHeader
from workers.canceled import is_canceled
from workers.growth import Growth
from workers.reporting import ReportingTask
from workers.skips import Skips, with_skips
from workers.statements import errors_of, statement_of, tell_statement, value_of
from workers.verdict import retry_without_verdict

#: Seconds until an attempt is tried again of which the event log did not take what it had added or stated.
_REST = 5.0


class _ReplacedError(Ignore):
    """Ends the body of a task that was replaced; Celery's own, which no retry policy covers."""


class Task(ReportingTask):
    """Mixed in front of a task's own base. Outside of jobs it changes nothing but how often progress is told.

    As in Celery, a task that is not immutable receives the value of what came before as its first argument. The
    message says where that value lies; it is fetched once per request, just before the call, so that neither the
    broker nor the tracker ever carries it.
    """

    abstract = True

    #: Tells `submit` that workers will treat this task as one of a job.
    jobrunner_prepared = True

    @property
    def backend(self) -> Any:
        """The result backend; what tasks of jobs store there stays until their job lets it go."""
        return keeping(super().backend)

    @backend.setter
    def backend(self, value: Any) -> None:
        celery.Task.backend.fset(self, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body, with the job's value as first argument if it takes one."""
        request = self.request
        # A body may call its own task: that call gets what the body passes, and nothing more, and returns as it does.
        if request.called_directly or getattr(request, "jobrunner_called", False):
            return super().__call__(*args, **kwargs)
        request.jobrunner_called = True
        header: TaskHeader | None = getattr(request, HEADER, None)
        if header is None:
            return self._call_outside(*args, **kwargs)
        if _takes_input(header) or "items_key" in header:
            args = (self._input(header), *_others(header, args))
        try:
            returned = self._run(*args, **kwargs)
            self._check_growth()
            return self._stated(returned)
        except Retry:
            # Celery has sent the retry and would now store "RETRY", maybe over the value of the retry itself, if
            # another process was quick to run it: its check that it overwrites no success is not atomic. The state
            # of a job's task is in the database.
            request.ignore_result = True
            raise

    def _call_outside(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body of a task that the tracker has not sent; one that a task of a job has sent may state as much."""
        try:
            returned = super().__call__(*args, **kwargs)
        except Skip as skip:
            returned = skip
        return self._stated(returned)

    def _stated(self, returned: Any) -> Any:
        """Tell what the body states of its work, if it is one of a job, and return the value that flows on."""
        request = self.request
        statement = with_skips(request, statement_of(returned))
        in_job = getattr(request, HEADER, None) is not None or getattr(request, RUN_HEADER, None) is not None
        if statement is not None and in_job:
            try:
                tell_statement(self.app, request, statement, errors_of(returned))
            except JobrunnerError as error:
                raise self.retry(exc=error, countdown=_REST) from error
        return value_of(returned)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except _ReplacedError:
            return None  # its value is that of the canvas in its place
        except Skip as skip:
            return skip
        except (Ignore, Reject) as error:
            raise self._without_verdict(error) from error
        except SystemExit as error:
            if self._ends_its_process(error):
                raise
            raise self._without_verdict(error) from error
        except JobrunnerError:
            self._check_growth()  # an addition that failed is tried again, whatever the task's own policy covers
            raise

    # ---- retries -------------------------------------------------------------------------------------------

    def retry(self, args: Any = None, kwargs: Any = None, exc: Any = None, *more: Any, **options: Any) -> Any:
        """Send the task once more, as Celery does; in a job never without bound, not even with `max_retries=None`.

        Raises:
            Exception: the one that `exc` is, or that there have been too many retries.
        """
        request, unbounded = self.request, self.max_retries is None and options.get("max_retries") is None
        in_job = not request.called_directly and getattr(request, HEADER, None) is not None
        if unbounded and in_job and request.retries >= last_retry(None):
            if exc:
                raise_with_context(exc)
            msg = f"Can't retry {self.name}[{request.id}]: it has had {request.retries + 1} attempts."
            raise self.MaxRetriesExceededError(msg)
        return super().retry(args, kwargs, exc, *more, **options)

    def _without_verdict(self, error: BaseException) -> Any:
        """Return the retry of an attempt that says neither that it has succeeded nor that it has failed (A7)."""
        return retry_without_verdict(self, NoVerdictError(f"The task ended without saying how: {error!r}."))

    def _ends_its_process(self, error: SystemExit) -> bool:
        """Whether the process ends by this, and the worker's main process sees to it; elsewhere nobody would."""
        gate = getattr(self.app, "jobrunner_gate", None)
        return gate is None or gate.forks or type(error) is not SystemExit

    # ---- orders --------------------------------------------------------------------------------------------

    @property
    def jobrunner_canceled(self) -> bool:
        """Whether it is known that this execution was canceled; see `jobrunner.current`."""
        return not self.jobrunner_inline and is_canceled(self.app, self.request)

    # ---- growing -------------------------------------------------------------------------------------------

    @property
    def jobrunner_growth(self) -> Growth | None:
        """What this attempt adds to its job; None for a task that runs outside of jobs."""
        request = self._sent_request()
        if request is None:
            return None
        if getattr(request, "jobrunner_growth", None) is None:
            request.jobrunner_growth = Growth(self.app, request)
        growth: Growth = request.jobrunner_growth
        return growth

    @property
    def jobrunner_skips(self) -> Skips | None:
        """What this attempt says of what comes next; None for a task that runs outside of jobs."""
        request = self._sent_request()
        if request is None:
            return None
        if getattr(request, "jobrunner_skips", None) is None:
            request.jobrunner_skips = Skips()
        skips: Skips = request.jobrunner_skips
        return skips

    def _sent_request(self) -> Context | None:
        """Return the request that the tracker has sent: a body may call its own task, with a copy of that."""
        sent = (one for one in self.request_stack.stack if getattr(one, HEADER, None) is not None)
        return next(sent, None)

    def _check_growth(self) -> None:
        """Let an attempt fail softly of which an addition may be lost."""
        growth: Growth | None = getattr(self.request, "jobrunner_growth", None)
        try:
            if growth is not None:
                growth.check()
        except JobrunnerError as error:
            raise self.retry(exc=error, countdown=_REST) from error

    def replace(self, sig: Any) -> Any:
        """Put a canvas in the place of this task, and end the body: in a job it is added, and its value is the task's.

        What waits for this task waits for the canvas; callbacks linked to this task get the value of the canvas.
        """
        growth = self.jobrunner_growth
        if growth is None:
            return super().replace(sig)
        self.check_progress()
        callbacks, errbacks = growth.request.callbacks, growth.request.errbacks
        if callbacks and _ends_in_group(sig):  # which calls nobody with its values; as Celery does, always
            gather = self.app.tasks["celery.accumulate"].s(index=0)
            sig = chord(sig, gather) if isinstance(sig, group) else sig | gather
        for callback in maybe_list(callbacks) or ():
            sig.link(callback)
        for errback in maybe_list(errbacks) or ():
            sig.link_error(errback)
        growth.add(sig, expands=True)
        growth.request.callbacks = None  # else they would be called with nothing
        raise _ReplacedError

    # ---- values --------------------------------------------------------------------------------------------

    def _input(self, header: TaskHeader) -> Any:
        """Return what the header stands for; a backend that is away is asked again, for a while."""
        away = getattr(self.backend, "connection_errors", ())
        try:
            return retry_over_time(self._fetch_input, away, (header,), **self.backend.retry_policy)
        except ValueLostError as error:
            raise InputLostError(error.problem, celery_ids=error.celery_ids) from None

    def _fetch_input(self, header: TaskHeader) -> Any:
        if "items_key" in header:
            return self._fetch_list(header["items_key"], "items")
        if "inputs" in header:
            return fetch(self.backend, header["inputs"])
        return fetch(self.backend, self._fetch_list(header["inputs_key"], "inputs"))

    def _fetch_list(self, key: str, of: str) -> Any:
        stored = self.backend.get(key)
        if stored is None:
            msg = f"The list of {of} {key} is no longer in the result backend."
            raise ValueLostError(msg)
        return json.loads(stored)

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Send the task, as Celery does.

        A retry sends the arguments of the message again, which lack the value that the header stands for: they were
        checked at submission, and Celery's check of them would fail here.
        """
        header = (options.get("headers") or {}).get(HEADER)
        if header is None or not _takes_input(header):
            return super().apply_async(args, kwargs, **options)
        sending = {**(self._get_exec_options() or {}), **options}
        return self.app.send_task(self.name, args, kwargs, task_type=self, result_cls=self.AsyncResult, **sending)


def _ends_in_group(canvas: Any) -> bool:
    last = canvas.tasks[-1] if isinstance(canvas, _chain) and canvas.tasks else canvas
    return isinstance(last, group)


def _others(header: TaskHeader, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments besides the one whose place something takes."""
    if _takes_input(header):
        return args
    if not args:
        msg = "The task takes no argument by its position, in whose place the items that failed could be."
        raise InvalidParametersError(msg, "Requeue it without --items.")
    return args[1:]


def _takes_input(header: TaskHeader) -> bool:
    return "inputs" in header or "inputs_key" in header
