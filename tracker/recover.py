"""What is sent again, and why: tasks of a dead tracker's outbox, of a worker that is gone, of an emptied queue.

Each is sent under its next delivery, so that a message that turns up after all cannot be taken for the new one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeAlias

from jobrunner.records import Attempt, Standing, Task
from jobrunner.snapshot import Kind
from jobrunner.states import FailureReason, TaskState
from jobrunner.store import tracking
from tracker.bounds import LOST_FOR_GOOD, is_lost_for_good, is_spent, next_retry
from tracker.fold import deciding, of_delivery, was_held, weigh
from tracker.folding import reconsider
from tracker.following import NO_RETRY, conclude
from tracker.sending import batch_of
from tracker.turn import Turn

_Held: TypeAlias = list[tuple[Task, Attempt]]

#: A sent task of which no worker has said anything for this long may have been lost with its queue.
UNHEARD_AFTER = timedelta(seconds=10)
#: What is said of a task that was called in a body, or as a link, and whose worker is gone.
_NOT_SENT_AGAIN = (
    "lost: worker {name} was lost while it ran this task, which a task has sent and only that can send again."
    " With acks_late=True the broker keeps the message of such a task."
)
_LOST_WITH = "lost: worker {name} was lost while it ran this task"
_EMPTIED = (
    "lost: its queue was found empty and no worker had it; a task has sent it, which only that can do again."
    " Requeue that task, or the job with `jobrunner requeue --all`."
)


@dataclass(frozen=True, slots=True)
class Voided:
    """What may have gone out in part, and must not start: all that was unsent by a moment, void since a version."""

    version: int
    until: datetime


def void_outbox(turn: Turn) -> Voided | None:
    """Make void what was committed as queued but never noted as sent: tracker or broker went away in between.

    Only to be asked once the event log has been read to its end: a task of which a worker has spoken was sent. The
    messages may be on the broker all the same, so workers must know before the next delivery goes out. Messages that
    the tracker was to forward are of no batch: they go out again at once, and may start twice.
    """
    tracking.hold_in_doubt(turn.connection)
    batches = tracking.unsent_batches(turn.connection)
    if not batches:
        return None
    version = tracking.next_version(turn.connection)
    entries = [("", batch_of(queued_at), None) for queued_at in batches]
    tracking.add_entries(turn.connection, Kind.VOID, entries, version, turn.now)
    return Voided(version, max(batches))


def resend_outbox(turn: Turn, voided: Voided) -> int:
    """Send under the next delivery what was voided, and of which no worker has spoken since.

    Only to be asked when all workers know that it is void: no task starts twice then.
    """
    unsent = tracking.unsent_tasks(turn.connection, voided.until)
    return _ready_again(turn, unsent, "sent again: the tracker stopped while sending it")


@dataclass(slots=True)
class QueueWatch:
    """Finds tasks that the broker lost: sent, in no worker's hands, and their queue empty on two looks in a row."""

    suspects: frozenset[str] = frozenset()

    def look(self, turn: Turn, is_empty: Callable[[str], bool]) -> int:
        """Look once, and send again what was already missing at the last look.

        Only to be asked once the event log is drained. A worker that died between taking a message and saying so counts
        here too.
        """
        before = turn.now - UNHEARD_AFTER
        empty = [queue for queue in tracking.unheard_queues(turn.connection, before) if is_empty(queue)]
        missing = tracking.unheard_tasks(turn.connection, before, empty) if empty else []
        lost = [task for task in missing if task.id in self.suspects]
        self.suspects = frozenset(task.id for task in missing)
        _fail(turn, (task for task in lost if not task.block_id), _EMPTIED)
        planned = [task for task in lost if task.block_id]
        histories = tracking.histories_of(turn.connection, {task.id for task in planned})
        for task in planned:
            _count_on(task, histories[task.id])
        left = _without_lost_for_good(turn, planned, histories)
        return _ready_again(turn, left, "sent again: its queue was found empty and no worker had it")


def give_up_worker(turn: Turn, name: str, *, living_source: str | None, redelivers: bool) -> int:
    """End the open attempts of a worker process that is gone as lost, and send their tasks again, `retries` going on.

    Not sent are those that another process has got meanwhile, from the broker or as Celery's retry. `living_source` is
    the process that bears the name now; its attempts are left alone. If the broker `redelivers` by itself what a worker
    had received and not started, that is left to it. What another process has received since is not in this one's
    hands any more, also if that one's gate should refuse it.

    Of a task that no plan knows the tracker has no message: what was started has failed, and what was only received any
    broker brings back, Redis after its visibility time-out.
    """
    held = tracking.tasks_held_by(turn.connection, name, living_source)
    passed_on, held = _apart(held, lambda _, one: one.standing == Standing.NONE)
    given_back, held = _apart(
        held, lambda task, one: one.standing == Standing.RECEIVED and (redelivers or not task.block_id)
    )
    _drop(turn, passed_on + given_back)
    lost = [_lost(task, attempt, name, turn.now) for task, attempt in held]
    tracking.update_attempts(turn.connection, lost)
    histories = tracking.histories_of(turn.connection, {task.id for task, _ in held})
    held = [
        (task, one)
        for task, one in held
        if task.state is not TaskState.READY and not _is_in_hand(of_delivery(task.delivery, histories[task.id]))
    ]
    planned, adopted = _apart(held, lambda task, _: bool(task.block_id))
    _fail(turn, _not_ours(turn, adopted, histories), _NOT_SENT_AGAIN.format(name=name))
    for task, attempt in planned:
        executed = attempt.standing == Standing.STARTED  # what was only received has used up no retry
        task.first_retries = max(task.first_retries, attempt.retries + executed)
        turn.move(task, TaskState.SOFT_FAILED)
    spent, planned = _apart(planned, lambda task, _: _is_spent(task, histories[task.id]))
    conclude(turn, [(task, histories[task.id]) for task, _ in spent])
    left = _without_lost_for_good(turn, [task for task, _ in planned], histories)
    return _ready_again(turn, left, f"sent again: worker {name} was lost")


