"""Tasks follow their executions: to where these say that they are, to another try, or to their end.

What executions say of a task is decided in `tracker.fold`, and how many there may be in `tracker.bounds`; both know no
database.
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta

from jobrunner.errors import IllegalMoveError
from jobrunner.records import Attempt, AttemptKey, ItemCountRow, Standing, Task
from jobrunner.snapshot import Refusal
from jobrunner.states import ENDED_TASK, WELL, CancelReason, FailureReason, TaskState
from jobrunner.store import tracking
from jobrunner.text import SENTENCE, bounded
from tracker.avoiding import rest_after
from tracker.bounds import (
    LOST_FOR_GOOD,
    explain,
    is_lost_for_good,
    last_words,
    next_retry,
    of_this_run,
    was_given_up,
    why_failed,
)
from tracker.fold import deciding, of_delivery, reason_of, start_of, state_after, was_held
from tracker.held import is_final, rests
from tracker.settle import Cause
from tracker.statements import note_of, stated
from tracker.turn import Turn

logger = logging.getLogger(__name__)

#: States of a task that events are about: the broker or a worker has it, or has had it.
SENT = frozenset(
    {
        *(TaskState.QUEUED, TaskState.ACTIVE, TaskState.SOFT_FAILED),
        *ENDED_TASK,
    }
)

#: What is wrong with a task that has succeeded and whose additions are not all there.
_TORN = "the event log has lost a part of what it had added to the job: requeue it"

#: Ends of an execution after which nobody has the message, and the tracker sends the next one.
_SENT_AGAIN = frozenset({"unknown", "lost"})
#: Seconds until a task goes out again whose worker lacked its code, doubling with each delivery, to the last.
_FIRST_REST, _LAST_REST = 1.0, 60.0
#: Seconds until one does that was given up untouched: workers know within a second, and it is killed after its grace.
_LAST_GASP = 5.0
#: Why a task has failed of which no execution has said so.
NO_RETRY = Cause(trigger="no retry left")
#: What is said of a task that goes out again because a gate has refused it.
_REFUSED_BY_GATE = "sent again: a worker's gate refused it ({why})"
_REFUSED: Mapping[str, str] = {
    Refusal.AVOIDED: "waits for another worker: {worker} has failed it",
    Refusal.BLOCKED: "waits for another worker: {worker} is blocked for such tasks of this job",
}
#: What is said of a task that a gate has refused, and of which nobody has the message any more.
_DROPPED = "lost: a worker's gate refused its message ({why}), which a task has sent and only that can send again"


def conclude(turn: Turn, histories: Iterable[tuple[Task, Sequence[Attempt]]]) -> None:
    """Let tasks follow executions that have ended without a word, and were the last ones that they could have."""
    following = Following(turn)
    for task, history in histories:
        following.follow(task, history)
    following.delay()


@dataclass(slots=True)
class Following:
    """Moves tasks in one turn, one by one; in the end `delay` writes how long they rest."""

    turn: Turn
    #: What was refused and no living worker may run, with a sentence about that.
    stuck: Mapping[str, str] = field(default_factory=dict)
    #: What gates have just refused: (Celery id, retries).
    refused: Collection[tuple[str, int]] = ()
    _delays: dict[str, datetime] = field(default_factory=dict)
    _counts: dict[str, ItemCountRow] = field(default_factory=dict)
    _uncounted: set[str] = field(default_factory=set)

    def follow(
        self,
        task: Task,
        history: Sequence[Attempt],
        torn: Collection[AttemptKey] = (),
        whole: Collection[tuple[str, int]] = (),
    ) -> None:
        """Move a task to where the executions of its present delivery say it is.

        What has failed or was revoked goes on if a further execution turns out to run, or to have succeeded. A success
        that is `torn` from what it has added is none.
        """
        present = of_delivery(task.delivery, history)
        decider = deciding(present)
        if decider is None or task.state not in SENT or _was_not_sent(task):
            return  # in this run of its job, whatever is told of an earlier one
        if task.sent_at is None:  # who has an event was sent, even if the tracker died before it could note so
            task.sent_at = self.turn.now
        task.started_at = min((start for one in of_this_run(task, history) if (start := start_of(one))), default=None)
        task.progress = decider.progress
        if was_held(decider) and self._is_left(task, decider):
            return
        if was_held(decider) and (decider.celery_id, decider.retries) not in whole:
            self._dropped(task, decider, history)
            return
        state = state_after(task, decider, present)
        kept = task.note if state is task.state is TaskState.QUEUED else None
        note = _what_failed(state, present) or kept
        if state in WELL and decider.key in torn:
            state, note = TaskState.FAILED, _TORN
        before = task.state
        if not self._try_move(task, state, decider) or task.ordered is not None:
            return
        task.reason = reason_of(task, state, decider, history)
        task.note = explain(task.reason, note, task) if isinstance(task.reason, FailureReason) else note
        self._note_statement(task, before, decider)
        if task.reason is FailureReason.INPUT_LOST and before is not state and task.block_id:
            self.turn.input_lost.append(task)
        if state is TaskState.FAILED and before is not state and decider.standing == Standing.LOST:
            self._tell(task)
        if state is TaskState.SOFT_FAILED and decider.outcome in _SENT_AGAIN and task.block_id:
            self._send_later(task, decider, present)

    def _try_move(self, task: Task, state: TaskState, decider: Attempt) -> bool:
        before = task.state
        try:
            self.turn.move(task, state, ended_at=decider.ended_at, corrects=True)
        except IllegalMoveError as refused:
            logger.warning("Task %s: %s", task.id, refused, extra={"action": "move-refused", "task": task.id})
            return False
        self.turn.skips.note(task, before, decider)
        return True

    def _note_statement(self, task: Task, before: TaskState, decider: Attempt) -> None:
        """Say what the body of a task that has ended well has stated, and count its items."""
        statement = stated(decider) if task.state in WELL else None
        if statement is not None:
            task.note = note_of(statement)
        if before in WELL and (statement is None or statement.counts is None):
            self._uncounted.add(task.id)  # another execution decides, and has said nothing of items
        if statement is not None and statement.counts is not None:
            self._counts[task.id] = ItemCountRow(task_id=task.id, job_id=task.job_id, **asdict(statement.counts))

    def _is_left(self, task: Task, decider: Attempt) -> bool:
        """Whether nobody may run a task that was refused; then it fails."""
        if task.state is TaskState.FAILED and task.reason == FailureReason.NO_WORKERS:
            return True
        if decider.exception != Refusal.BLOCKED or task.id not in self.stuck:
            return False
        if self._try_move(task, TaskState.FAILED, decider) and task.ordered is None:
            task.note, task.reason = self.stuck[task.id], FailureReason.NO_WORKERS
        return True

    def _tell(self, task: Task) -> None:
        line = f"{task.id} failed ({task.reason}): {task.note}"
        self.turn.tell(task.job_id, bounded(line, SENTENCE), NO_RETRY, task_id=task.id)

    def _dropped(self, task: Task, decider: Attempt, history: Sequence[Attempt]) -> None:
        """Send a task again whose message a gate has refused; one that only a task can send has come to its end."""
        why = decider.exception or ""
        if task.block_id:
            self._refused(task, decider, history, why)
        elif why == Refusal.VOID and task.ordered is None:  # sent before its job, or its sender, was requeued
            self._forget(task)
        elif is_final(why):
            if self._try_move(task, TaskState.CANCELED, decider) and task.ordered is None:
                task.note, task.reason = None, CancelReason.ORDER
        elif (decider.celery_id, decider.retries) not in self.refused:
            return  # long ago: its message was forwarded, and whoever has had that since has it from the broker
        elif self._try_move(task, TaskState.FAILED, decider) and task.ordered is None:
            task.note, task.reason = _DROPPED.format(why=why), FailureReason.LOST

    def _forget(self, task: Task) -> None:
        """Let a job have nothing to do with a task that was deleted when it was requeued, and has joined it again."""
        tracking.delete_offspring(self.turn.connection, [task.id], [])
        self.turn.changes.move_many(task.job_id, task.state, None, 1, discovers=task.discovers)

    def _refused(self, task: Task, decider: Attempt, history: Sequence[Attempt], why: str) -> None:
        """Send a task of a plan again, unless it has been tried, or come to nothing, too often."""
        present = of_delivery(decider.delivery, history)
        state = state_after(task, decider, present)
        if state is TaskState.FAILED:
            reason = why_failed(task, decider, history)
            self._give_up(task, decider, reason, explain(reason, last_words(present), task))
        elif is_lost_for_good(task, history):
            self._give_up(task, decider, FailureReason.LOST, LOST_FOR_GOOD)
        elif self._try_move(task, state, decider) and task.ordered is None:
            task.first_retries = max(task.first_retries, next_retry(decider, present))
            task.note, task.reason = _REFUSED.get(why, _REFUSED_BY_GATE).format(why=why, worker=decider.worker), None
            if rests(why):
                self._delays[task.id] = self.turn.now + timedelta(seconds=rest_after(why, task))
            self.turn.move(task, TaskState.READY)

    def _give_up(self, task: Task, decider: Attempt, reason: FailureReason | None, note: str | None) -> None:
        before = task.state
        if self._try_move(task, TaskState.FAILED, decider) and task.ordered is None:
            task.reason, task.note = reason, note
            if before is not TaskState.FAILED:
                self._tell(task)

    def _send_later(self, task: Task, decider: Attempt, present: Sequence[Attempt]) -> None:
        """Send a task again after a rest: a worker without its code has dropped the message, as during a rollout.

        Or its worker was shut down: the process that has run it has a moment to end.
        """
        rest = _LAST_GASP if was_given_up(decider) else _FIRST_REST
        if decider.outcome == "unknown":
            rest = min(_FIRST_REST * 2 ** (task.delivery - 1), _LAST_REST)
        task.first_retries = max(task.first_retries, next_retry(decider, present))
        self._delays[task.id] = self.turn.now + timedelta(seconds=rest)
        self.turn.move(task, TaskState.READY)

    def delay(self) -> None:
        """Write until when tasks rest that are to be sent again."""
        tracking.delay_tasks(self.turn.connection, self._delays)
        self._delays.clear()

    def count_items(self) -> None:
        """Write how many items tasks have processed that say so."""
        tracking.save_item_counts(self.turn.connection, self._counts.values())
        tracking.forget_item_counts(self.turn.connection, self._uncounted)
        self._counts.clear()
        self._uncounted.clear()


def _was_not_sent(task: Task) -> bool:
    """Whether a task has ended in this run of its job without being sent: in vain, or as it was or would be skipped."""
    skipped = TaskState.SKIPPED in {task.state, task.ordered}
    return task.reason == CancelReason.UPSTREAM or (skipped and task.delivery <= task.earlier)


def _what_failed(state: TaskState, executions: Iterable[Attempt]) -> str | None:
    """Return what the last execution that failed said, for a task that has failed or waits for its retry.

    The one that decides need not be it: a worker has often received the retry already, and holds it back.
    """
    if state not in {TaskState.SOFT_FAILED, TaskState.FAILED, TaskState.CANCELED}:
        return None
    failed = [one for one in executions if one.exception is not None and one.standing]
    last = max(failed, key=lambda one: (one.outcome == "failed", one.retries, one.process), default=None)
    return None if last is None else last.exception
