"""Retries that a worker's main process sends: of a task whose process has ended, or was ended, without a word (A7).

As Celery does it for a lost process (`Request._retry_worker_lost`), but within jobs whatever the task's options say of
that, after the waits of its own policy, and never without bound. Nothing is stored: the state of a job's task is in the
database.
"""

import logging
from typing import Any

from celery import signals
from celery.exceptions import Retry, TimeLimitExceeded, WorkerLostError
from celery.utils.saferepr import saferepr
from kombu.utils.encoding import safe_str

from jobrunner.retry_policy import last_retry, max_retries, wait

logger = logging.getLogger(__name__)

#: Seconds that a process has to end which has run into its hard time limit, before its task may start elsewhere.
_LAST_GASP = 1.0


def is_worth_another(task: Any, error: BaseException) -> bool:
    """Whether an end that the body has not chosen is to be followed by a retry.

    A lost process always is. A hard time limit is an error as others are: if the task's own policy covers it.
    """
    if isinstance(error, TimeLimitExceeded):
        covered = isinstance(error, tuple(getattr(task, "autoretry_for", ())))
        return covered and not isinstance(error, tuple(getattr(task, "dont_autoretry_for", ())))
    brought_back = task.reject_on_worker_lost and not task.retry_on_worker_lost  # by the broker
    return isinstance(error, WorkerLostError) and not brought_back


def try_again(request: Any, error: BaseException, exc_info: Any) -> bool:
    """Send the retry of a request; False if there is none left, or it cannot be sent: then the task has failed."""
    task, context = request.task, request._context  # noqa: SLF001  as Celery's own retry does
    if context.retries >= last_retry(max_retries(task)):
        return False
    countdown = wait(task, context.retries)
    if isinstance(error, TimeLimitExceeded):
        countdown = max(countdown, _LAST_GASP)
    try:
        task.signature_from_request(context, countdown=countdown, retries=context.retries + 1).apply_async()
    except Exception:  # whatever ails the broker, or the message: Celery ends the task then, too
        logger.exception("The retry of task %s could not be sent.", request.id, extra={"action": "retry-not-sent"})
        return False
    if task.acks_late:
        request.acknowledge()
    request.send_event("task-retried", exception=saferepr(error), traceback=safe_str(exc_info.traceback))
    _tell_hooks(request, Retry(exc=error, when=countdown), exc_info)
    logger.warning("Task %s[%s] retry in %gs: %r", task.name, request.id, countdown, error)
    return True


def _tell_hooks(request: Any, reason: Retry, exc_info: Any) -> None:
    """Call what the user has for retries."""
    task, context = request.task, request._context  # noqa: SLF001
    task.request_stack.push(context)
    try:
        task.on_retry(reason.exc, request.id, request.args, request.kwargs, exc_info)
        signals.task_retry.send(sender=task, request=context, reason=reason, einfo=exc_info)
    finally:
        task.request_stack.pop()