def _count_on(task: Task, history: Iterable[Attempt]) -> None:
    """Let the retries of a task go on where the last ones were told of that somebody has tried."""
    present = of_delivery(task.delivery, history)
    decider = deciding(present)
    if decider is not None:
        again = decider.retries + 1 if decider.standing == Standing.RETRIED else next_retry(decider, present)
        task.first_retries = max(task.first_retries, again)


def _without_lost_for_good(turn: Turn, tasks: Sequence[Task], histories: Mapping[str, Sequence[Attempt]]) -> list[Task]:
    """Return the tasks that may be sent again; the others have failed."""
    lost = [task for task in tasks if is_lost_for_good(task, histories[task.id])]
    for task in lost:
        turn.tell(task.job_id, f"{task.id} failed (lost): {LOST_FOR_GOOD}", NO_RETRY, task_id=task.id)
    _fail(turn, lost, LOST_FOR_GOOD)
    return [task for task in tasks if task not in lost]


def _apart(held: _Held, condition: Callable[[Task, Attempt], bool]) -> tuple[_Held, _Held]:
    """Return those that meet a condition, and the others."""
    return [one for one in held if condition(*one)], [one for one in held if not condition(*one)]


def _lost(task: Task, attempt: Attempt, worker: str, now: datetime) -> Attempt:
    note = None
    if not task.block_id:
        note = _NOT_SENT_AGAIN.format(name=worker)
    elif attempt.standing == Standing.STARTED:
        note = _LOST_WITH.format(name=worker)
    return replace(attempt, outcome="lost", standing=Standing.LOST, ended_at=now, exception=note)


def _was_refused(task: Task, history: Sequence[Attempt]) -> bool:
    """Whether a gate has refused the message last, as far as processes that are not lost have told."""
    decider = deciding(of_delivery(task.delivery, weigh(list(history))))
    return decider is not None and was_held(decider)


def _is_in_hand(present: Iterable[Attempt]) -> bool:
    """Whether another process has the message as well, or the one of its retry."""
    return any(one.standing in {Standing.RECEIVED, Standing.STARTED} for one in present)


def _is_spent(task: Task, history: Iterable[Attempt]) -> bool:
    """Whether the execution that was lost was the last one that the task could have."""
    present = of_delivery(task.delivery, history)
    decider = deciding(present)
    return decider is not None and decider.standing == Standing.LOST and is_spent(task, decider, present)


def forget_receipts(turn: Turn, name: str, source: str, before: datetime) -> None:
    """Note that a worker process which connects to the broker anew has dropped what it had received and not started.

    The broker keeps such messages for the connection that was, on Redis for an hour: they are in nobody's hands, and
    `QueueWatch` decides. Both times are that process's own; what one had that it replaces is given up.
    """
    held = [one for one in tracking.tasks_held_by(turn.connection, name, None) if one[1].process == source]
    dropped, _ = _apart(
        held,
        lambda _, one: one.standing != Standing.STARTED and one.received_at is not None and one.received_at < before,
    )
    _drop(turn, dropped)


def _drop(turn: Turn, held: _Held) -> None:
    """Forget that messages were received: they are in no worker's hands.

    If the broker has given one of them to another worker already, whose gate has refused it, that counts now.
    """
    dropped = [replace(attempt, received_at=None, last_event=None, standing=Standing.NONE) for _, attempt in held]
    tracking.update_attempts(turn.connection, dropped)
    reconsider(turn, [task for task, _ in held])


def _not_ours(turn: Turn, lost: _Held, histories: Mapping[str, Sequence[Attempt]]) -> list[Task]:
    """Return the tasks of which the tracker has no message; those of which it has follow the gate that refused it.

    One that may not have been forwarded, and was started after all, counts as forwarded.
    """
    kept = tracking.held_ids(turn.connection, {task.id for task, _ in lost})
    ours, others = _apart(
        lost, lambda task, one: (one.celery_id, one.retries) in kept and _was_refused(task, histories[task.id])
    )
    reconsider(turn, [task for task, _ in ours])
    return [task for task, _ in others]


def _fail(turn: Turn, tasks: Iterable[Task], note: str) -> None:
    """End tasks as lost that nobody can send again."""
    for task in tasks:
        task.reason, task.note = FailureReason.LOST, note
        turn.move(task, TaskState.FAILED)


def _ready_again(turn: Turn, tasks: Iterable[Task], note: str) -> int:
    again = {task.id: task for task in tasks}
    for task in again.values():
        if task.ordered is None:
            task.note = note
        turn.move(task, TaskState.READY)
    turn.move_on()  # the next rule must see what this one has moved
    return len(again)
