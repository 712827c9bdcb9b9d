"""Orders: what operators and programs ask for, taken in a turn and answered when it is so.

Some orders are done at once. Others put their job into a state that lasts until workers have taken notice or many rows
are changed; `tracker.chores` sees to those, in every turn until they are done, whoever leads.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from jobrunner.errors import RefusedError
from jobrunner.order_kinds import JOB_ORDERS, TASK_ORDERS, Intent, OrderKind, Scope
from jobrunner.records import Answer, Job, Order, Requeue, Task
from jobrunner.snapshot import Kind
from jobrunner.states import ENDED_JOB, ENDED_TASK, CancelReason, FailureReason, JobState, TaskState
from jobrunner.store import tracking
from jobrunner.text import SENTENCE, bounded
from tracker.holding import hold, let_go, void
from tracker.requeue import begin_requeue, may_run, open_behind
from tracker.settle import Cause, follow, move_job
from tracker.turn import Turn

#: Orders that one turn takes: bounds how long others wait for the database.
_ORDERS = 100

#: What a worker may have, or will have: its gate must know.
_OUT = (TaskState.QUEUED, TaskState.ACTIVE, TaskState.SOFT_FAILED)
#: The end that an order gives a task.
_ENDS = {
    OrderKind.CANCEL: TaskState.CANCELED,
    OrderKind.SKIP: TaskState.SKIPPED,
    OrderKind.FAIL: TaskState.FAILED,
}


def apply_orders(turn: Turn) -> None:
    """Take what was ordered since the last turn."""
    orders = tracking.new_orders(turn.connection, _ORDERS)
    if not orders:
        return
    answers = {}
    for order in orders:
        turn.move_on()
        turn.settle()  # an order finds its job as those before it have left it
        try:
            answer = _apply(turn, order)
        except RefusedError as refused:
            answer = Answer(outcome="refused", text=str(refused))
        if answer is not None:
            answers[order.id] = answer
    tracking.mark_orders(turn.connection, [one.id for one in orders], turn.now)
    tracking.answer_orders(turn.connection, answers, turn.now)
    turn.move_on()


def _apply(turn: Turn, order: Order) -> Answer | None:
    """Carry out one order; None if it is not done yet."""
    job = tracking.jobs_by_id(turn.connection, [order.job_id]).get(order.job_id)
    if job is None:
        return Answer(outcome="not-found", text=f"There is no job {order.job_id}.")
    if order.task_id is None:
        return _JobOrder(turn, order, job).apply()
    task = tracking.tasks_by_id(turn.connection, [order.task_id]).get(order.task_id)
    if task is None or task.job_id != job.id:
        return Answer(outcome="not-found", text=f"Job {job.id} has no task {order.task_id}.")
    return _TaskOrder(turn, order, job, task).apply()


def _done(text: str) -> Answer:
    return Answer(outcome="done", text=text)


@dataclass(slots=True)
class _Ordered:
    """An order, the job that it is about, and the turn that takes it."""

    turn: Turn
    order: Order
    job: Job

    @property
    def cause(self) -> Cause:
        """The order, for history."""
        return Cause(trigger=self.order.kind, who=self.order.asked_by, why=self.order.why)

    def tell(self, line: str, task_id: str | None = None) -> None:
        """Write into the job's history what the order has done, apart from moving the job."""
        self.turn.tell(self.job.id, line, self.cause, task_id=task_id)

    def save(self) -> None:
        """Write the job."""
        tracking.save_orders(self.turn.connection, [self.job])
        tracking.update_jobs(self.turn.connection, [self.job])

    def move(self, state: JobState) -> None:
        """Move the job."""
        self.turn.history.append(move_job(self.job, state, self.cause, self.turn.now))

    def follow(self) -> None:
        """Let the job go where its tasks and the intent lead it."""
        self.turn.history += follow(self.turn.connection, self.job, self.cause, self.turn.now)

    @property
    def by(self) -> str:
        """Who gave the order, and why, for people."""
        why = f": {self.order.why}" if self.order.why else ""
        return bounded(f"by {self.order.asked_by}{why}", SENTENCE)


