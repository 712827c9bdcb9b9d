"""How often a task may be attempted, whoever sends it, and why it has failed when no attempt is left (A7, F1). Pure.

An execution that ends *unsaid* uses up one of the task's own retries, as an exception does: its worker was lost or shut
down, or its process ended and the broker was to send the message again. Nobody executes a task whose message is refused
or whose code is missing, so that uses up nothing.
"""

from collections import defaultdict
from collections.abc import Iterable

from jobrunner.records import Attempt, Standing, Task
from jobrunner.retry_policy import MAX_ATTEMPTS, last_retry
from jobrunner.snapshot import Refusal
from jobrunner.states import FailureReason

#: What is said of an execution whose worker was shut down without waiting for it.
WAS_SHUT_DOWN = "lost: its worker was shut down while it ran this task"
#: What is said of one of which nothing was heard for so long.
UNTOUCHED = "untouched: nothing was heard of it for"
#: What is said of a task that was lost again and again.
LOST_FOR_GOOD = f"lost: it was sent {MAX_ATTEMPTS} times, and each time lost before anybody had told that it started"

#: How Celery tells of a process of a pool that has ended, and of time limits, as `repr` shows them.
_PROCESS_ENDED = "WorkerLostError("
_SOFT, _HARD = "SoftTimeLimitExceeded(", "TimeLimitExceeded("
_GAVE_UP = "MaxRetriesExceededError("

_OF_BODY = frozenset({"succeeded", "failed", "retried"})


def ended_unsaid(one: Attempt) -> bool:
    """Whether an execution was under way, and ended without a word of the body's.

    A process that had handed the message back may have been given it again, and refused it then: a thread tells its
    start before it refuses, but not before its receipt.
    """
    if one.started_at is None:
        return False
    if one.outcome == "held":
        return one.received_at is not None and one.received_at > one.started_at
    return one.outcome in {"lost", "rejected"}


def was_given_up(one: Attempt) -> bool:
    """Whether an execution was to end because nothing was heard of it: that it was ended then says nothing more."""
    return one.outcome == "lost" and (one.exception or "").startswith(UNTOUCHED)


def next_retry(decider: Attempt, executions: Iterable[Attempt]) -> int:
    """Return the retries with which a task is sent again after the executions of one delivery."""
    return decider.retries + _was_executed(decider, executions)


def is_spent(task: Task, decider: Attempt, executions: Iterable[Attempt]) -> bool:
    """Whether the attempt that decides has ended unsaid, and no other may follow it."""
    return decider.retries >= last_retry(task.max_retries) and _was_executed(decider, executions)


def of_this_run(task: Task, executions: Iterable[Attempt]) -> list[Attempt]:
    """Return the executions of a task since it was requeued last: it begins anew then."""
    return [one for one in executions if one.delivery > task.earlier]


def is_lost_for_good(task: Task, executions: Iterable[Attempt]) -> bool:
    """Whether a task has come to nothing so often that it is not sent again, though nobody has told that it started.

    A body that kills its worker at once kills the word of its start, too.
    """
    deliveries: defaultdict[int, list[Attempt]] = defaultdict(list)
    for one in of_this_run(task, executions):
        deliveries[one.delivery].append(one)
    return sum(all(_came_to_nothing(one) for one in ones) for ones in deliveries.values()) >= MAX_ATTEMPTS


def _came_to_nothing(one: Attempt) -> bool:
    if one.outcome == "held":
        return one.exception == Refusal.REDELIVERED
    return one.started_at is None and one.outcome in {None, "lost"}


def last_words(executions: Iterable[Attempt]) -> str:
    """Return what is known of the end of those that have ended unsaid."""
    said = [one.exception for one in executions if ended_unsaid(one) and one.outcome != "held" and one.exception]
    return said[-1] if said else "the process that ran it has ended"


def _was_executed(decider: Attempt, executions: Iterable[Attempt]) -> bool:
    return any(one.retries == decider.retries and ended_unsaid(one) for one in (decider, *executions))


def why_failed(task: Task, decider: Attempt, executions: Iterable[Attempt]) -> FailureReason | None:
    """Return why a task has failed for good: None if by an error that its retry policy does not cover.

    `executions` are all that are known of it.
    """
    said = decider.exception or ""
    if decider.outcome == "input-lost":
        return FailureReason.INPUT_LOST
    if said.startswith((_SOFT, _HARD, UNTOUCHED)):
        return FailureReason.TIMEOUT
    if decider.standing == Standing.LOST or decider.outcome == "held" or said.startswith(_PROCESS_ENDED):
        return FailureReason.POISON if _is_poison(of_this_run(task, executions)) else FailureReason.LOST
    return FailureReason.RETRIES if _is_used_up(task, decider) else None


def _is_used_up(task: Task, decider: Attempt) -> bool:
    """Whether a failure came after the last retry; the policy of a task that another one has sent is not known."""
    last = last_retry(task.max_retries) if task.block_id else 1
    if decider.outcome != "failed":
        return False
    return 0 < last <= decider.retries or (decider.exception or "").startswith(_GAVE_UP)


def _is_poison(executions: Iterable[Attempt]) -> bool:
    """Whether a task has ended each of the processes that have run it, of which there were at least two."""
    run = [one for one in executions if one.standing and (ended_unsaid(one) or one.outcome in _OF_BODY)]
    return len(run) > 1 and all(_ended_with_its_process(one) for one in run)


def _ended_with_its_process(one: Attempt) -> bool:
    said = one.exception or ""
    return said.startswith(_PROCESS_ENDED) or (ended_unsaid(one) and not said.startswith((WAS_SHUT_DOWN, UNTOUCHED)))


def explain(reason: FailureReason | None, said: str | None, task: Task) -> str | None:
    """Return what people are told of a failure: what the last attempt said, with the reason where that does not."""
    match reason:
        case FailureReason.TIMEOUT if said and not said.startswith(UNTOUCHED):
            return _limit(said)
        case FailureReason.TIMEOUT:
            return f"{said}; no retry is left of {last_retry(task.max_retries)}"
        case FailureReason.POISON:
            return f"poison: every attempt has ended the process that ran it, at last: {said}"
        case FailureReason.LOST if task.block_id:
            lost = said if said and said.startswith("lost") else f"lost: {said}"
            return f"{lost}; no retry is left of {last_retry(task.max_retries)}"
    return said


def _limit(said: str) -> str:
    if said.startswith(_SOFT):
        return f"it ran into its soft time limit: {said}"
    seconds = said.removeprefix(_HARD).partition(",")[0].rstrip(")")
    return f"it ran into its hard time limit of {seconds} s: {said}" if seconds else f"it ran into {said}"
