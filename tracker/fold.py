"""Fold Celery's task events into executions, and the executions of a task into its state.

Pure and order-free: values in, values out; whatever order events arrive in, and however often, the rows come out the
same. The Celery id names the delivery, within it Celery's retries, within that the worker process: what one process
tells of one attempt is one row. Times are compared within a row only, where they are of one clock (and to say who of
several processes that only received a message has it). What the rows of a task say together follows from what they are,
never from when they were told; Celery's own event state lets a late `retried` undo a success.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from signal import Signals
from types import MappingProxyType
from typing import Any

from jobrunner import ids
from jobrunner.records import Attempt, AttemptKey, Standing, Task
from jobrunner.reports import report_told
from jobrunner.states import CancelReason, FailureReason, TaskState
from jobrunner.text import NAME, SENTENCE, TRACEBACK, bounded
from jobrunner.wire import LOST, SHUT_DOWN, TASK_HELD
from tracker.bounds import WAS_SHUT_DOWN, is_spent, was_given_up, why_failed
from tracker.numbering import number_of
from tracker.statements import stated, text_told

#: The event types that are folded, each with what it says of an execution.
FOLDED: Mapping[str, str] = MappingProxyType(
    {
        f"task-{word}": word
        for word in (
            *("received", "started", "progress", "stated"),
            *("succeeded", "failed", "revoked", "retried", "rejected", "cancelled", "held"),
        )
    }
)

#: How an execution ended, weakest first: the stronger stands when two ends of one execution are told.
OUTCOMES: Mapping[str, Standing] = MappingProxyType(
    {
        "lost": Standing.LOST,
        "rejected": Standing.HANDED_BACK,
        "cancelled": Standing.HANDED_BACK,
        "held": Standing.DROPPED,
        "unknown": Standing.DROPPED,
        "retried": Standing.RETRIED,
        "revoked": Standing.REVOKED,
        "failed": Standing.FAILED,
        "input-lost": Standing.FAILED,
        "succeeded": Standing.SUCCEEDED,
    }
)

#: Ends after which the process may have the same message again, from the broker or because it was forwarded.
PASSING = frozenset({"rejected", "cancelled", "held"})

#: Ends that only the process can tell that runs the task; a revoked message is discarded before its receipt is told.
_OF_RUNNING = frozenset({"retried", "failed", "input-lost", "succeeded"})

_STATE_AFTER = {
    Standing.SUCCEEDED: TaskState.COMPLETED,
    Standing.STARTED: TaskState.ACTIVE,
    Standing.FAILED: TaskState.FAILED,
    Standing.REVOKED: TaskState.CANCELED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A Celery event as read from the log; `fields` holds what depends on its type.

    `source` is the process that sent it (by the id of its batches) and `retries` Celery's count, both None from workers
    that do not know jobrunner.
    """

    type: str
    uuid: str
    worker: str
    at: datetime
    source: str | None = None
    pid: int | None = None
    retries: int | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def process(self) -> str:
        """The worker process whose execution it tells of."""
        return self.source or bounded(f"{self.pid} on {self.worker}", NAME)


def fold(attempt: Attempt, *events: Event) -> Attempt:
    """Return an execution with what events of its process tell about it; the one given if they tell nothing new."""
    folded = replace(attempt)  # once for all events: a copy costs more than what one of them changes
    for event in events:
        word = _word(event)
        if word is None:
            continue
        if word == "received":
            folded.received_at = _latest(folded.received_at, event.at)
        elif word == "started":
            folded.started_at = _latest(folded.started_at, event.at)
        elif word == "progress":
            _report(folded, event)
        elif word == "stated":
            _state(folded, event)
        else:
            _end(folded, word, event)
        if folded.worker is None or event.worker < folded.worker:
            folded.worker = event.worker
        if folded.pid is None or (event.pid is not None and event.pid < folded.pid):
            folded.pid = event.pid
    if folded == attempt:
        return attempt
    folded.standing = _standing(folded)
    folded.last_event = _last_event(folded)
    return folded


def _last_event(attempt: Attempt) -> str | None:
    """Return what was told last of those events that make a difference to a task: a report makes none."""
    if attempt.standing in _OPEN:
        return _OPEN[attempt.standing]
    if attempt.outcome is None:
        return None
    return "task-failed" if attempt.outcome in _TOLD_AS_FAILED else f"task-{attempt.outcome}"


def _word(event: Event) -> str | None:
    """Return what an event says of an execution."""
    word = FOLDED.get(event.type)
    if word == "failed" and "traceback" not in event.fields and _is_unregistered(event.fields.get("exception")):
        return "unknown"  # so says a worker whose code lacks the task: it has dropped the message
    if word == "failed" and lost_values(event) is not None:
        return "input-lost"
    if word == "cancelled" and event.fields.get(SHUT_DOWN) is True:
        return "lost"
    if word == "rejected" and event.fields.get("requeue") is not True:
        return None  # `task-failed` comes with it
    return word


