"""Why a job stands where it stands, in a sentence for people, and how old that knowledge is (N3)."""

from jobrunner.states import ENDED_JOB, TaskState
from jobrunner.store.leases import TrackerStatus
from jobrunner.store.reading import JobView

#: Seconds that a tracker may be behind without a word about it. One with nothing to do notes every 2 s that it is not.
_PROMPT = 5.0


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


def seconds_behind(view: JobView, tracker: TrackerStatus | None) -> float | None:
    """Return how old what is known of an unfinished job may be, or None if that does not matter.

    It says nothing of workers' clocks, nor of how much is left to read: until so long ago, all was read.
    """
    behind = None if tracker is None else tracker.behind_seconds
    return None if view.state in ENDED_JOB or behind is None or behind < _PROMPT else round(behind, 1)
