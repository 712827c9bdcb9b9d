"""Chores: what was ordered and takes more than one turn, until it is done and those who wait are answered.

Which job has one is a flag in its row, so a tracker that takes over goes on with them. Every turn does a bounded part.
"""

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from jobrunner.order_kinds import Intent, OrderKind
from jobrunner.order_records import Answer, Order
from jobrunner.records import Job
from jobrunner.snapshot import Kind
from jobrunner.states import ENDED_JOB, ENDED_TASK, JobState, TaskState
from jobrunner.store import tracking
from jobrunner.text import SENTENCE, bounded
from tracker.holding import hold, is_known, let_go
from tracker.job_orders import ENDED
from tracker.ordered import could_not, done
from tracker.requeue import BATCH, reset_some
from tracker.settle import Cause, move_job
from tracker.task_orders import ended_tasks
from tracker.turn import Turn

logger = logging.getLogger(__name__)

_LEFT = Cause(trigger="a worker's pool")
#: Jobs that one turn sees to, chosen at random: none may be kept from its end by others that wait for long.
_JOBS = 100
_TRANSITIONAL = frozenset({JobState.PAUSING, JobState.CANCEL_REQUESTED, JobState.REQUEUEING})
#: States of tasks that are canceled at once; `soft-failed` waits for its next attempt.
_UNSENT = (TaskState.PENDING, TaskState.READY)
_UNSTARTED = (*_UNSENT, TaskState.QUEUED, TaskState.SOFT_FAILED)


def do_chores(turn: Turn) -> None:
    """Do the next part of all that is left to do."""
    turn.move_on()
    _note_left(turn)
    if turn.changes.has_failures:
        turn.settle()  # what a failure rule holds must not be sent in this turn
    if not tracking.chore_jobs(turn.connection, 1):
        return
    turn.settle()
    for job in tracking.chore_jobs(turn.connection, _JOBS):
        orders = tracking.open_orders(turn.connection, job.id)
        try:
            with turn.apart() as part:
                _Chore(part, job, orders).do()
        except Exception as error:  # noqa: BLE001  as with orders: the next order for the job may bring it on
            answer = could_not(error, f"What was ordered of job {job.id}")
            tracking.answer_orders(turn.connection, {one.id: answer for one in orders}, turn.now)
            tracking.end_chore(turn.connection, job.id)


def _note_left(turn: Turn) -> None:
    """Say in their jobs which tasks run on although they were canceled: those who wait for that should know."""
    if not turn.left:
        return
    tasks = tracking.tasks_by_celery_id(turn.connection, turn.left)
    jobs = tracking.jobs_by_id(turn.connection, {task.job_id for task in tasks.values()})
    for celery_id, task in tasks.items():
        job, line = jobs[task.job_id], f"{task.id} runs to its end: the pool of {turn.left[celery_id]} cannot end it"
        if job.state is JobState.CANCEL_REQUESTED and line not in (job.note or ""):
            logger.warning("Job %s: %s.", job.id, line, extra={"action": "left-to-finish", "task": task.id})
            job.note = bounded(f"{job.note}; {line}", SENTENCE)
            turn.tell(job.id, line, _LEFT, task_id=task.id)
    tracking.update_jobs(turn.connection, jobs.values())


