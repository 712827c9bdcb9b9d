"""What the body of a task can do for its job, and should know of it: `from jobrunner import current`.

Everything here is about the task that this worker runs at the moment, in the thread that runs it. To add, or to have
others skipped, it has to be one that the tracker has sent: what another task has called, with `delay` say, has no place
in the plan. Progress is that of any task.
"""

from typing import Any

from celery._state import get_current_worker_task
from celery.canvas import Signature

from jobrunner.errors import OutsideJobError
from jobrunner.reports import report_of

#: Whether this task, or its job, was canceled: look now and then, as `current.canceled`, and return early. True within
#: a second or two of the order, and from then on. A pool of processes ends the task by itself, unless the order was to
#: let finish; threads, greenlets and solo workers have no other way. False where no worker runs a task.
canceled: bool


def __getattr__(name: str) -> bool:
    """Look afresh whenever `canceled` is asked for."""
    if name != "canceled":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return bool(getattr(get_current_worker_task(), "jobrunner_canceled", False))


def add(canvas: Signature) -> None:
    """Add a canvas to the job: it runs when this task has completed, and what comes after this task waits for it (A3).

    It takes no value from this task, and nobody takes its own. If this attempt fails, what it has added is deleted and
    never runs (A4). May be called often; a group in one call is cheaper than many calls. Returns when the event log
    has it.

    Raises:
        InvalidCanvasError: it is no canvas, or a task of it cannot be sent; nothing is added.
        EventLogFullError, UnreachableError: the event log does not take it; this attempt cannot succeed any more.
        OutsideJobError: nothing runs here that is a task of a job.
    """
    _of_attempt("jobrunner_growth").add(canvas, expands=False)


def expand(canvas: Signature) -> None:
    """Add a canvas as `add` does, and make its value the value of this task, whatever the body returns.

    May be called once in an attempt. `self.replace(canvas)` does this, and ends the body.

    Raises:
        InvalidCanvasError, EventLogFullError, UnreachableError, OutsideJobError: as `add`.
        RefusedError: this attempt has been expanded already.
    """
    _of_attempt("jobrunner_growth").add(canvas, expands=True)


def skip_next(why: str, *names: str) -> None:
    """Have what comes directly after this task in its chain skipped, because there is nothing to do for it (N2).

    That is the next task, or the next group with all that is nested in it; with names, of that group the branches that
    begin with tasks of these names. It is skipped when this task has ended well, and never sent: what stands behind it
    runs, and takes None from there. What this task has added runs all the same. May be called often.

    Raises:
        InvalidParametersError: a name is none.
        OutsideJobError: nothing runs here that is a task of a job.
    """
    _of_attempt("jobrunner_skips").add(why, names)


def progress(done: float, total: float | None = None, message: str | None = None) -> None:
    """Say how far this task is: `done` of `total`, or a share from 0 to 1; and in a few words what it is at (C2).

    `jobrunner tasks` and `watch` show it. May be called as often as one likes: it is told twice a second, the first
    and the last report always, and never goes back within an attempt. Returns at once. Where no worker runs a task it
    does nothing.

    Raises:
        InvalidParametersError: these are no numbers from 0 up, or there is no total and the share exceeds 1.
    """
    report = report_of(done, total, message)
    reports = getattr(get_current_worker_task(), "jobrunner_reports", None)
    if reports is not None:
        reports.add(report)


def _of_attempt(name: str) -> Any:
    """Return what the task has of the attempt that runs here."""
    found = getattr(get_current_worker_task(), name, None)
    if found is None:
        msg = "No task of a job runs here."
        raise OutsideJobError(
            msg, "Call it in the body of a task, in the thread of the body, of a job that was submitted."
        )
    return found
