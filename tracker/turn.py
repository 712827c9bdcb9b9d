"""One turn of the tracker: everything that happens between BEGIN and COMMIT.

A turn folds a batch of events into attempts and tasks (`tracker.folding`), takes up new jobs and orders
(`tracker.orders`), moves plans on, does a part of what orders leave to do (`tracker.chores`), puts what is ready into
the outbox (`tracker.sending`), and settles the jobs that were touched. It loads and writes rows in bulk; no statement
is issued per task.
"""

import logging
import math
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from jobrunner.order_kinds import Intent
from jobrunner.plan import Place
from jobrunner.records import HistoryLine, Task
from jobrunner.states import ENDED_JOB, ENDED_TASK, WELL, CancelReason, TaskState, check_task_move
from jobrunner.store import tracking
from tracker.advance import advance, retreat
from tracker.growth import settle as settle_additions
from tracker.prerequisites import take_up
from tracker.propagation import Failures
from tracker.settle import Cause, Changes
from tracker.skipping import Skips

if TYPE_CHECKING:
    from sqlalchemy import Connection

logger = logging.getLogger(__name__)

#: New jobs that one turn takes up: bounds how long others wait for the database.
_JOBS = 50


@dataclass(slots=True)
class Turn:
    """Collects what changes, for `move_on` and `settle` to write. One turn belongs to one transaction."""

    connection: "Connection"
    now: datetime
    #: Reports of processes that did not have the task, by worker (A5).
    foreign: Counter[str] = field(default_factory=Counter)
    #: Events of tasks whose job was not told: nobody has heard their first ones.
    unplaced: int = 0
    #: Celery ids of what was canceled and runs on, because its worker's pool cannot end it, each with the worker.
    left: dict[str, str] = field(default_factory=dict)
    #: Whether messages were handed back whole, which are to be forwarded some time.
    has_held: bool = False
    _tasks: dict[str, Task] = field(default_factory=dict)
    _ended_well: list[Task] = field(default_factory=list)
    _run_again: list[Place] = field(default_factory=list)
    #: Tasks that failed because what they take is lost, until `tracker.replay` has seen to them.
    input_lost: list[Task] = field(default_factory=list)
    #: What is to be written into the history of jobs.
    history: list[HistoryLine] = field(default_factory=list)
    #: Whether all was read that workers had told, and the version of the snapshot that they could read before that.
    drained: bool = True
    stored: float = math.inf
    #: Whether failures propagate in jobs that do not say so themselves.
    propagates: bool = False
    #: Whether there is more to do of what this turn has done a part of.
    goes_on: bool = False
    #: What has changed in jobs since they were settled last.
    changes: Changes = field(default_factory=Changes)
    #: Jobs that have ended, until those are told that wait for them (`tracker.prerequisites`).
    ended: set[str] = field(default_factory=set)
    #: What has failed, or not after all, since plans were moved on last.
    failures: Failures = field(default_factory=Failures)
    #: What tasks that have ended well skip of what comes next, since plans were moved on last.
    skips: Skips = field(default_factory=Skips)

    @contextmanager
    def apart(self) -> Iterator["Turn"]:
        """Do a part of this turn that is undone as a whole if it fails, and else settled at its end."""
        part = Turn(self.connection, self.now, drained=self.drained, stored=self.stored, propagates=self.propagates)
        with self.connection.begin_nested():
            yield part
            part.move_on()
            part.settle()
        self.goes_on |= part.goes_on
        self.has_held |= part.has_held
        self.foreign.update(part.foreign)
        self.unplaced += part.unplaced
        self.left |= part.left
        self.ended |= part.ended

    def move(self, task: Task, state: TaskState, *, ended_at: datetime | None = None, corrects: bool = False) -> None:
        """Move one task; its row and the plan follow in `move_on`, its job in `settle`.

        If an operator has given it its end, it comes to that one wherever it was to go.
        """
        if task.ordered is not None and (task.state in ENDED_TASK or state is not TaskState.ACTIVE):
            state, task.reason = TaskState(task.ordered), CancelReason.ORDER
            if task.state is state:
                return
        check_task_move(task.state, state, corrects=corrects)
        self._tasks[task.id] = task
        task.ended_at = (ended_at or self.now) if state in ENDED_TASK else None
        if task.state is state:
            return
        self.changes.move_one(task, state, corrects=corrects)
        self.failures.note(task, state)
        if (task.state in WELL) != (state in WELL) and task.block_id:
            if state in WELL:
                self._ended_well.append(task)
            else:
                self._run_again.append(Place(task.block_id, task.position))
        task.state = state

    # ---- plans ---------------------------------------------------------------------------------------------

    def take_up(self) -> None:
        """Take up new jobs: those begin that wait for no other."""
        job_ids = tracking.new_jobs(self.connection, _JOBS)
        if job_ids:
            tracking.mark_applied(self.connection, job_ids, self.now)
            take_up(self, job_ids)

    def open_plans(self, job_ids: Collection[str]) -> None:
        """Make the tasks ready with which the plans of jobs begin."""
        numbers = tracking.open_plans(self.connection, job_ids, self.now)
        for job_id in job_ids:
            self.changes.move(job_id, TaskState.PENDING, TaskState.READY, numbers.get(job_id, 0))

    def open(self, job_id: str, place: Place) -> None:
        """Make the tasks that wait for this place ready."""
        number = tracking.open_place(self.connection, place.block, place.position, self.now)
        self.changes.move(job_id, TaskState.PENDING, TaskState.READY, number)

    def move_on(self) -> None:
        """Write the tasks that moved, and open what their ends open."""
        revived = self._revived()
        for job_id in revived:
            self.changes.move(job_id, TaskState.CANCELED, TaskState.PENDING, tracking.restore(self.connection, job_id))
        tracking.doubt_values(self.connection, self.changes.revived)
        tracking.update_tasks(self.connection, self._tasks.values())
        self.failures.note_waiting(revived)
        self.failures.lift(self.connection, self.changes)
        skipped = self.skips.carry_out(self.connection, self.changes, self.now)  # before additions take a place
        self.history += skipped.history
        settled = settle_additions(self.connection, self._tasks, self.now)
        for one in settled.gone:
            self.changes.move_many(one.job_id, one.state, None, one.number, discovers=one.discovers)
        self.failures.note_grown(settled.leveled)
        ended_well = [*(Place(task.block_id, task.position) for task in self._ended_well), *skipped.places]
        blocks = tracking.blocks_upward(self.connection, {place.block for place in ended_well + self._run_again})
        held = retreat(self._run_again, blocks)  # first: what waits for these must not open
        moved = advance(ended_well, {**blocks, **held})
        tracking.update_blocks(self.connection, {**held, **moved.changed}.values())
        for place in moved.opened:
            self.open(blocks[place.block].job_id, place)
        for chain in [blocks[id_] for id_ in set(moved.resumed)]:
            position = tracking.first_unfinished(self.connection, chain)
            if position is not None:
                self.open(chain.job_id, Place(chain.id, position))
        self.failures.mark(self.connection, self.changes, self.now, propagates=self.propagates)
        self._tasks.clear()
        self._ended_well.clear()
        self._run_again.clear()

    def _revived(self) -> list[str]:
        """The jobs that go on although they had ended; what was canceled does not, whatever an event corrects."""
        jobs = tracking.jobs_by_id(self.connection, self.changes.revived) if self.changes.revived else {}
        return [one.id for one in jobs.values() if one.intent != Intent.CANCEL]

    def settle(self) -> None:
        """Let every job of which a task has moved follow its tasks."""
        lines = [*self.history, *self.changes.settle(self.connection, self.now)]
        tracking.insert_history(self.connection, lines)
        self.history.clear()
        self.ended |= {one.job_id for one in lines if one.task_id is None and one.new in ENDED_JOB}

    def tell(self, job_id: str, line: str, cause: Cause, *, task_id: str | None = None) -> None:
        """Write a line into the history of a job."""
        self.history.append(
            HistoryLine(
                job_id=job_id, task_id=task_id, at=self.now, line=line, trigger=cause.trigger, who=cause.who,
                why=cause.why,
            )
        )  # fmt: skip
