"""`CommandTask`: a task that runs an executable instead of a Python function (H2)."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import celery
from celery import Celery
from celery.utils.imports import symbol_by_name

from jobrunner.commands.environment import PASSED_ON
from jobrunner.commands.record import CommandResult
from jobrunner.commands.specification import GRACE, OPTIONS, TEMPORARY, Command
from jobrunner.errors import CommandFailedError
from jobrunner.retry_policy import RETRY_POLICY

#: The task that `jobs.command` sends; every bound app has it.
NAME: Final = "jobrunner.command"

#: Runs it; by path, since `jobrunner` never imports `workers`.
_RUN: Final = "workers.command:run_command"


class CommandTask(celery.Task):
    """Base of a task that runs an executable, in a work directory and with an environment of its own.

    Subclass it, say in `argv` what to run, and register it with `app.register_task(Convert())`:

        class Convert(CommandTask):
            timeout = 60
            outputs = ("*.png",)

            def argv(self, source, width=640):
                return ["convert", source, "-resize", str(width), "out.png"]

    The arguments of the task, and the value that it takes from the task before, are those of `argv`. Exit code 0 is
    success; 111 a temporary failure, which is retried by the task's own policy; any other a failure, which is not.
    """

    abstract = True

    #: Seconds that it may run; None for any number of them.
    timeout: float | None = None
    #: Seconds from TERM to KILL, of the command and all that it has started.
    grace: float = GRACE
    #: The files that its record lists: paths in the work directory, which may have wildcards.
    outputs: Sequence[str] = ()
    success: Collection[int] = (0,)
    temporary: Collection[int] = (TEMPORARY,)
    #: Whether `argv` returns a line for `/bin/sh` instead of a list of words.
    shell: bool = False
    #: What is passed on of the worker's environment; names may have wildcards.
    passed_on: Sequence[str] = PASSED_ON

    # As `@jobs.task` has it; but what a command says by its exit code is final.
    autoretry_for = RETRY_POLICY["autoretry_for"]
    dont_autoretry_for = (CommandFailedError,)
    max_retries = RETRY_POLICY["max_retries"]
    retry_backoff = RETRY_POLICY["retry_backoff"]
    retry_backoff_max = RETRY_POLICY["retry_backoff_max"]
    retry_jitter = RETRY_POLICY["retry_jitter"]
    retry_on_worker_lost = RETRY_POLICY["retry_on_worker_lost"]

    def argv(self, *args: Any, **kwargs: Any) -> str | Sequence[str]:
        """Return the executable and its arguments, as text; with `shell` a line instead."""
        raise NotImplementedError

    def environment(self, *args: Any, **kwargs: Any) -> Mapping[str, str]:  # noqa: ARG002  for those who need them
        """Return what the environment has besides what is passed on; made on the worker, so it may hold secrets."""
        return {}

    def result(self, record: CommandResult) -> Any:
        """Return the value of the task, any that Celery can store; also a `Partial`. The work directory is there."""
        return record.as_value()

    def command(self, *args: Any, **kwargs: Any) -> Command:
        """Return what to run for these arguments."""
        return Command(
            argv=self.argv(*args, **kwargs),
            environment=self.environment(*args, **kwargs),
            **{name: getattr(self, name) for name in OPTIONS},
        )

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command: the body of the task."""
        return self.result(symbol_by_name(_RUN)(self, self.command(*args, **kwargs)))


class _AnyCommand(CommandTask):
    """What `jobs.command` sends: everything is in the arguments."""

    name = NAME

    def command(self, argv: str | Sequence[str], **options: Any) -> Command:
        return Command(argv=argv, **options)


def register(app: Celery) -> None:
    """Give an app the task that `jobs.command` sends, if it has none."""
    if NAME not in app.tasks:
        app.register_task(_AnyCommand())
