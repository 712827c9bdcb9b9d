"""JobRunner: binds durable jobs to an ordinary Celery app, new or existing."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from celery import Celery
from celery.canvas import Signature
from celery.utils.imports import symbol_by_name

from jobrunner import binding, commands, prerequisites, submit
from jobrunner.errors import NotFoundError, RefusedError
from jobrunner.failure_policy import FailurePolicy
from jobrunner.handle import Job
from jobrunner.named import NamedJob
from jobrunner.order_arguments import check_labels
from jobrunner.retry_policy import RETRY_POLICY
from jobrunner.servers import check_backend
from jobrunner.settings import Settings
from jobrunner.states import FailureRule, JobState, PartialRule
from jobrunner.store import orders
from jobrunner.store.database import Database
from jobrunner.store.orders import Selection
from jobrunner.submit import Submission
from jobrunner.text import check_texts
from jobrunner.waking import wake_tracker

#: How a job runs with `task_always_eager`; by path, for it imports this module.
_INLINE = "jobrunner.testing:run_submission"

_F = TypeVar("_F", bound=Callable[..., Any])


class JobRunner:
    """Durable jobs on a Celery app.

    Bind it after the app is configured. It prepares the app's tasks, also those with a base of their own, and sets what
    tracking needs without overriding what the user set. An app without broker and result backend gets those of the
    settings, else the embedded ones of `jobrunner up`.

    Raises:
        ConfigurationError: the app has no result backend, or one that cannot hand values from task to task, or an
            events class of its own; or a setting is not what it should be.
    """

    def __init__(self, app: Celery, *, database: str | None = None) -> None:
        """Bind to `app`.

        `database` is a SQLAlchemy URL; by default that of the settings, else a SQLite file below `.jobrunner`.
        """
        self.app = app
        self.settings = Settings.read()
        self.database = Database(database or self.settings.database_url)
        self.named: dict[str, NamedJob] = {}
        #: Whether the app uses the broker that `jobrunner up` starts.
        self.embedded = binding.configure(app, self.settings)
        check_backend(app)
        binding.set_classes(app)
        app.jobrunner = self

    @classmethod
    def of(cls, app: Celery) -> "JobRunner":
        """Return the runner bound to an app, binding one if there is none: an existing app needs no change."""
        return getattr(app, "jobrunner", None) or cls(app)

    # ---- for developers ------------------------------------------------------------------------------------

    def task(self, *args: Any, **options: Any) -> Any:
        """Decorate a function as a task that retries soft failures: `@app.task` with the options of `RETRY_POLICY`.

        After an exception it waits, and is tried again, three times:

            attempt            1           2           3           4
            seconds between      up to 1     up to 2     up to 4

        A wait is a whole number of seconds from 0 to 2 to the power of the retries before, at most `retry_backoff_max`:
        1, 2, 4, 8 … 512, 600, 600 with a larger `max_retries`. Each is as likely as the others, so that tasks which
        failed together do not come back together; with `retry_jitter=False` it is the largest. A process that ends, a
        hard time limit, and an end without a verdict (`Ignore`, `Reject`) are waited for as long. A worker that is lost
        uses up a retry, too. With `max_retries=None` a task of a job has 20 attempts.

        With `untouched_timeout=60` an attempt is given up, ended and tried again of which nothing is heard for so many
        seconds: neither its start nor a word of its progress.
        With `replayable=True` it may also run again after it has completed, if its value is lost before it was used.
        With `discovers=True` it makes its job known: while only such tasks have started, that is under construction.
        With `skip_empty=True` it is skipped, and never sent, if what it takes from before is empty: None, or an empty
        list, tuple, set, dictionary or text; of a group, each of its values.
        With `require_progress=True` it has completed only if its last `current.progress` says that all is done, and
        else it has failed softly (A6).
        With `keeps_log=False` nothing is kept of what it logs and prints.
        """
        if len(args) == 1 and callable(args[0]) and not options:
            return self.app.task(**RETRY_POLICY)(args[0])
        return self.app.task(*args, **{**RETRY_POLICY, **options})

    def command(
        self,
        argv: str | Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        outputs: Sequence[str] = (),
        success: Collection[int] = (0,),
        temporary: Collection[int] = (commands.TEMPORARY,),
        grace: float = commands.GRACE,
        shell: bool = False,
    ) -> Signature:
        """Return a task that runs an executable, such as `jobs.command(["convert", "a.png", "b.jpg"])`.

        It runs on whatever worker gets it, in a work directory of its own, and takes nothing from the task before. Its
        value is the record of what came of it, as `CommandResult.read` takes it. It may have so many seconds
        (`timeout`) until it and all that it has started get TERM, and after the `grace` KILL. `outputs` are the files
        that the record lists; `success` and `temporary` are exit codes: failures that are not temporary are not
        retried. What is given here, `env` too, is kept in the database: secrets belong on the worker, in the
        `environment` of a `CommandTask` of your own.

        Raises:
            InvalidParametersError: one of these is not what it should be.
        """
        command = commands.Command(
            argv=argv,
            environment=env or {},
            timeout=timeout,
            grace=grace,
            outputs=outputs,
            success=success,
            temporary=temporary,
            shell=shell,
        )
        return self.app.signature(commands.NAME, kwargs=command.as_arguments(), immutable=True)

    def job(
        self,
        name: str,
        *,
        on_failure: str = FailureRule.CONTINUE,
        threshold: float | None = None,
        propagate_failures: bool | None = None,
        on_partial: str = PartialRule.FAIL,
    ) -> Callable[[_F], _F]:
        """Register a function that returns a canvas under a name, for `jobrunner submit NAME key=value …`.

        Its parameters are converted by their annotations; the function itself stays as it is. What failures mean for
        jobs that are submitted by the name is said as for `submit`, and each submission may say otherwise.

        Raises:
            InvalidParametersError: that means nothing.
        """
        policy = FailurePolicy.of(
            on_failure=on_failure, threshold=threshold, propagate_failures=propagate_failures, on_partial=on_partial
        )

        def register(function: _F) -> _F:
            self.named[name] = NamedJob(name=name, function=function, policy=policy)
            return function

        return register

    def submit(
        self,
        canvas: Signature,
        *,
        name: str | None = None,
        key: str | None = None,
        barrier: bool = False,
        paused: bool = False,
        after: Iterable[Job | str] = (),
        wait_for_failed: bool = False,
        on_failure: str = FailureRule.CONTINUE,
        threshold: float | None = None,
        propagate_failures: bool | None = None,
        on_partial: str = PartialRule.FAIL,
    ) -> Job:
        """Make a canvas a job and return its handle; the tracker sends its tasks.

        `key` makes it idempotent: the same key with the same content returns the job that has it. With a `barrier` no
        task starts before every task of a lower sequence has ended well; else it waits for what it depends on alone.
        If it is new, and `paused`, nothing of it starts before `resume`; nor before all jobs have completed that it is
        `after`: ids, keys or handles, also those of jobs that will be submitted later. One that has failed or was
        canceled is waited for only if you say so with `wait_for_failed`.
        A failure leaves running what does not depend on it; with `on_failure="cancel"` nothing more of the job starts
        after it, and with `threshold=0.1` after a tenth of its tasks has failed.
        With `propagate_failures`, tasks that can never run because one before them has failed are failed as well, at
        once; without, they stay pending until the job has ended. None is as the tracker is told.
        A task that ended partial fails the job in the end; with `on_partial="tolerate"` it completes, `with-errors`.
        Needs the database only: with the broker away the job stays `queued`.
        With Celery's `task_always_eager` it needs nothing: the job runs here and now, as `jobrunner.testing` runs it,
        and the handle is of one that has ended.

        Raises:
            InvalidCanvasError: it is no canvas, or a task of it cannot be sent; nothing is written.
            InvalidParametersError: what else is given does not fit; nothing is written.
            KeyConflictError: the key belongs to a job with other content.
            RefusedError: it would wait for itself, or for a job that has failed or was canceled; nothing is written.
            UnreachableError: the database is away; nothing is written.
        """
        policy = FailurePolicy.of(
            on_failure=on_failure, threshold=threshold, propagate_failures=propagate_failures, on_partial=on_partial
        )
        waits_for = prerequisites.after(after, key=key, failed=wait_for_failed)
        return self._submit(canvas, name=name, key=key, barrier=barrier, paused=paused, policy=policy, after=waits_for)

    def _submit(self, canvas: Signature, *, paused: bool, **options: Any) -> Job:
        self.prepare_tasks()
        prepared = submit.prepare(self.app, canvas, paused=paused, **options)
        if self.app.conf.task_always_eager:
            return self._run_inline(prepared, paused=paused)
        job_id, new = submit.write(self.database, prepared)
        if new:
            self._wake_tracker()
        return self.get(job_id)

    def _run_inline(self, prepared: Submission, *, paused: bool) -> Job:
        """Run a job to its end, as Celery runs a task with `task_always_eager`, and let its error out if that is set.

        Nothing looks up its key, and what it is `after` has ended.
        """
        if paused:
            msg = "With task_always_eager a job runs while it is submitted, and this one is to be paused."
            raise RefusedError(msg, "Leave out `paused`, or run a tracker.")
        job = symbol_by_name(_INLINE)(self, prepared)
        if self.app.conf.task_eager_propagates and job.error is not None:
            raise job.error
        return job

    def submit_named(
        self,
        name: str,
        parameters: Mapping[str, str],
        *,
        key: str | None = None,
        barrier: bool = False,
        paused: bool = False,
        after: Iterable[Job | str] = (),
        wait_for_failed: bool = False,
        on_failure: str | None = None,
        threshold: float | None = None,
        propagate_failures: bool | None = None,
        on_partial: str | None = None,
    ) -> Job:
        """Submit the job that `@jobs.job(name)` describes, with parameters given as text.

        What failures mean for it is as it says there, where nothing else is given.
        """
        canvas = self.canvas_of(name, parameters)
        policy = self.named[name].policy.changed(
            on_failure=on_failure, threshold=threshold, propagate_failures=propagate_failures, on_partial=on_partial
        )
        waits_for = prerequisites.after(after, key=key, failed=wait_for_failed)
        return self._submit(canvas, name=name, key=key, barrier=barrier, paused=paused, policy=policy, after=waits_for)

    def canvas_of(self, name: str, parameters: Mapping[str, str]) -> Signature:
        """Return the canvas of the job that `@jobs.job(name)` describes, with parameters given as text."""
        if name not in self.named:
            known = ", ".join(sorted(self.named)) or "none"
            msg = f"There is no job named {name!r} in the app {self.app.main!r}."
            raise NotFoundError(msg, f"It has {known}; @jobs.job({name!r}) adds one.")
        return self.named[name].canvas(parameters)

    def get(self, job_id: str) -> Job:
        """Return the handle of a job by its id; whether it exists shows when it is asked."""
        return Job(job_id, app=self.app, database=self.database, wake=self._wake_tracker)

    def find(
        self,
        *,
        states: Collection[JobState] = (),
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        older_than: timedelta | None = None,
    ) -> list[Job]:
        """Return the jobs that are in one of these states, and bear this name and all of these labels, oldest first.

        `older_than` leaves out those submitted since. So `[job.pause() for job in jobs.find(name="nightly")]` pauses
        all jobs of a name.
        """
        check_texts(name=name)
        check_labels(labels or {})
        chosen = Selection(
            states=[JobState(one) for one in states], name=name, labels=labels or {}, older_than=older_than
        )
        with self.database.read() as connection:
            found = orders.select_jobs(connection, chosen)
        return [self.get(one.job_id) for one in found]

    # ---- binding -------------------------------------------------------------------------------------------

    def prepare_tasks(self) -> None:
        """Mix our classes into every registered task, also into those that came after the app was finalized."""
        binding.prepare_tasks(self.app)

    def changes(self) -> list[str]:
        """Say in sentences what binding did to the app, and where the user's own setting stands against it."""
        return binding.changes(self.app)

    def _wake_tracker(self) -> None:
        wake_tracker(self.app)
