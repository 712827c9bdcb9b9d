"""What one attempt of a task adds to its job: written into the event log before the body goes on."""

from typing import Any

from celery import Celery
from celery.app.task import Context
from celery.events.event import Event

from jobrunner import ids
from jobrunner.additions import parts
from jobrunner.errors import JobrunnerError, RefusedError

#: Seconds for which the event log is waited for.
_PATIENCE = 30.0


class Growth:
    """Additions of one attempt; all of them will stand behind its task, in a group."""

    def __init__(self, app: Celery, request: Context) -> None:
        self._app, self.request = app, request
        self._chain, self._group = ids.uuid7(), ids.uuid7()
        self._number = 0
        self._expanded = False
        self._failed: JobrunnerError | None = None

    def add(self, canvas: object, *, expands: bool) -> None:
        """Add a canvas; see `jobrunner.current`."""
        if expands and self._expanded:
            msg = "This task has been expanded already, and has one value."
            raise RefusedError(msg, "Put what it shall yield into one canvas, such as a group, or use current.add.")
        told = parts(self._app, canvas, chain=self._chain, group=self._group, number=self._number, expands=expands)
        self._number += 1
        for part in told:
            self._tell(self._event(part.model_dump(mode="json")))
        self._expanded = self._expanded or expands

    def _tell(self, event: dict[str, Any]) -> None:
        try:
            self._app.events.flusher.tell([event], timeout=_PATIENCE)
        except JobrunnerError as error:
            self._failed = error
            raise

    def check(self) -> None:
        """Raise the error that an addition met: whether the log has it is unknown, so the attempt cannot succeed."""
        if self._failed is not None:
            raise self._failed

    def _event(self, part: dict[str, Any]) -> dict[str, Any]:
        request = self.request
        fields = {"uuid": request.id, "root_id": request.root_id, "retries": request.retries, "part": part}
        event: dict[str, Any] = Event("task-added", hostname=request.hostname, **fields)
        return event
