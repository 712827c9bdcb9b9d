"""One turn of the tracker: everything that happens between BEGIN and COMMIT.

A turn folds a batch of events into attempts and tasks, takes up new jobs, moves plans on, settles the jobs that were
touched, and puts what is ready into the outbox. It loads and writes rows in bulk; no statement is issued per task.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from jobrunner import ids
from jobrunner.errors import IllegalMoveError
from jobrunner.plan import Place
from jobrunner.records import Attempt, Job, Letter, Task
from jobrunner.states import ENDED_JOB, ENDED_TASK, WELL, TaskState, check_job_move, check_task_move
from jobrunner.store import reading, tracking
from jobrunner.text import SENTENCE, bounded
from jobrunner.wire import Inputs
from tracker.advance import advance, judge
from tracker.fold import RANKS, Event, deciding, fold, state_after

if TYPE_CHECKING:
    from sqlalchemy import Connection

logger = logging.getLogger(__name__)

#: New jobs, and messages, that one turn takes up: bounds how long others wait for the database.
_JOBS = 50
_LETTERS = 500

#: States of a task that the broker or a worker has: what events can move.
_OUT = frozenset({TaskState.QUEUED, TaskState.ACTIVE, TaskState.SOFT_FAILED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A message to publish after the commit: the stored letter, and where the task's input comes from."""

    letter: Letter
    inputs: Inputs | None

    @property
    def celery_id(self) -> str:
        """The Celery id of this delivery."""
        return ids.celery_id(self.letter.task_id, self.letter.delivery)


@dataclass(slots=True)
class Turn:
    """Collects what changes, for `move_on` and `settle` to write. One turn belongs to one transaction."""

    connection: "Connection"
    now: datetime
    _tasks: dict[str, Task] = field(default_factory=dict)
    _ended_well: list[Place] = field(default_factory=list)
    _moves: defaultdict[str, Counter[TaskState]] = field(default_factory=lambda: defaultdict(Counter))

    # ---- events --------------------------------------------------------------------------------------------

    def fold(self, events: Sequence[Event]) -> None:
        """Fold task events into attempts, and let the attempts move their tasks."""
        told = [event for event in events if event.type in RANKS]
        if not told:
            return
        tasks = tracking.tasks_by_celery_id(self.connection, {event.uuid for event in told})
        known = tracking.attempts_of(self.connection, {task.id for task in tasks.values()})
        attempts = dict(known)
        by_attempt: defaultdict[tuple[str, int, int], list[Event]] = defaultdict(list)
        for event in told:
            task = tasks.get(event.uuid)
            if task is None or not task.delivery:  # of no job of ours
                continue
            attempt = _attempt_of(task, event, attempts)
            attempts.setdefault(_key(attempt), attempt)
            by_attempt[_key(attempt)].append(event)
        attempts |= {key: fold(attempts[key], *ones) for key, ones in by_attempt.items()}
        tracking.insert_attempts(self.connection, [one for key, one in attempts.items() if key not in known])
        tracking.update_attempts(
            self.connection, [attempts[key] for key, one in known.items() if attempts[key] is not one]
        )
        self._follow({task.id: task for task in tasks.values()}, attempts)

    def _follow(self, tasks: dict[str, Task], attempts: dict[tuple[str, int, int], Attempt]) -> None:
        """Move each task to where the attempts of its present delivery say it is."""
        present: defaultdict[str, list[Attempt]] = defaultdict(list)
        for attempt in attempts.values():
            if attempt.rank and attempt.delivery == tasks[attempt.task_id].delivery:
                present[attempt.task_id].append(attempt)
        for task_id, ones in present.items():
            task = tasks[task_id]
            decider = deciding(ones)
            if decider is None or task.state not in _OUT:
                continue
            if task.sent_at is None:  # who has an event was sent, even if the tracker died before it could note so
                task.sent_at = self.now
            if task.started_at is None:
                task.started_at = min((one.started_at for one in ones if one.started_at), default=None)
            state = state_after(task, decider)
            task.note = _what_failed(state, ones) or (None if state in WELL else task.note)
            try:
                self.move(task, state, ended_at=decider.ended_at)
            except IllegalMoveError as refused:
                logger.warning("Task %s: %s", task.id, refused, extra={"action": "move-refused", "task": task.id})

    def move(self, task: Task, state: TaskState, *, ended_at: datetime | None = None) -> None:
        """Move one task; its row and the plan follow in `move_on`, its job in `settle`."""
        self._tasks[task.id] = task
        if task.state is state:
            return
        check_task_move(task.state, state)
        self._count(task.job_id, task.state, state, 1)
        task.state = state
        task.ended_at = (ended_at or self.now) if state in ENDED_TASK else None
        if state in WELL:
            self._ended_well.append(Place(task.block_id, task.position))

    def _count(self, job_id: str, old: TaskState, new: TaskState, number: int) -> None:
        self._moves[job_id][old] -= number
        self._moves[job_id][new] += number

    # ---- jobs ----------------------------------------------------------------------------------------------

    def take_up(self) -> None:
        """Take up new jobs: open the first place of their plans."""
        job_ids = tracking.new_jobs(self.connection, _JOBS)
        tracking.mark_applied(self.connection, job_ids, self.now)
        for job_id in job_ids:
            self._open(job_id, Place(job_id, 0))

    def _open(self, job_id: str, place: Place) -> None:
        number = tracking.open_place(self.connection, place.block, place.position, self.now)
        self._count(job_id, TaskState.PENDING, TaskState.READY, number)

    def move_on(self) -> None:
        """Write the tasks that moved, and open what their ends open."""
        tracking.update_tasks(self.connection, self._tasks.values())
        blocks = tracking.blocks_upward(self.connection, {place.block for place in self._ended_well})
        moved = advance(self._ended_well, blocks)
        tracking.update_blocks(self.connection, moved.changed.values())
        for place in moved.opened:
            self._open(blocks[place.block].job_id, place)
        self._tasks.clear()
        self._ended_well.clear()

    def settle(self) -> None:
        """Let every job of which a task has moved follow its tasks."""
        jobs = tracking.jobs_by_id(self.connection, self._moves)
        for job in jobs.values():
            for state, number in self._moves[job.id].items():
                job.counts[state] += number
            self._judge(job)
        tracking.update_jobs(self.connection, jobs.values())
        self._moves.clear()

    def _judge(self, job: Job) -> None:
        while (verdict := judge(job.state, job.counts)).state is not job.state:
            check_job_move(job.state, verdict.state)
            logger.info("Job %s is %s.", job.id, verdict.state, extra={"action": "job-moved", "job": job.id})
            job.state, job.reason = verdict.state, verdict.reason
        if job.started_at is None and job.total > sum(
            job.counts[state] for state in (TaskState.PENDING, TaskState.READY, TaskState.QUEUED)
        ):
            job.started_at = self.now
        if job.state in ENDED_JOB and job.ended_at is None:
            self._end(job)

    def _end(self, job: Job) -> None:
        job.ended_at = self.now
        failed = tracking.failed_task(self.connection, job.id)
        if failed is not None:
            task_id, name, exception = failed
            job.note = bounded(f"{name} [{task_id}] failed: {exception}", SENTENCE)
        if job.counts[TaskState.PENDING]:
            note = (
                f"upstream: {failed[1]} [{failed[0]}] failed" if failed else "upstream: a task before it was canceled"
            )
            number = tracking.cancel_pending(self.connection, job.id, note, self.now)
            job.counts[TaskState.PENDING] -= number
            job.counts[TaskState.CANCELED] += number

    # ---- outbox --------------------------------------------------------------------------------------------

    def take_ready(self) -> list[Outgoing]:
        """Put what is ready into the outbox; to be published once this turn is committed."""
        letters = tracking.take_ready(self.connection, self.now, _LETTERS)
        groups = {letter.takes_group for letter in letters if letter.takes_group is not None}
        lists = {group: reading.value_of_group(self.connection, group) for group in groups}
        outgoing = []
        for letter in letters:
            inputs: Inputs | None = None
            if letter.takes_task is not None:
                inputs = ids.celery_id(letter.takes_task, letter.taken_delivery or 1)
            elif letter.takes_group is not None:
                inputs = lists[letter.takes_group]
            outgoing.append(Outgoing(letter=letter, inputs=inputs))
            self._count(letter.job_id, TaskState.READY, TaskState.QUEUED, 1)
        tracking.queue_tasks(
            self.connection, [(one.letter.task_id, one.letter.delivery, one.celery_id) for one in outgoing], self.now
        )
        # The Celery id of a later delivery cannot be told from the task's own: its row is there before its first event.
        later = [one for one in outgoing if one.letter.delivery > 1]
        tracking.insert_attempts(self.connection, [_unheard(one) for one in later])
        return outgoing


