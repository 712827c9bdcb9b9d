"""A task of which is kept what its body logs and prints, wherever in a job it stands."""

from functools import partial
from typing import Any

import celery
from celery.app.task import Context
from celery.events.event import Event

from jobrunner.wire import TASK_LOGGED
from workers.gate import is_of_job
from workers.lines import Lines
from workers.logs import collector


class LoggedTask(celery.Task):
    """A task whose log is told while a worker runs it for a job; outside of jobs nothing is kept."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body."""
        request = self.request
        if request.called_directly or request.is_eager or not is_of_job(request) or not self._keeps_log:
            return super().__call__(*args, **kwargs)
        settings = self.app.jobrunner.settings
        lines = Lines(
            partial(self._tell_lines, request),
            limit=settings.log_limit,
            rate=settings.log_rate,
            awaits=collector.await_lines,
        )
        collector.open(lines, alone=not self.app.events.is_main)
        try:
            return super().__call__(*args, **kwargs)
        finally:
            collector.close(lines)

    @property
    def _keeps_log(self) -> bool:
        wanted = self.app.jobrunner.settings.keep_logs and getattr(self, "keeps_log", True)  # ours would hide theirs
        return wanted and not collector.here()  # what a body calls itself is a part of it

    def _tell_lines(self, request: Context, number: int, at: float, text: str) -> bool:
        # Nobody waits for it, not even the task's end: it is told before, and may be read a moment later.
        about = {"uuid": request.id, "root_id": request.root_id, "retries": request.retries}
        event = Event(TASK_LOGGED, hostname=request.hostname, **about, timestamp=at, number=number, text=text)
        return self.app.events.flusher.offer(event)
