"""The request of a worker: its events say which job and which attempt they are about."""

from typing import Any

from celery.worker import request


class Request(request.Request):
    """Adds to every task event what the tracker folds by: the job (`root_id`) and Celery's count of retries."""

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002  Celery's own name for it
        """Send an event of this request."""
        super().send_event(type, root_id=self.root_id, retries=self.request_dict.get("retries", 0), **fields)
