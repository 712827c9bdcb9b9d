"""What ends without a verdict fails softly (A7): by the task's own policy, as if its body had raised an error.

Celery's `autoretry_for` works inside the body, and this is judged after it.
"""

from typing import TYPE_CHECKING, Any

from jobrunner.errors import JobrunnerError
from jobrunner.retry_policy import wait

if TYPE_CHECKING:
    from celery import Task
    from celery.exceptions import Retry


def retry_without_verdict(task: "Task", error: JobrunnerError) -> "Retry":
    """Send the task again, after as long as it would rest after an exception, and return what its call is to raise.

    Raises:
        JobrunnerError: the one given; its retries are used up.
    """
    options: dict[str, Any] = dict(getattr(task, "retry_kwargs", {}))
    if getattr(task, "retry_backoff", False):
        options["countdown"] = wait(task, task.request.retries)
    return task.retry(exc=error, throw=False, **options)