@dataclass(slots=True)
class _Chore:
    """What is left to do for one job, and the orders that wait for it."""

    turn: Turn
    job: Job
    orders: Sequence[Order]

    def do(self) -> None:
        """Do a part of it, answer the orders that are done, and note whether that was all."""
        answers = self._step()
        if self.job.state is not JobState.REQUEUEING and is_known(self.turn, self.job):
            answers |= ended_tasks(self.turn, self.orders)
        tracking.answer_orders(self.turn.connection, answers, self.turn.now)
        job = self.job
        job.chore = (
            job.state in _TRANSITIONAL
            or (job.held and job.intent is None and job.state not in ENDED_JOB)
            or any(one.id not in answers for one in self.orders)
        )
        tracking.save_orders(self.turn.connection, [job])
        tracking.update_jobs(self.turn.connection, [job])

    def _step(self) -> dict[str, Answer]:
        job = self.job
        if job.state in ENDED_JOB:
            return self._clear()
        if job.state is JobState.CANCEL_REQUESTED:
            return self._cancel()
        if job.state is JobState.REQUEUEING:
            return self._requeue()
        if job.will_fail is not None:
            return self._fail()
        return self._pause() if job.intent == Intent.PAUSE else self._release()

    def _answers(self, kinds: Collection[OrderKind], answer: Answer) -> dict[str, Answer]:
        return {one.id: answer for one in self.orders if one.task_id is None and one.kind in kinds}

    def _move(self, state: JobState, *kinds: OrderKind) -> None:
        """Move the job because of an order, of one of these kinds, that is being carried out."""
        by = next((one for one in reversed(self.orders) if one.kind in kinds), None)
        cause = Cause(trigger=kinds[0]) if by is None else Cause(trigger=by.kind, who=by.asked_by, why=by.why)
        self.turn.history.append(move_job(self.job, state, cause, self.turn.now))

    @property
    def _stands_still(self) -> bool:
        """Whether nothing of the job runs, and nothing can start."""
        runs = self.job.counts[TaskState.ACTIVE] or tracking.is_running(self.turn.connection, self.job.id)
        return not runs and is_known(self.turn, self.job)

    def _pause(self) -> dict[str, Answer]:
        if self.job.state is JobState.PAUSING:
            if not self._stands_still:
                return {}
            self._move(JobState.PAUSED, OrderKind.PAUSE)
        left = sum(number for state, number in self.job.counts.items() if state not in ENDED_TASK)
        return self._answers([OrderKind.PAUSE], done(f"It is paused, with {left} tasks left."))

    def _cancel(self) -> dict[str, Answer]:
        job, turn = self.job, self.turn
        rows = tracking.cancel_some(turn.connection, job.id, _UNSTARTED, BATCH, turn.now)
        for (state, discovers), number in Counter(rows).items():
            turn.changes.move_many(job.id, state, TaskState.CANCELED, number, discovers=discovers)
        if job.counts[TaskState.ACTIVE]:
            tracking.stop_running(turn.connection, job.id)
        turn.goes_on |= len(rows) == BATCH
        if len(rows) == BATCH or not self._stands_still:
            return {}
        tracking.keep_ends(turn.connection, job.id)
        job.held, job.ended_at = False, turn.now
        self._move(JobState.CANCELED, OrderKind.CANCEL)
        number = job.counts[TaskState.CANCELED] + len(rows)
        return self._answers([OrderKind.CANCEL], done(f"It was {job.note}. {number} tasks are canceled."))

    def _fail(self) -> dict[str, Answer]:
        """Cancel what has not started of a job whose failure rule is met; when what runs has ended, so has the job.

        What was sent may be about to start until all workers know better.
        """
        job, turn = self.job, self.turn
        answers: dict[str, Answer] = {}
        if not tracking.has_entry(turn.connection, job.id, Kind.CANCELED):
            job.intent = None
            hold(turn, job, Kind.CANCELED)
            answers = self._answers([OrderKind.PAUSE], Answer(outcome="refused", text=f"It fails: {job.note}."))
        states = _UNSTARTED if is_known(turn, job) else _UNSENT
        rows = tracking.cancel_by_rule(turn.connection, job.id, states, BATCH, turn.now)
        for (state, discovers), number in Counter(rows).items():
            turn.changes.move_many(job.id, state, TaskState.CANCELED, number, discovers=discovers)
        turn.changes.add(job.id, TaskState.CANCELED, 0)  # it may have ended, or be paused no more
        turn.goes_on |= len(rows) == BATCH
        return answers

    def _requeue(self) -> dict[str, Answer]:
        if self.job.intent == Intent.PAUSE and not self._stands_still:
            return {}  # it is paused as soon as this is over: not before all workers know
        text = reset_some(self.turn, self.job)
        if text is None:
            self.turn.goes_on = True
            return {}
        tracking.save_orders(self.turn.connection, [self.job])
        self.turn.failures.note_waiting([self.job.id])
        self.turn.move_on()
        self.turn.settle()
        self.job = job = tracking.jobs_by_id(self.turn.connection, [self.job.id])[self.job.id]
        job.kept = sum(job.counts[state] for state in ENDED_TASK) - job.discovered
        job.started_at = None
        after = JobState.WAITING if job.unmet else JobState.QUEUED
        self._move(JobState.PAUSED if job.intent == Intent.PAUSE else after, OrderKind.REQUEUE, OrderKind.SKIP)
        self.turn.changes.add(job.id, TaskState.PENDING, 0)  # it may have nothing to do
        answer = done(f"It is {job.state}: {text}.")
        before = Answer(outcome="refused", text="It was requeued before that.")
        ended = ended_tasks(self.turn, self.orders)  # and stays so: answered when all know that
        of_tasks = [one for one in self.orders if one.task_id is not None and one.id not in ended]
        return self._answers([OrderKind.REQUEUE], answer) | {
            one.id: answer if one.kind is OrderKind.REQUEUE else before for one in of_tasks
        }

    def _release(self) -> dict[str, Answer]:
        job = self.job
        if job.held and is_known(self.turn, job):
            job.held = tracking.release_tasks(self.turn.connection, job.id, BATCH) == BATCH
            self.turn.goes_on |= job.held
        return {}

    def _clear(self) -> dict[str, Answer]:
        """The job has ended: see to those who wait for it, and answer what was ordered when it stands still."""
        job = self.job
        self.turn.ended.add(job.id)
        job.held = job.will_fail is not None  # in case that an event makes it active again
        if job.intent == Intent.CANCEL and not self._stands_still:
            return {}
        if job.intent == Intent.PAUSE:
            job.intent = None
            let_go(self.turn, job)
        canceled = self._answers([OrderKind.CANCEL], ENDED) if job.intent == Intent.CANCEL else {}
        before = Answer(outcome="refused", text=f"It was {job.state} before that.")
        return self._answers(list(OrderKind), before) | canceled
