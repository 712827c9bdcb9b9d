"""Requeue: tasks of a job wait again, in batches, and then the plan is counted anew and goes on (F2, F3).

What a task had added to the job, or sent, is removed with it, and made anew when it runs again. Attempts stay; every
task goes on counting its deliveries, so that nothing of an earlier run can be taken for the new one.
"""

from collections import Counter
from collections.abc import Collection, Mapping

from jobrunner.order_kinds import Intent
from jobrunner.order_records import Requeue
from jobrunner.plan import Place
from jobrunner.records import Job, Task
from jobrunner.snapshot import Kind
from jobrunner.states import ENDED_JOB, OPEN_TASK, JobState, TaskState
from jobrunner.store import tracking
from tracker.holding import let_go
from tracker.rebuild import Rebuilt, chains_around, rebuild
from tracker.settle import Cause, move_job
from tracker.turn import Turn
from tracker.worker_failures import lift_blocks

#: Tasks that one turn resets.
BATCH = 5_000
#: States of tasks of which the broker or a worker may have a message.
_SENT = OPEN_TASK - {TaskState.READY}


def begin_requeue(turn: Turn, job: Job, what: Requeue, cause: Cause) -> None:
    """Put a job into the state in which its tasks are reset; workers get another chance, too."""
    lift_blocks(turn, job.id)
    if job.state in ENDED_JOB:
        job.run += 1
        let_go(turn, job, run=job.run)
        tracking.doubt_values(turn.connection, [job.id])
    if what.after is not None:
        task = tracking.tasks_by_id(turn.connection, [what.after])[what.after]
        what = what.with_behind((one.block, one.position) for one in _chains_around(turn, task))
    job.intent = Intent.PAUSE if job.intent == Intent.PAUSE else None
    job.held, job.chore, job.requeue = True, True, what.dumps()
    job.outcome = job.note = job.ended_at = job.will_fail = None
    turn.history.append(move_job(job, JobState.REQUEUEING, cause, turn.now))


def end_requeue(turn: Turn, job: Job) -> None:
    """Leave it at what was reset so far, and count the plan by that."""
    job.requeue = None
    tracking.update_blocks(turn.connection, _rebuilt(turn, job.id).changed)


def _chains_around(turn: Turn, task: Task) -> list[Place]:
    """Return the places of all chains around a task: what comes after one of them comes after it."""
    blocks = tracking.blocks_upward(turn.connection, [task.block_id])
    return list(chains_around(blocks, Place(task.block_id, task.position)))


def open_behind(turn: Turn, task: Task) -> int:
    """Return how many tasks that come after this one are under way."""
    return tracking.count_behind(turn.connection, task.job_id, _chains_around(turn, task), OPEN_TASK)


def may_run(turn: Turn, task: Task) -> bool:
    """Whether all that comes before a task has ended well."""
    rebuilt = _rebuilt(turn, task.job_id)
    first = {place.block: place.position for place in rebuilt.unfinished}
    return all(first.get(one.block, one.position) >= one.position for one in _chains_around(turn, task))


def _rebuilt(turn: Turn, job_id: str) -> Rebuilt:
    blocks, children = tracking.blocks_of(turn.connection, job_id), tracking.children_of(turn.connection, job_id)
    return rebuild(job_id, blocks, children)


def reset_some(turn: Turn, job: Job) -> str | None:
    """Reset the next tasks of a job; when all are, open its plan again and return what was done, for people."""
    what = Requeue.loads(job.requeue)
    rows = tracking.tasks_to_reset(turn.connection, job.id, what, BATCH)
    if rows:
        _reset(turn, job, rows, dict(what.items))
        what = what.counting(len(rows))
    if len(rows) < BATCH:
        rebuilt = _rebuilt(turn, job.id)
        if not rebuilt.stranded:
            tracking.update_blocks(turn.connection, rebuilt.changed)
            for place in rebuilt.opened:
                turn.open(job.id, place)
            job.requeue = None
            return _said(what)
        what = what.with_behind([(place.block, place.position) for place in rebuilt.stranded])
    job.requeue = what.dumps()
    return None


def _said(what: Requeue) -> str:
    """Return what was done, for people."""
    some = f", {len(what.items)} of them with only the items that failed" if what.items else ""
    return f"{what.reset} tasks run again{some}. {what.besides}".strip().rstrip(".")


def _reset(turn: Turn, job: Job, rows: list[tuple[str, TaskState, bool]], items: Mapping[str, int]) -> None:
    ids = [task_id for task_id, _, _ in rows]
    tracking.reset_tasks(turn.connection, ids)
    tracking.give_only_items(turn.connection, [(id_, items[id_]) for id_ in ids if id_ in items])
    for (state, discovers), number in Counter((state, discovers) for _, state, discovers in rows).items():
        turn.changes.move_many(job.id, state, TaskState.PENDING, number, discovers=discovers)
    # What tasks have sent for their other items stays: it is not made anew.
    children, additions = tracking.offspring(turn.connection, [id_ for id_ in ids if id_ not in items])
    gone = list(tracking.count_states(turn.connection, children))
    for one in gone:
        turn.changes.move_many(job.id, one.state, None, one.number, discovers=one.discovers)
    if any(one.state in _SENT for one in gone):  # of a paused job: one that had ended has nothing out
        _void(turn, job, children)
    tracking.ungraft(turn.connection, additions)
    tracking.shrink_levels(turn.connection, children)
    tracking.delete_offspring(turn.connection, children, {one["id"] for one in additions})


def _void(turn: Turn, job: Job, task_ids: Collection[str]) -> None:
    """Have workers refuse messages that may be out of tasks that are about to go.

    Those of a job that had ended are of an earlier run. A paused one goes on in its own, and so does what it has sent.
    """
    tasks = tracking.tasks_by_id(turn.connection, task_ids).values()
    entries = [(job.id, one.celery_id, None) for one in tasks if one.state in _SENT]
    job.hold_version = tracking.next_version(turn.connection)
    tracking.add_entries(turn.connection, Kind.VOID, entries, job.hold_version, turn.now)
