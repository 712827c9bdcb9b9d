"""What ends without the verdict that was asked of it fails softly: by the task's own policy, as if its body had raised.

Celery's `autoretry_for` works inside the body, and this is judged after it.
"""

from typing import TYPE_CHECKING, Any

from celery.utils.time import get_exponential_backoff_interval

from jobrunner.errors import NoVerdictError

if TYPE_CHECKING:
    from celery import Task
    from celery.exceptions import Retry


def retry_without_verdict(task: "Task", error: NoVerdictError) -> "Retry":
    """Send the task again, after as long as it would rest after an exception, and return what its call is to raise.

    Raises:
        NoVerdictError: its retries are used up.
    """
    options: dict[str, Any] = dict(getattr(task, "retry_kwargs", {}))
    backoff = float(getattr(task, "retry_backoff", False))
    if backoff:
        options["countdown"] = get_exponential_backoff_interval(
            factor=int(max(1.0, backoff)),
            retries=task.request.retries,
            maximum=int(getattr(task, "retry_backoff_max", 600)),
            full_jitter=getattr(task, "retry_jitter", True),
        )
    return task.retry(exc=error, throw=False, **options)