def lost_values(event: Event) -> list[str] | None:
    """Return the Celery ids of the values that a task had to take and found lost; None of an event of anything else.

    None of them were named if it was the list of them that is lost.
    """
    told = event.fields.get(LOST)
    return [one for one in told if isinstance(one, str)] if isinstance(told, list) else None


def _is_unregistered(exception: object) -> bool:
    return isinstance(exception, str) and exception.startswith("NotRegistered(")


def _latest(known: datetime | None, told: datetime) -> datetime:
    return told if known is None or told > known else known


def _report(folded: Attempt, event: Event) -> None:
    """The greatest report stands; of equal ones the last. It says nothing of a start: any process may report."""
    told = report_told(event.fields)
    if told is None:
        return
    if folded.touched_at is not None:
        known = folded.progress or 0.0, folded.touched_at, folded.said or ""
        if (told.share, event.at, told.message or "") <= known:
            return
    folded.progress, folded.touched_at, folded.said = told.share, event.at, told.message


def _state(folded: Attempt, event: Event) -> None:
    """The last statement stands: a process may execute again what it has handed back."""
    told = text_told(event.fields, event.at)
    if told is not None:
        folded.statement = max(folded.statement or "", told)


def _end(folded: Attempt, outcome: str, event: Event) -> None:
    """The strongest end stands; of equal ones the first, of two after which it may be received again the last."""
    fields = event.fields
    exception = _text(fields.get("exception") or _why(event), SENTENCE)
    if outcome == "revoked" and was_given_up(folded):
        return
    if folded.outcome is not None and folded.ended_at is not None:
        told, known = _strength(outcome), _strength(folded.outcome)
        if outcome in PASSING and folded.outcome in PASSING:
            before = folded.ended_at, folded.outcome, folded.exception or ""
            stands = (event.at, outcome, exception or "") > before
        else:
            stands = told > known or (told == known and event.at < folded.ended_at)
        if not stands:
            return
    folded.outcome, folded.ended_at = outcome, event.at
    folded.runtime = _seconds(fields.get("runtime"))
    folded.result = _text(fields.get("result"), SENTENCE)
    folded.exception = exception
    folded.traceback = _text(fields.get("traceback"), TRACEBACK)


def _strength(outcome: str) -> Standing:
    return Standing.HANDED_BACK if outcome in PASSING else OUTCOMES[outcome]


def _why(event: Event) -> str | None:
    """Return a word for an end that comes without an exception."""
    if event.type == TASK_HELD:
        reason = event.fields.get("reason")
        return reason if isinstance(reason, str) else None
    if event.fields.get(SHUT_DOWN) is True:
        return WAS_SHUT_DOWN
    if event.type != "task-revoked":
        return {"task-rejected": "handed back", "task-cancelled": "the worker lost its broker"}.get(event.type)
    if event.fields.get("expired"):
        return CancelReason.EXPIRED
    if event.fields.get("terminated"):
        return CancelReason.TERMINATED + _signal(event.fields.get("signum"))
    return CancelReason.REVOKED


def _signal(told: object) -> str:
    """Return the name of a signal after a comma: Celery tells it as a number, as that in a text, or by its name."""
    known = {str(int(one)): one.name for one in Signals} | {one.name: one.name for one in Signals}
    name = known.get(str(told))
    return f", {name}" if name else ""


def _text(value: object, limit: int) -> str | None:
    return None if value is None else bounded(value, limit)


def _seconds(value: object) -> float | None:
    try:
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
    except OverflowError:  # JSON knows integers of any length
        return None


def _standing(attempt: Attempt) -> Standing:
    """Return how much an execution says, if it is the only one of its attempt."""
    end = Standing.NONE if attempt.outcome is None else OUTCOMES[attempt.outcome]
    if attempt.outcome is not None and attempt.outcome not in PASSING:
        return end
    # What a process has handed back, or not let through, it may receive again.
    since = attempt.ended_at
    if attempt.started_at and (since is None or attempt.started_at > since):
        return Standing.STARTED
    return Standing.RECEIVED if attempt.received_at and (since is None or attempt.received_at > since) else end


_OPEN: Mapping[int, str] = MappingProxyType({Standing.STARTED: "task-started", Standing.RECEIVED: "task-received"})
_TOLD_AS_FAILED = frozenset({"unknown", "failed", "input-lost"})


def was_held(attempt: Attempt) -> bool:
    """Whether a gate has dropped the message: what was told before was no start, and it is in nobody's hands."""
    return attempt.outcome == "held" and _standing(attempt) not in _OPEN


def start_of(attempt: Attempt) -> datetime | None:
    """Return when an execution started. A pool of threads tells so before the gate in the thread refuses."""
    return None if was_held(attempt) else attempt.started_at


def is_foreign(attempt: Attempt) -> bool:
    """Whether a process reported an end that did not have the task: kept, counted, and without effect (A5)."""
    return attempt.standing == Standing.NONE and attempt.outcome in _OF_RUNNING


