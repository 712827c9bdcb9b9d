"""Jobs that wait for others: released when all have completed (C4), failed with them if failures propagate (C5).

The plan of a job that waits is not open: its tasks are pending. So nothing of it can be sent, whatever is ordered of it
meanwhile, and to release it is to open its plan.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from jobrunner.records import Job, Link
from jobrunner.states import WELL, FailureReason, JobState, TaskState
from jobrunner.store import tracking
from jobrunner.text import NAME, bounded
from tracker.rebuild import rebuild
from tracker.settle import Cause, move_job

if TYPE_CHECKING:
    from tracker.turn import Turn

#: Jobs that one turn tells that another one has ended, and steps from job to job that it takes: bounds how long others
#: wait for the database.
_LINKS = 500
_STEPS = 20
#: What comes before the job that is the cause of it all, in notes of jobs and tasks.
_UPSTREAM = "upstream: "
#: States of a job that waits, and has not begun.
_WAITING = frozenset({JobState.WAITING, JobState.PAUSED})


def take_up(turn: "Turn", job_ids: Collection[str]) -> None:
    """Take up new jobs: those that wait for nothing begin."""
    waiting = tracking.find_prerequisites(turn.connection, job_ids)
    turn.open_plans([one for one in job_ids if one not in waiting])
    _follow(turn, tracking.links_of(turn.connection, waiting, propagates=turn.propagates) if waiting else [])


def tell_dependents(turn: "Turn") -> None:
    """Let the jobs go on, or fail, that wait for those that have ended in this turn, and those that wait for them."""
    left = _LINKS
    for _ in range(_STEPS):
        ended, turn.ended = turn.ended, set()
        links = tracking.links_on(turn.connection, ended, left, propagates=turn.propagates) if ended else []
        if not links:
            return
        left -= len(links)
        _follow(turn, links)
        turn.settle()
        if not left:
            turn.ended |= ended  # there may be more that wait for these
            break
    tracking.begin_chores(turn.connection, turn.ended)
    turn.goes_on = True


def _follow(turn: "Turn", links: Sequence[Link]) -> None:
    """Let jobs follow what they wait for: that has completed, or will not."""
    jobs = tracking.jobs_by_id(turn.connection, {one.job_id for one in links})
    met = [one for one in links if one.state is JobState.COMPLETED]
    tracking.meet(turn.connection, met, turn.now)
    for one in met:
        jobs[one.job_id].unmet -= 1
    last = {one.job_id: one for one in met if not jobs[one.job_id].unmet and jobs[one.job_id].state in _WAITING}
    for one in last.values():
        _release(turn, jobs[one.job_id], one)
        turn.changes.add(one.job_id, TaskState.PENDING, 0)  # what it had to do may have been ended by order
    lost = {one.job_id: one for one in links if one.state is not JobState.COMPLETED}
    failed = defaultdict[str, list[Job]](list)
    for one in lost.values():
        failed[_root(one)].append(jobs[one.job_id])
    for note, some in failed.items():
        _fail(turn, some, note)
    tracking.update_jobs(turn.connection, jobs.values())
    _open(turn, [jobs[job_id] for job_id in last])


def _release(turn: "Turn", job: Job, last: Link) -> None:
    """Let a job wait no more, now that the last one that it waited for has completed."""
    cause = Cause(trigger=bounded(f"{last.name} [{last.on_job}] completed", NAME))
    if job.state is JobState.WAITING:
        turn.history.append(move_job(job, JobState.QUEUED, cause, turn.now))
    else:
        turn.tell(job.id, "All that it waited for has completed; it is paused.", cause)


def _open(turn: "Turn", jobs: Sequence[Job]) -> None:
    """Open the plans of jobs; one of which something has ended well already, by order, goes on behind that."""
    turn.goes_on |= bool(jobs)
    begun = [one for one in jobs if any(one.counts[state] for state in WELL)]
    turn.open_plans([one.id for one in jobs if one not in begun])
    for job in begun:
        rebuilt = rebuild(
            job.id, tracking.blocks_of(turn.connection, job.id), tracking.children_of(turn.connection, job.id)
        )
        for place in rebuilt.opened:
            turn.open(job.id, place)


def _root(link: Link) -> str:
    """Return a note that names what is the cause: another job, maybe not the one that is waited for itself."""
    if link.reason == FailureReason.UPSTREAM and (link.note or "").startswith(_UPSTREAM):
        return str(link.note)
    what = "failed" if link.state is JobState.FAILED else "was canceled"
    return f"{_UPSTREAM}{link.name} [{link.on_job}] {what}"


def _fail(turn: "Turn", jobs: Sequence[Job], note: str) -> None:
    """Fail jobs that wait in vain, and all their tasks."""
    cause = Cause(trigger=bounded(note, NAME))
    for job in jobs:
        turn.history.append(move_job(job, JobState.FAILED, cause, turn.now, reason=FailureReason.UPSTREAM))
        job.note, job.ended_at = note, turn.now
        job.chore = job.chore or job.held  # what was ordered is over
    for job_id, discovers, number in tracking.fail_pending(turn.connection, [one.id for one in jobs], note, turn.now):
        turn.changes.move_many(job_id, TaskState.PENDING, TaskState.FAILED, number, discovers=discovers)
