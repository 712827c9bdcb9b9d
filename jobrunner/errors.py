"""Every error that jobrunner raises on purpose: what is wrong, and what to do about it.

Each class carries the exit code that the CLI ends with (design: 2 usage, 3 not found, 4 refused, 5 unreachable), so
that a program and a crontab learn the same thing from the same mistake.
"""

from collections.abc import Collection
from typing import ClassVar


class JobrunnerError(Exception):
    """Root of all; `remedy` is a sentence that says what to do."""

    exit_code: ClassVar[int] = 1

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(f"{problem} {remedy}".strip())
        self.problem = problem
        self.remedy = remedy


class ConfigurationError(JobrunnerError):
    """The Celery app, or a setting, is not fit for durable jobs."""

    exit_code = 2


class InvalidCanvasError(JobrunnerError):
    """What was submitted cannot become a job; `path` leads to the place inside the canvas."""

    exit_code = 2

    def __init__(self, problem: str, remedy: str = "", *, path: str = "canvas") -> None:
        super().__init__(f"{path}: {problem}", remedy)
        self.path = path


class InvalidParametersError(JobrunnerError):
    """The parameters of a named job do not fit its function."""

    exit_code = 2


class NotFoundError(JobrunnerError):
    """No such job, task or named job."""

    exit_code = 3


class KeyConflictError(JobrunnerError):
    """The key belongs to a job with other content."""

    exit_code = 4


class RefusedError(JobrunnerError):
    """The state does not allow it."""

    exit_code = 4


class OutsideJobError(JobrunnerError):
    """What was called works in the body of a job's task alone."""

    exit_code = 4


class UnreachableError(JobrunnerError):
    """The database, the broker or the result backend is away."""

    exit_code = 5


class EventLogFullError(JobrunnerError):
    """The event log has no room, because no tracker reads it: what had to be told first was not done."""

    exit_code = 5


class JobFailedError(JobrunnerError):
    """The job ended without a value: failed or canceled."""

    exit_code = 1


class WaitTimeoutError(JobrunnerError):
    """The job had not ended within the time given, or the order had no answer; it goes on, and the order stands."""

    exit_code = 124


class ValueLostError(JobrunnerError):
    """Values are no longer in the result backend; `celery_ids` says under which ids their tasks had run."""

    def __init__(self, problem: str, remedy: str = "", *, celery_ids: Collection[str] = ()) -> None:
        super().__init__(problem, remedy)
        self.celery_ids = list(celery_ids)


class NoVerdictError(JobrunnerError):
    """A task ended without saying how: neither a value nor an error (A7)."""


class InputLostError(ValueLostError):
    """What a task takes as its first argument is no longer in the result backend: values, or the list that names them.

    Raised before its body is called, so its retry policy has no part in it.
    """


class CommandFailedError(JobrunnerError):
    """A command has failed, and would fail again: by its exit code, a signal, its time, or what it should have made."""


class TemporaryFailureError(JobrunnerError):
    """A command has ended with the exit code of a temporary failure: worth another attempt."""


class WorkDirectoryError(JobrunnerError):
    """No work directory for a command can be made on this worker: maybe on another one, or later."""


class IllegalMoveError(JobrunnerError):
    """A job or task was asked to enter a state that its present one does not lead to."""

    exit_code = 4
