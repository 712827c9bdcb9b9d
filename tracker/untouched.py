"""Attempts of which nothing is heard, of tasks that have an `untouched_timeout`: they are given up, and tried again.

A body may hang while its worker says that it lives. When it was last heard of is told by our own clock, from when we
read of it, so that no worker's clock has a part in it, and every attempt has a full time-out after a takeover.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeAlias

from jobrunner.records import Attempt, Standing, Task
from jobrunner.snapshot import Sent, Snapshot
from jobrunner.states import TaskState
from jobrunner.store import tracking
from tracker.bounds import UNTOUCHED
from tracker.following import conclude
from tracker.holding import void
from tracker.settle import Cause
from tracker.turn import Turn

#: Seconds that a body has to end when it is told to, before it is killed; the rest before it runs elsewhere is longer.
_GRACE = 3.0
_CAUSE = Cause(trigger="untouched time-out")

_Delivery: TypeAlias = tuple[str, int]
_Signs: TypeAlias = frozenset[tuple[int, str, datetime | None, datetime | None]]


@dataclass(slots=True)
class UntouchedWatch:
    """What the present leader has heard of such attempts, by task and delivery: the signs of life, and since when."""

    _heard: dict[_Delivery, tuple[_Signs, float]] = field(default_factory=dict)

    def excuse(self) -> None:
        """Give every attempt a full time-out again: nobody could be heard until now."""
        self._heard.clear()

    def look(self, turn: Turn, moment: float) -> int:
        """Give up what was not heard of for too long, and return how many tasks that were.

        Only to be asked once the event log is drained; `moment` is one of a clock that never jumps.
        """
        watched = tracking.watched_attempts(turn.connection)
        heard = {}
        silent = []
        for delivery, (seconds, attempts) in _by_delivery(watched).items():
            signs = frozenset((one.retries, one.process, one.started_at, one.touched_at) for one in attempts)
            before = self._heard.get(delivery)
            heard[delivery] = before if before is not None and before[0] == signs else (signs, moment)
            if moment - heard[delivery][1] > seconds:
                silent += [(one, seconds) for one in attempts]
        self._heard = heard
        return _give_up(turn, silent) if silent else 0


def _by_delivery(watched: Iterable[tuple[Attempt, float]]) -> dict[_Delivery, tuple[float, list[Attempt]]]:
    """Return what runs of each delivery, with the time-out: if two processes do, both count as one."""
    found: dict[_Delivery, tuple[float, list[Attempt]]] = {}
    for one, seconds in watched:
        found.setdefault((one.task_id, one.delivery), (seconds, []))[1].append(one)
    return found


def _give_up(turn: Turn, silent: Sequence[tuple[Attempt, float]]) -> int:
    """End attempts, whose pool is to end them, and have their tasks sent again once that may have happened.

    A task that an operator has ended comes to that end instead. Return how many tasks that were.
    """
    tasks = _without_grace(turn, tracking.tasks_by_id(turn.connection, {one.task_id for one, _ in silent}))
    lost = [
        replace(one, outcome="lost", standing=Standing.LOST, ended_at=turn.now, exception=f"{UNTOUCHED} {seconds:g} s")
        for one, seconds in silent
        if one.task_id in tasks
    ]
    tracking.update_attempts(turn.connection, lost)
    jobs = tracking.jobs_by_id(turn.connection, {task.job_id for task in tasks.values()})
    for one in lost:
        task = tasks[one.task_id]
        turn.tell(task.job_id, f"{task.id} was given up on {one.worker}: {one.exception}", _CAUSE, task_id=task.id)
    for task in tasks.values():
        void(turn, jobs[task.job_id], task, _GRACE)
    tracking.save_orders(turn.connection, list(jobs.values()))
    conclude(turn, _histories(turn, tasks.values()))
    turn.move_on()
    return len(tasks)


def _without_grace(turn: Turn, tasks: Mapping[str, Task]) -> dict[str, Task]:
    """Return the tasks that are not being ended by an order already, with the time that it gives them for that."""
    ordered = any(one.ordered is not None for one in tasks.values())
    snapshot = tracking.load_snapshot(turn.connection) if ordered else Snapshot(version=0)
    return {
        one.id: one
        for one in tasks.values()
        if snapshot.grace(Sent(root_id=one.job_id, celery_id=one.celery_id)) is None
    }


def _histories(turn: Turn, tasks: Iterable[Task]) -> list[tuple[Task, list[Attempt]]]:
    by_id = {task.id: task for task in tasks if task.state is TaskState.ACTIVE}
    found = tracking.histories_of(turn.connection, by_id)
    return [(task, found[id_]) for id_, task in by_id.items()]
