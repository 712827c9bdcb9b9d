"""Orders on single tasks."""

from collections.abc import Sequence
from dataclasses import dataclass

from jobrunner.errors import RefusedError
from jobrunner.order_arguments import GRACE
from jobrunner.order_kinds import JOB_ORDERS, Intent, OrderKind
from jobrunner.order_records import Answer, Order, Requeue
from jobrunner.records import Task
from jobrunner.states import ENDED_JOB, ENDED_TASK, CancelReason, FailureReason, JobState, PartialRule, TaskState
from jobrunner.store import tracking
from tracker.holding import is_known, void
from tracker.items import requeue_items
from tracker.ordered import OUT, Ordered, done
from tracker.requeue import begin_requeue, may_run, open_behind
from tracker.settle import partial_note
from tracker.turn import Turn

#: The end that an order gives a task.
_ENDS = {
    OrderKind.CANCEL: TaskState.CANCELED,
    OrderKind.SKIP: TaskState.SKIPPED,
    OrderKind.FAIL: TaskState.FAILED,
}


@dataclass(slots=True)
class TaskOrder(Ordered):
    """Carries out an order on one task."""

    task: Task

    def apply(self) -> Answer | None:
        """Carry it out; None if it is not done yet."""
        kind, job = self.order.kind, self.job
        self.check(self.task.state)
        if job.state in {JobState.CANCEL_REQUESTED, JobState.REQUEUEING}:
            msg = f"Job {job.id} is {job.state}."
            raise RefusedError(msg, "Give the order again when that is over.")
        return self._requeue() if kind is OrderKind.REQUEUE else self._end(_ENDS[kind])

    def _end(self, end: TaskState) -> Answer | None:
        task, job = self.task, self.job
        # A retry of one that is ready again may be: of a worker that was lost before it told of that.
        out = task.state in OUT or (task.state is TaskState.READY and task.delivery > 0)
        # Nor may all know yet what was ordered of it before: this is done when they do.
        unknown = task.ordered is not None and not is_known(self.turn, job)
        if task.state is end:
            return self._await(known=not unknown, answer=done(f"It is {end} already."))
        if task.ordered == end and not out:
            return done(f"It will be {end} already.")
        if task.state is TaskState.FAILED and task.reason == FailureReason.UPSTREAM:
            msg = f"Task {task.id} has not failed by itself ({task.note})."
            raise RefusedError(msg, "Skip, cancel or requeue that one.")
        ended = job.state in ENDED_JOB
        if ended and end is TaskState.SKIPPED and job.intent != Intent.CANCEL:
            self._accept()
            return None
        task.ordered, task.note = end, f"{end} {self.by}"
        if out:
            void(self.turn, job, task, self.order.arguments.get("grace", GRACE))
        if task.state is TaskState.ACTIVE or (end is TaskState.SKIPPED and task.state is TaskState.PENDING):
            tracking.update_tasks(self.turn.connection, [task])
        else:
            task.reason = FailureReason.ORDER if end is TaskState.FAILED else CancelReason.ORDER
            self.turn.move(task, end)
        self.tell(f"{task.id}: {task.note}", task.id)
        if ended:
            self._judge_again()
        answer = done(f"It is {end}." if task.state is end else f"It is {end} when its turn comes.")
        return self._await(known=not (out or (unknown and task.state is end)), answer=answer)

    def _await(self, *, known: bool, answer: Answer) -> Answer | None:
        """Give the answer; as long as not all workers know, leave it to `tracker.chores`."""
        if known:
            return answer
        self.job.chore = True
        self.save()
        return None

    def _judge_again(self) -> None:
        """A failed task of a job that has failed was canceled: if it was the only one, so is the job (F1).

        A job that does not tolerate tasks that ended partial has failed because of these, then.
        """
        self.turn.move_on()
        self.turn.settle()
        self.job = job = tracking.jobs_by_id(self.turn.connection, [self.job.id])[self.job.id]
        if job.state is not JobState.FAILED or job.counts[TaskState.FAILED]:
            return
        if job.counts[TaskState.PARTIAL] and job.partial_rule != PartialRule.TOLERATE:
            job.reason, job.note = FailureReason.PARTIAL, partial_note(self.turn.connection, job)
        else:
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
        if task.ordered == TaskState.SKIPPED and task.state is TaskState.CANCELED:  # its turn never came: now it runs
            task.ordered = None
            tracking.update_tasks(self.turn.connection, [task])
        if self.order.arguments.get("items"):
            requeue_items(self.turn, job, self.cause, task.id)
        else:
            begin_requeue(self.turn, job, Requeue(tasks=(task.id,), after=task.id), self.cause)
        self.save()
        return None


def ended_tasks(turn: Turn, orders: Sequence[Order]) -> dict[str, Answer]:
    """Return the answers of orders on tasks that have ended meanwhile, as the last of these orders has it."""
    ids = {one.task_id for one in orders if one.task_id is not None}
    tasks = tracking.tasks_by_id(turn.connection, ids)
    return {
        one.id: _end_of(tasks[one.task_id], _ENDS[one.kind])
        for one in orders
        if one.task_id in tasks and tasks[one.task_id].state in ENDED_TASK and one.kind is not OrderKind.REQUEUE
    }


def _end_of(task: Task, end: TaskState) -> Answer:
    text = f"It is {task.state}."
    return done(text) if task.state is end else Answer(outcome="refused", text=text)
