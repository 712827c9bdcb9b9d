"""Tell workers by the snapshot what is held and what is void, and learn whether they all know."""

from jobrunner.records import Job, Task
from jobrunner.snapshot import Kind
from jobrunner.store import tracking
from tracker.turn import Turn

_HOLDS = (Kind.PAUSED, Kind.CANCELED)


def hold(turn: Turn, job: Job, kind: Kind, grace: float | None = None) -> None:
    """Have workers refuse what they would start of a job.

    A job that is canceled has so many seconds of `grace` for what runs; None lets it finish.
    """
    job.hold_version = tracking.next_version(turn.connection)
    tracking.remove_entries(turn.connection, job.id, _HOLDS)
    tracking.add_entries(turn.connection, kind, [(job.id, "", grace)], job.hold_version, turn.now)


def let_go(turn: Turn, job: Job, *, run: int | None = None) -> None:
    """Have workers start again what they get of a job; of runs before `run` nothing."""
    held = tracking.remove_entries(turn.connection, job.id, _HOLDS)
    if not held and run is None:
        return  # who knows of no hold has nothing to learn
    version = tracking.next_version(turn.connection)
    if held:
        job.hold_version = version
    if run is not None:
        tracking.add_entries(turn.connection, Kind.RUN, [(job.id, "", run)], version, turn.now)


def void(turn: Turn, job: Job, task: Task, grace: float | None) -> None:
    """Have workers refuse the present delivery of a task, and end it if they run it.

    That has so many seconds of `grace`; None lets it finish.
    """
    job.hold_version = tracking.next_version(turn.connection)
    tracking.add_entries(turn.connection, Kind.VOID, [(job.id, task.celery_id, grace)], job.hold_version, turn.now)


def is_known(turn: Turn, job: Job) -> bool:
    """Whether every worker that lives goes by what the snapshot says of a job now.

    One that starts has acknowledged a version before it takes its first message. So once all is read that workers have
    told after the snapshot was stored, nobody goes by an older one without being known.
    """
    if job.hold_version is None:
        return True
    return turn.drained and workers_know(turn, job.hold_version)


def workers_know(turn: Turn, version: int) -> bool:
    """Whether workers could read this version of the snapshot, and all that live have said that they go by it."""
    return turn.stored >= version and not tracking.unacknowledged(turn.connection, version)