def _unheard(one: Outgoing) -> Attempt:
    letter = one.letter
    return Attempt(
        task_id=letter.task_id, delivery=letter.delivery, retries=letter.first_retries, celery_id=one.celery_id
    )


def _what_failed(state: TaskState, attempts: Iterable[Attempt]) -> str | None:
    """Return what the last attempt that failed said, for a task that has failed or waits for its retry.

    The attempt that decides need not be it: a worker has often received the retry already, and holds it back.
    """
    if state not in {TaskState.SOFT_FAILED, TaskState.FAILED, TaskState.CANCELED}:
        return None
    failed = [one for one in attempts if one.outcome in {"failed", "revoked", "retried"}]
    return max(failed, key=lambda one: (one.outcome == "failed", one.retries)).exception if failed else None


def _key(attempt: Attempt) -> tuple[str, int, int]:
    return attempt.task_id, attempt.delivery, attempt.retries


def _attempt_of(task: Task, event: Event, attempts: dict[tuple[str, int, int], Attempt]) -> Attempt:
    """Return the attempt that an event speaks of, new if nothing was known of it."""
    delivery = _delivery_of(task, event.uuid)
    retries = event.retries
    if retries is None:  # a worker that does not know jobrunner: the latest attempt that is known
        retries = max((r for t, d, r in attempts if t == task.id and d == delivery), default=0)
    return attempts.get((task.id, delivery, retries)) or Attempt(
        task_id=task.id, delivery=delivery, retries=retries, celery_id=event.uuid
    )


def _delivery_of(task: Task, celery_id: str) -> int:
    later = range(task.delivery, 1, -1) if celery_id != task.id else ()
    return next((number for number in later if ids.celery_id(task.id, number) == celery_id), 1)
