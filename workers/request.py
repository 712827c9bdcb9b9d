"""The request of a worker: its events say which job and which attempt they are about."""

from typing import Any

from celery.worker import request

from jobrunner.errors import InputLostError
from jobrunner.wire import LOST

#: Lost values that an event names; when these are there again, the next attempt tells of more.
_NAMED = 1_000


class Request(request.Request):
    """Adds to every task event what the tracker folds by: the job (`root_id`) and Celery's count of retries.

    Of a task that failed because what it takes is lost it tells that, too.
    """

    #: What our own fields are besides those of every event, while one is sent.
    _told: dict[str, Any] | None = None

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """Handle that the task has failed, by an exception from the process that ran it."""
        error = exc_info.exception
        if isinstance(error, request.ExceptionWithTraceback):
            error = error.exc
        if isinstance(error, InputLostError):
            self._told = {LOST: error.celery_ids[:_NAMED]}
        return super().on_failure(exc_info, *args, **kwargs)

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002  Celery's own name for it
        """Send an event of this request."""
        fields |= {"root_id": self.root_id, "retries": self.request_dict.get("retries", 0), **(self._told or {})}
        super().send_event(type, **fields)