class _JobOrder(_Ordered):
    """Carries out an order on a whole job."""

    def apply(self) -> Answer | None:
        kind, job = self.order.kind, self.job
        if kind not in JOB_ORDERS or job.state not in JOB_ORDERS[kind]:
            takes = ", ".join(one for one in JOB_ORDERS if job.state in JOB_ORDERS[one])
            msg = f"A job that is {job.state} does not take the order {kind}."
            raise RefusedError(msg, f"It takes: {takes}.")
        if job.observed and kind not in {OrderKind.CANCEL, OrderKind.SET}:
            msg = f"Job {job.id} is a plain Celery canvas, which jobrunner only observes."
            raise RefusedError(msg, "It takes: cancel, set.")
        match kind:
            case OrderKind.PAUSE:
                return self._pause()
            case OrderKind.RESUME:
                return self._resume()
            case OrderKind.CANCEL:
                return self._cancel()
            case OrderKind.REQUEUE:
                return self._requeue()
            case _:
                return self._set()

    def _pause(self) -> Answer | None:
        job = self.job
        if job.intent == Intent.PAUSE:
            return _done("It is paused already.") if job.state is JobState.PAUSED else None
        job.intent, job.held, job.chore = Intent.PAUSE, True, True
        job.note = f"paused {self.by}"
        if job.state is not JobState.REQUEUEING:
            if any(job.counts[state] for state in _OUT):
                hold(self.turn, job, Kind.PAUSED)
            self.follow()
        self.save()
        return None

    def _resume(self) -> Answer:
        job = self.job
        if job.intent != Intent.PAUSE:
            return _done("It is not paused.")
        job.intent, job.note, job.chore = None, None, True
        let_go(self.turn, job)
        self._supersede("It was resumed before that.")
        if job.state is not JobState.REQUEUEING:
            self.follow()
        self.save()
        return _done(f"It is {job.state}.")

    def _cancel(self) -> Answer | None:
        job = self.job
        if job.state is JobState.CANCELED and job.intent == Intent.CANCEL:
            return _done("It is canceled already.")
        grace = self.order.arguments.get("grace")
        self._supersede("It was canceled before that.")
        job.intent, job.note = Intent.CANCEL, f"canceled {self.by}"
        if job.state in ENDED_JOB:
            if job.state is not JobState.CANCELED:
                self.move(JobState.CANCELED)
            self.save()
            return _done("It is canceled: it had ended, and nothing of it ran any more.")
        job.held, job.chore, job.requeue = True, True, None
        if job.hold_version is not None or any(job.counts[state] for state in _OUT):
            hold(self.turn, job, Kind.CANCELED, grace)
        if job.state is not JobState.CANCEL_REQUESTED:
            self.move(JobState.CANCEL_REQUESTED)
        self.save()
        return None

    def _requeue(self) -> Answer | None:
        job = self.job
        if job.state is JobState.REQUEUEING:
            return None
        scope = self.order.arguments.get("scope")
        scope = scope or (Scope.ALL if job.state is JobState.COMPLETED else Scope.INCOMPLETE)
        if scope == Scope.ALL:
            what = Requeue(all=True)
        else:
            senders = tracking.senders_of_unfinished(self.turn.connection, job.id)
            what = Requeue(incomplete=True, tasks=tuple(senders))
        begin_requeue(self.turn, job, what, self.cause)
        self.save()
        return None

    def _set(self) -> Answer:
        changes = dict(self.order.arguments)
        if "labels" in changes:
            labels = tracking.labels_of(self.turn.connection, self.job.id) | changes["labels"]
            changes["labels"] = json.dumps({name: text for name, text in labels.items() if text is not None})
        if "note" in changes:
            changes["annotation"] = changes.pop("note")
        if not changes:
            return _done("Nothing was to be set.")
        before = tracking.change_job(self.turn.connection, self.job.id, changes)
        line = "; ".join(f"{name}: {before[name]} → {value}" for name, value in changes.items())
        self.tell(bounded(line, SENTENCE))
        return _done(line)

    def _supersede(self, text: str) -> None:
        """Answer the orders before this one that will not be carried out any more."""
        left = [one for one in tracking.open_orders(self.turn.connection, self.job.id) if one.kind != self.order.kind]
        answer = Answer(outcome="refused", text=text)
        tracking.answer_orders(
            self.turn.connection, {one.id: answer for one in left if one.task_id is None}, self.turn.now
        )


