"""Events become executions, and executions move their tasks: the part of a turn that hears what workers tell.

What an event says of an execution, and executions of a task, is decided in `tracker.fold`, which knows no database.
"""

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from jobrunner.errors import IllegalMoveError
from jobrunner.records import Attempt, AttemptKey, Standing, Task
from jobrunner.snapshot import Refusal
from jobrunner.states import WELL, CancelReason, FailureReason, TaskState
from jobrunner.store import tracking
from jobrunner.text import SENTENCE, bounded
from jobrunner.wire import TASK_HELD
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
from tracker.fold import (
    FOLDED,
    Event,
    deciding,
    is_foreign,
    of_delivery,
    reason_of,
    start_of,
    state_after,
    tell,
    was_held,
    weigh,
)
from tracker.growth import TASK_ADDED, stage, torn_attempts
from tracker.held import held_messages, is_final, is_repeated, rests
from tracker.observe import TASK_SENT, join
from tracker.settle import Cause
from tracker.turn import Turn
from tracker.worker_failures import left_to_nobody, note_ends

logger = logging.getLogger(__name__)

#: States of a task that events are about: the broker or a worker has it, or has had it.
_SENT = frozenset(
    {
        *(TaskState.QUEUED, TaskState.ACTIVE, TaskState.SOFT_FAILED),
        *(TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELED),
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


def fold(turn: Turn, events: Sequence[Event]) -> None:
    """Fold task events into executions, and let these move their tasks."""
    _Folding(turn).fold(events)


def reconsider(turn: Turn, tasks: Iterable[Task]) -> None:
    """Let tasks follow a gate's refusal that did not count as long as another worker had the message."""
    _Folding(turn).reconsider(tasks)


def conclude(turn: Turn, histories: Iterable[tuple[Task, Sequence[Attempt]]]) -> None:
    """Let tasks follow executions that have ended without a word, and were the last ones that they could have."""
    folding = _Folding(turn)
    for task, history in histories:
        folding.follow(task, history)
    folding.delay()


@dataclass(slots=True)
class _Folding:
    """One batch of events, in one turn."""

    turn: Turn
    delays: dict[str, datetime] = field(default_factory=dict)
    #: What was refused and no living worker may run, with a sentence about that.
    stuck: dict[str, str] = field(default_factory=dict)

    def fold(self, events: Sequence[Event]) -> None:
        """Fold task events into executions, and let these move their tasks."""
        told = [event for event in events if event.type in FOLDED or event.type in {TASK_SENT, TASK_ADDED}]
        if not told:
            return
        by_celery_id = tracking.tasks_by_celery_id(self.turn.connection, {event.uuid for event in told})
        by_celery_id |= self._join([event for event in told if event.type != TASK_ADDED], by_celery_id)
        tasks = {task.id: task for task in by_celery_id.values() if task.delivery}
        self._stage(told, by_celery_id)
        by_task: defaultdict[str, list[Event]] = defaultdict(list)
        for event in told:
            task = by_celery_id.get(event.uuid)
            if task is not None and task.id in tasks and event.type in FOLDED:  # else of no job of ours
                by_task[task.id].append(event)
        known = tracking.histories_of(self.turn.connection, by_task)
        histories = {id_: tell(tasks[id_], known[id_], ones) for id_, ones in by_task.items()}
        for id_, history in histories.items():
            if _starts(history) > _starts(known[id_]):
                tasks[id_].handed_back = 0  # it counts those of one try
        self._write(known, histories)
        note_ends(self.turn, known, histories)
        self._hold([one for one in told if one.type == TASK_HELD], tasks, known)
        torn = torn_attempts(self.turn.connection, by_task)
        whole = self._held_whole(histories)
        for id_, history in histories.items():
            self.follow(tasks[id_], history, torn.get(id_, frozenset()), whole)
        tracking.keep_late_values(self.turn.connection, _with_late_values(tasks, histories))
        self.delay()

    def reconsider(self, tasks: Iterable[Task]) -> None:
        """Let tasks follow a gate's refusal that did not count as long as another worker had the message."""
        by_id = {task.id: task for task in tasks}
        executions = tracking.histories_of(self.turn.connection, by_id)
        histories = {id_: weigh(ones) for id_, ones in executions.items() if any(was_held(one) for one in ones)}
        self._write(executions, histories)
        whole = self._held_whole(histories)
        for id_, history in histories.items():
            decider = deciding(of_delivery(by_id[id_].delivery, history))
            if decider is not None and was_held(decider):
                self.follow(by_id[id_], history, frozenset(), whole)
        self.delay()
        if histories:
            self.turn.move_on()

    def delay(self) -> None:
        """Write until when tasks rest that are to be sent again."""
        tracking.delay_tasks(self.turn.connection, self.delays)
        self.delays.clear()

    def _hold(self, told: Sequence[Event], tasks: Mapping[str, Task], known: Mapping[str, Sequence[Attempt]]) -> None:
        """Keep the messages that gates have handed back whole; what was told before is held, or on its way, already."""
        if not told:
            return
        before = {(one.celery_id, one.retries, one.process): one for ones in known.values() for one in ones}
        news = [one for one in told if not is_repeated(one, before.get((one.uuid, one.retries or 0, one.process)))]
        sent = {task.celery_id: task for task in tasks.values() if task.state in _SENT}
        avoided = {one.uuid for one in news if one.fields.get("reason") == Refusal.AVOIDED and one.uuid in sent}
        for id_ in avoided:  # once in a batch: it has yet to go out again
            sent[id_].handed_back += 1
        blocked = (sent[one.uuid] for one in told if one.fields.get("reason") == Refusal.BLOCKED and one.uuid in sent)
        self.stuck = left_to_nobody(self.turn, blocked)
        messages = held_messages(news, sent)
        if messages:
            reasons = {one.uuid: str(one.fields.get("reason")) for one in news}
            rests = {
                one.id: timedelta(seconds=rest_after(reasons[one.celery_id], sent[one.celery_id])) for one in messages
            }
            tracking.hold_messages(self.turn.connection, messages, self.turn.now, rests)
            self.turn.has_held = True

    def _held_whole(self, histories: Mapping[str, Sequence[Attempt]]) -> set[tuple[str, int]]:
        """Return of which tries of these tasks the tracker has the message: (Celery id, retries)."""
        held = [id_ for id_, history in histories.items() if any(was_held(one) for one in history)]
        return tracking.held_ids(self.turn.connection, held) if held else set()

    def _join(self, told: Sequence[Event], known: Mapping[str, Task]) -> Mapping[str, Task]:
        """Take in tasks that no plan knows."""
        joined = join(self.turn.connection, told, known, self.turn.now)
        for task in joined.tasks.values():
            self.turn.changes.add(task.job_id, task.state, 1)
        self.turn.unplaced += joined.unplaced
        self.turn.changes.revived |= joined.revived
        return joined.tasks

    def _stage(self, told: Sequence[Event], known: Mapping[str, Task]) -> None:
        """Take in what tasks add to their jobs."""
        for job_id, number in stage(self.turn.connection, told, known).items():
            self.turn.changes.add(job_id, TaskState.PENDING, number)

    def _write(self, known: Mapping[str, Sequence[Attempt]], histories: Mapping[str, Sequence[Attempt]]) -> None:
        """Write what is new or another one than before; `tell` returns the known ones first, in their order."""
        new: list[Attempt] = []
        changed: list[tuple[Attempt, Attempt]] = []
        for id_, history in histories.items():
            before = known[id_]
            new += history[len(before) :]
            changed += [(one, old) for one, old in zip(history, before, strict=False) if one is not old]
        tracking.insert_attempts(self.turn.connection, new)
        tracking.update_attempts(self.turn.connection, [one for one, _ in changed])
        foreign = [one for one in new if is_foreign(one)]
        foreign += [one for one, old in changed if is_foreign(one) and not is_foreign(old)]
        self.turn.foreign.update(one.worker or "" for one in foreign)

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
        if decider is None or task.state not in _SENT or task.reason == CancelReason.UPSTREAM:
            return  # what waits in vain was not sent in this run of its job, whatever is told of an earlier one
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
        if task.reason is FailureReason.INPUT_LOST and before is not state and task.block_id:
            self.turn.input_lost.append(task)
        if state is TaskState.FAILED and before is not state and decider.standing == Standing.LOST:
            self._tell(task)
        if state is TaskState.SOFT_FAILED and decider.outcome in _SENT_AGAIN and task.block_id:
            self._send_later(task, decider, present)

    def _try_move(self, task: Task, state: TaskState, decider: Attempt) -> bool:
        try:
            self.turn.move(task, state, ended_at=decider.ended_at, corrects=True)
        except IllegalMoveError as refused:
            logger.warning("Task %s: %s", task.id, refused, extra={"action": "move-refused", "task": task.id})
            return False
        return True

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
        elif is_final(why):
            if self._try_move(task, TaskState.CANCELED, decider) and task.ordered is None:
                task.note, task.reason = None, CancelReason.ORDER
        elif self._try_move(task, TaskState.FAILED, decider) and task.ordered is None:
            task.note, task.reason = _DROPPED.format(why=why), FailureReason.LOST

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
                self.delays[task.id] = self.turn.now + timedelta(seconds=rest_after(why, task))
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
        self.delays[task.id] = self.turn.now + timedelta(seconds=rest)
        self.turn.move(task, TaskState.READY)


def _starts(executions: Iterable[Attempt]) -> int:
    return sum(start_of(one) is not None for one in executions)


def _with_late_values(tasks: Mapping[str, Task], histories: Mapping[str, Sequence[Attempt]]) -> set[str]:
    """Return jobs in which an execution that no longer counts has succeeded, and so has stored a value as well."""
    return {
        tasks[id_].job_id
        for id_, history in histories.items()
        if any(one.outcome == "succeeded" and one.delivery < tasks[id_].delivery for one in history)
    }


def _what_failed(state: TaskState, executions: Iterable[Attempt]) -> str | None:
    """Return what the last execution that failed said, for a task that has failed or waits for its retry.

    The one that decides need not be it: a worker has often received the retry already, and holds it back.
    """
    if state not in {TaskState.SOFT_FAILED, TaskState.FAILED, TaskState.CANCELED}:
        return None
    failed = [one for one in executions if one.exception is not None and one.standing]
    last = max(failed, key=lambda one: (one.outcome == "failed", one.retries, one.process), default=None)
    return None if last is None else last.exception
