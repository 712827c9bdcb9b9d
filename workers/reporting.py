"""What tasks say of how far they are, by `current.progress` or in Celery's own ways, reaches the tracker (C2)."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from celery.app.task import Context
from celery.events.event import Event
from celery.utils.time import utcoffset

from jobrunner.errors import NoVerdictError
from jobrunner.reports import read_report
from jobrunner.wire import HEADER, TASK_PROGRESS
from workers.logged import LoggedTask
from workers.reports import Reports
from workers.verdict import retry_without_verdict

#: The state by which Celery's users show progress.
_PROGRESS = "PROGRESS"


class ReportingTask(LoggedTask):
    """A task whose reports are told, at most twice a second, when a worker runs it: in a job or outside of any."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body; what it has reported last is told before its end."""
        request = self.request
        untold = request.is_eager and not self.jobrunner_inline
        # A body may call its own task, with a copy of the request: all are reports of the outermost call.
        if request.called_directly or untold or self.jobrunner_reports is not None:
            return super().__call__(*args, **kwargs)
        request.jobrunner_reports = reports = Reports(partial(self._tell_progress, request))
        try:
            value = super().__call__(*args, **kwargs)
            self.check_progress()
        finally:
            reports.end()
        return value

    @property
    def jobrunner_inline(self) -> bool:
        """Whether it is a task of a job that `jobrunner.testing` runs: it may ask no server, and store nothing."""
        return bool(self.request.is_eager) and getattr(self.request, HEADER, None) is not None

    def check_progress(self) -> None:
        """Let an attempt fail softly that ends well although it has not said that all is done, if it must have."""
        reports = self.jobrunner_reports
        required = getattr(self, "require_progress", False)  # no attribute of ours: it would hide the task's own
        if not required or reports is None or (reports.last and reports.last.share == 1.0):
            return
        said = f"its last report is {reports.last.share:g}" if reports.last else "it has reported no progress"
        msg = f"It ended, and {said}."
        raise retry_without_verdict(self, NoVerdictError(msg, "With require_progress the last one must be 1."))

    @property
    def jobrunner_reports(self) -> Reports | None:
        """What this attempt has reported; None where no worker runs it."""
        return getattr(self.request, "jobrunner_reports", None)

    def _tell_progress(self, request: Context, told: Mapping[str, Any]) -> None:
        # Without `pid`: that of an execution is the worker's main process, and this may be another.
        about = {"uuid": request.id, "root_id": request.root_id, "retries": request.retries}
        sender = {"hostname": request.hostname, "utcoffset": utcoffset(), "clock": self.app.clock.forward()}
        self.app.events.tell_first(Event(TASK_PROGRESS, **{**told, **about, **sender}), monitored=True)

    def send_event(self, type_: str, retry: bool = True, retry_policy: Any = None, **fields: Any) -> Any:
        """Send an event of the body's own, as Celery does; one that says how far the task is counts as a report."""
        report = read_report(fields) if type_ == TASK_PROGRESS else None
        if report is None or self.jobrunner_reports is None:
            return super().send_event(type_, retry=retry, retry_policy=retry_policy, **fields)
        self.jobrunner_reports.add(report, fields)
        return None

    def update_state(self, task_id: str | None = None, state: str | None = None, meta: Any = None, **more: Any) -> None:
        """Store a state of the body's own, as Celery does; one that says how far the task is counts as a report."""
        if not self.jobrunner_inline:
            super().update_state(task_id, state, meta, **more)
        if state != _PROGRESS or task_id not in {None, self.request.id} or not isinstance(meta, Mapping):
            return
        report = read_report(meta)
        if report is not None and self.jobrunner_reports is not None:
            self.jobrunner_reports.add(report)
