"""How far what is shown can be trusted: it is what a tracker has written down."""

from jobrunner.cli.output.times import duration
from jobrunner.store.leases import TrackerStatus


def doubt(tracker: TrackerStatus | None, behind: float | None) -> str | None:
    """Say why what is shown may not be how things are; None if nothing speaks against it.

    `behind` is how many seconds old it may be, if that matters.
    """
    if tracker is None or not tracker.alive:
        ago = "" if behind is None else f" {duration(behind)} ago"
        return f"No tracker is running: this is what the last one knew{ago}."
    if tracker.trouble is not None:
        return f"The tracker waits: {tracker.trouble}."
    return None if behind is None else f"The tracker is {late(behind)}."


def late(behind: float) -> str:
    """Say that the tracker is so many seconds behind, and what that means."""
    return f"{duration(behind)} behind: what happened since may not show yet"