def tell(task: Task, executions: Iterable[Attempt], events: Iterable[Event]) -> list[Attempt]:
    """Return the executions of a task with what events tell of them: those given in their order, then new ones."""
    known = {one.key: one for one in executions}
    told: defaultdict[AttemptKey, list[Event]] = defaultdict(list)
    numberless: list[Event] = []
    for event in events:
        if event.retries is None:
            numberless.append(event)
            continue
        key = delivery_of(task, event.uuid), event.retries, event.process
        told[key].append(event)
        if key not in known:
            known[key] = _unheard(task, event, key)
    known = {key: fold(one, *told[key]) if key in told else one for key, one in known.items()}
    for event in numberless:  # one by one: each is placed by what those before it have made known
        delivery = delivery_of(task, event.uuid)
        number = number_of(event, [one for one in known.values() if one.delivery == delivery])
        key = delivery, number, event.process
        known[key] = fold(known.get(key) or _unheard(task, event, key), event)
    return weigh(list(known.values()))


def _unheard(task: Task, event: Event, key: AttemptKey) -> Attempt:
    delivery, retries, process = key
    return Attempt(task_id=task.id, delivery=delivery, retries=retries, process=process, celery_id=event.uuid)


def delivery_of(task: Task, celery_id: str) -> int:
    """Return which delivery of a task has this Celery id."""
    later = range(task.delivery, 1, -1) if celery_id != task.id else ()
    return next((number for number in later if ids.celery_id(task.id, number) == celery_id), 1)


def weigh(executions: list[Attempt]) -> list[Attempt]:
    """Return the executions of one task, each with its standing beside the others of the same attempt."""
    if len(executions) == 1:
        return executions
    attempts: defaultdict[tuple[int, int], list[Attempt]] = defaultdict(list)
    for one in executions:
        attempts[one.delivery, one.retries].append(one)
    return [_beside(one, attempts[one.delivery, one.retries]) for one in executions]


def _beside(one: Attempt, others: list[Attempt]) -> Attempt:
    standing = _standing(one)
    if one.outcome in _OF_RUNNING and not one.received_at and not one.started_at:
        if any(start_of(other) for other in others):
            standing = Standing.NONE  # foreign
    elif standing is Standing.RECEIVED and one.received_at:
        has = (one.received_at, one.process)
        receipts = ((other.received_at, other.process) for other in others if other.received_at and not was_held(other))
        if any(receipt > has for receipt in receipts):
            standing = Standing.NONE  # passed on; a copy that was refused says nothing about this one
    return one if one.standing == standing else replace(one, standing=standing)


def of_delivery(delivery: int, history: Iterable[Attempt]) -> list[Attempt]:
    """Return the executions of one delivery of a task."""
    return [one for one in history if one.delivery == delivery]


def deciding(executions: Iterable[Attempt]) -> Attempt | None:
    """Return the execution of one delivery that decides the task's state: a success, else of the latest attempt."""
    return max((one for one in executions if one.standing), key=_weight, default=None)


def _weight(attempt: Attempt) -> tuple[bool, int, int, str]:
    return attempt.standing == Standing.SUCCEEDED, attempt.retries, attempt.standing, attempt.process


def state_after(task: Task, decider: Attempt, executions: Iterable[Attempt] = ()) -> TaskState:
    """Return the state that a task takes from the execution that decides it; `executions` are those of its delivery."""
    executions = list(executions)
    if (decider.standing == Standing.LOST or was_held(decider)) and is_spent(task, decider, executions):
        return TaskState.FAILED
    if was_held(decider):
        return TaskState.SOFT_FAILED if any(_was_tried(one) for one in executions) else TaskState.QUEUED
    if decider.standing in {Standing.DROPPED, Standing.LOST} and not task.block_id:
        return TaskState.FAILED  # nobody sends a task again that no plan knows
    state = _STATE_AFTER.get(Standing(decider.standing), TaskState.SOFT_FAILED)
    if state is TaskState.COMPLETED and (statement := stated(decider)) is not None:
        return statement.state
    if decider.standing == Standing.RECEIVED and decider.retries == task.first_retries:
        # Celery resends a retry at once and lets it wait in the worker: until that starts, it stays soft-failed (F4).
        return state if any(_was_tried(one) for one in executions) else TaskState.QUEUED
    return state


def _was_tried(attempt: Attempt) -> bool:
    """Whether an execution was more than refused at the gate before anything was told of it."""
    return attempt.started_at is not None or attempt.outcome not in {None, "held"}


_REVOKED = frozenset({CancelReason.REVOKED, CancelReason.TERMINATED, CancelReason.EXPIRED})


def reason_of(
    task: Task, state: TaskState, decider: Attempt, executions: Iterable[Attempt] = ()
) -> FailureReason | CancelReason | None:
    """Return why a task has failed or was canceled, as far as its executions tell."""
    if state is TaskState.CANCELED and decider.outcome == "revoked":
        word = (decider.exception or "").partition(",")[0]
        return CancelReason(word) if word in _REVOKED else CancelReason.REVOKED
    return why_failed(task, decider, executions) if state is TaskState.FAILED else None