@dataclass(slots=True)
class _TaskOrder(_Ordered):
    """Carries out an order on one task."""

    task: Task

    def apply(self) -> Answer | None:
        kind, task, job = self.order.kind, self.task, self.job
        if kind not in TASK_ORDERS or task.state not in TASK_ORDERS[kind]:
            takes = ", ".join(one for one in TASK_ORDERS if task.state in TASK_ORDERS[one]) or "none"
            msg = f"A task that is {task.state} does not take the order {kind}."
            raise RefusedError(msg, f"It takes: {takes}.")
        if job.observed:
            msg = f"Job {job.id} is a plain Celery canvas, which jobrunner only observes."
            raise RefusedError(msg, "Cancel the whole job.")
        if job.state in {JobState.CANCEL_REQUESTED, JobState.REQUEUEING}:
            msg = f"Job {job.id} is {job.state}."
            raise RefusedError(msg, "Give the order again when that is over.")
        return self._requeue() if kind is OrderKind.REQUEUE else self._end(_ENDS[kind])

    def _end(self, end: TaskState) -> Answer | None:
        task, job = self.task, self.job
        if task.state is end or task.ordered == end:
            return _done(f"It is {end} already.") if task.state is end else _done(f"It will be {end} already.")
        ended = job.state in ENDED_JOB
        if ended and end is TaskState.SKIPPED:
            self._accept()
            return None
        task.ordered, task.note = end, f"{end} {self.by}"
        out = task.state in _OUT
        if out:
            void(self.turn, job, task, self.order.arguments.get("grace", 10.0))
        if task.state is TaskState.ACTIVE or (end is TaskState.SKIPPED and task.state is TaskState.PENDING):
            tracking.update_tasks(self.turn.connection, [task])
        else:
            task.reason = FailureReason.ORDER if end is TaskState.FAILED else CancelReason.ORDER
            self.turn.move(task, end)
        self.tell(f"{task.id}: {task.note}", task.id)
        if out:
            job.chore = True
            self.save()
            return None
        if ended:
            self._judge_again()
        return _done(f"It is {end}." if task.state is end else f"It is {end} when its turn comes.")

    def _judge_again(self) -> None:
        """A failed task of a job that has failed was canceled: if it was the only one, so is the job (F1)."""
        self.turn.move_on()
        self.turn.settle()
        self.job = tracking.jobs_by_id(self.turn.connection, [self.job.id])[self.job.id]
        if self.job.state is JobState.FAILED and not self.job.counts[TaskState.FAILED]:
            self.move(JobState.CANCELED)
            self.save()

    def _accept(self) -> None:
        """A failed task of a job that has ended counts as ended well: what had to be canceled because of it may run."""
        task, job = self.task, self.job
        task.ordered, task.note, task.reason = TaskState.SKIPPED, f"skipped {self.by}", None
        self.turn.move(task, TaskState.SKIPPED)
        self.tell(f"{task.id}: {task.note}", task.id)
        self.turn.move_on()
        self.turn.settle()
        self.job = job = tracking.jobs_by_id(self.turn.connection, [job.id])[job.id]
        begin_requeue(self.turn, job, Requeue(upstream=True), self.cause)
        self.save()

    def _requeue(self) -> Answer | None:
        task, job = self.task, self.job
        if not task.block_id:
            msg = f"Task {task.id} was sent by another task, and only that can send it again."
            raise RefusedError(msg, "Requeue the task that has sent it.")
        if number := open_behind(self.turn, task):
            msg = f"{number} tasks that come after {task.id} are under way."
            raise RefusedError(msg, "Wait for them, or cancel the job.")
        if not may_run(self.turn, task):
            msg = f"What comes before {task.id} has not ended well: it could not run."
            raise RefusedError(msg, "Requeue the job.")
        if job.state not in JOB_ORDERS[OrderKind.REQUEUE]:
            msg = f"Job {job.id} is {job.state}, and goes on meanwhile."
            raise RefusedError(msg, "Pause it, requeue the task, and resume it.")
        begin_requeue(self.turn, job, Requeue(tasks=(task.id,), after=task.id), self.cause)
        self.save()
        return None


def ended_tasks(turn: Turn, orders: Sequence[Order]) -> dict[str, Answer]:
    """Return the answers of orders on tasks that have ended meanwhile."""
    ids = {one.task_id for one in orders if one.task_id is not None}
    tasks = tracking.tasks_by_id(turn.connection, ids)
    return {
        one.id: _done(f"It is {tasks[one.task_id].state}.")
        for one in orders
        if one.task_id in tasks and tasks[one.task_id].state in ENDED_TASK
    }
