"""Why a job stands where it stands, in a sentence for people."""

from jobrunner.states import ENDED_JOB, TaskState
from jobrunner.store.leases import TrackerStatus
from jobrunner.store.reading import JobView


def why_waiting(view: JobView, tracker: TrackerStatus | None, workers: int) -> str | None:
    """Return what an unfinished job waits for besides its own tasks, or None if nothing is in its way."""
    if view.state in ENDED_JOB:
        return None
    if tracker is None or not tracker.alive:
        return "no tracker is running: start one with `jobrunner up` or `jobrunner tracker`"
    if tracker.trouble is not None:
        return tracker.trouble
    if view.applied_at is None:
        return "the tracker has not taken it up yet"
    if workers == 0 and view.counts.get(TaskState.QUEUED):
        return "no worker is online: start one with `jobrunner up` or `jobrunner worker`"
    return None
