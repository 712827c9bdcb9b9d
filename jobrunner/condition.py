"""Why a job stands where it stands, in a sentence for people, and how old that knowledge is (N3)."""

import shlex
from collections.abc import Sequence
from datetime import datetime

from jobrunner.order_kinds import OrderKind
from jobrunner.prerequisites import OVER
from jobrunner.states import ENDED_JOB, JobState, TaskState
from jobrunner.store.held import HeldView
from jobrunner.store.leases import TrackerStatus
from jobrunner.store.orders import OrderView
from jobrunner.store.prerequisites import PrerequisiteView
from jobrunner.store.reading import JobView

#: Seconds that a tracker may be behind without a word about it. One with nothing to do notes every 2 s that it is not.
_PROMPT = 5.0
#: So many workers are named.
_NAMED = 3
#: The order by which a job goes on that does not by itself.
_BRINGS_ON = {
    JobState.FAILED: OrderKind.REQUEUE,
    JobState.CANCELED: OrderKind.REQUEUE,
    JobState.PAUSED: OrderKind.RESUME,
}


def why_waiting(
    view: JobView,
    tracker: TrackerStatus | None,
    workers: int,
    held: HeldView | None = None,
    after: Sequence[PrerequisiteView] = (),
) -> str | None:
    """Return what an unfinished job waits for besides its own tasks, or None if nothing is in its way.

    `held` tells of an order or a failure rule that holds it, or is not done yet; `after` of the jobs that it waits for.
    """
    if view.state in ENDED_JOB:
        return None
    if view.state is JobState.PAUSED and held is not None:  # whatever else is amiss, nothing goes on without that
        return _paused(view, held)
    if (why := _not_taken(tracker, view.applied_at)) is not None:
        return why
    if held is not None:
        return _under_way(view, held)
    if workers == 0 and any(view.counts.get(state) for state in (TaskState.QUEUED, TaskState.SOFT_FAILED)):
        return "no worker is online: start one with `jobrunner up` or `jobrunner worker`"
    return waits_for(after)


def why_unanswered(
    order: OrderView, view: JobView | None, tracker: TrackerStatus | None, held: HeldView | None
) -> str | None:
    """Return what an order waits for that has no answer yet, or None if it is a matter of moments."""
    if (why := _not_taken(tracker, order.applied_at)) is not None:
        return why
    return None if held is None or view is None else _under_way(view, held)


def _not_taken(tracker: TrackerStatus | None, applied_at: datetime | None) -> str | None:
    """Say why no tracker has taken up a job or an order, or does not go on with it."""
    if tracker is None or not tracker.alive:
        return "no tracker is running: start one with `jobrunner up` or `jobrunner tracker`"
    if tracker.trouble is not None:
        return tracker.trouble
    return "the tracker has not taken it up yet" if applied_at is None else None


def waits_for(after: Sequence[PrerequisiteView]) -> str | None:
    """Name the jobs that are waited for, first those that do not go on by themselves; None if there are none."""
    unmet = sorted((one for one in after if one.met_at is None), key=lambda one: one.state not in _BRINGS_ON)
    if not unmet:
        return None
    named = [_job_named(one) for one in unmet[:_NAMED]] + ["…"] * (len(unmet) > _NAMED)
    return f"for {named[0]}" if len(unmet) == 1 else f"for {len(unmet):,} jobs: {'; '.join(named)}"


def _job_named(one: PrerequisiteView) -> str:
    """Name a job, and how it is brought on if somebody has to do that."""
    if one.state is None:
        named, remedy = f"a job with the key or id {one.wanted}", f"submit NAME --key {shlex.quote(one.wanted)}"
        return f"{named}, which has not been submitted yet: `jobrunner {remedy}`"
    order = _BRINGS_ON.get(one.state)
    remedy = "" if order is None else f": `jobrunner {order} {one.id}`"
    return f"job {one.name or '?'} [{one.id}], which {OVER.get(one.state, f'is {one.state}')}{remedy}"


def _paused(view: JobView, held: HeldView) -> str:
    who = "submitted paused" if held.paused_by is None else f"paused by {held.paused_by}"
    return f"{who}{f' ({held.why})' if held.why else ''}: `jobrunner resume {view.id}`"


def _under_way(view: JobView, held: HeldView) -> str | None:
    """Say what is missing until the job has got where an order, or its failure rule, wants it."""
    if view.state is JobState.REQUEUEING:
        left = "" if held.left is None else f", {held.left:,} to go"
        return f"its tasks are being reset: {held.reset:,} done{left}"
    missing = []
    if held.running:
        named = [f"{one.name or '?'} [{one.task_id}] on {one.worker}" for one in held.running]
        number = held.running_number
        tasks = "1 task still runs" if number == 1 else f"{number:,} tasks still run"
        missing.append(f"{tasks}: {_listed(named, number)}")
    if names := held.unacknowledged:
        workers = "1 worker has" if len(names) == 1 else f"{len(names):,} workers have"
        what = "the order" if view.will_fail is None else "that nothing more of it starts"
        missing.append(
            f"{workers} not acknowledged {what}: {_listed(names[:_NAMED], len(names))} (see `jobrunner workers`)"
        )
    text = "; ".join(missing) or None
    return text if view.will_fail is None or text is None else f"it fails ({view.will_fail}) after this: {text}"


def _listed(named: Sequence[str], number: int) -> str:
    return ", ".join([*named, *(["…"] if number > len(named) else [])])


def seconds_behind(view: JobView, tracker: TrackerStatus | None) -> float | None:
    """Return how old what is known of an unfinished job may be, or None if that does not matter.

    It says nothing of workers' clocks, nor of how much is left to read: until so long ago, all was read.
    """
    behind = None if tracker is None else tracker.behind_seconds
    return None if view.state in ENDED_JOB or behind is None or behind < _PROMPT else round(behind, 1)
