"""Which attempt an event is about that does not say so: a worker without jobrunner tells `retries` on receipt alone.

Pure: attempts in, a number out. Events come in order from each process of a worker, except that a retry overtakes the
attempt before it: Celery sends the retry from within the attempt, so that it is received, started and even ended by the
time that `retried` is told. Hence one rule for each:

| event | is about |
| --- | --- |
| started | the lowest number without a start: nothing overtakes on the way to a start but the receipt of the next |
| retried | the lowest number without an end |
| progress | the highest number |
| any other | the highest number: no retry follows an attempt that has ended for good |

Of several numbers, those that this process has received come first. Where none is left over, the receipt of a further
retry was lost, or it is the same attempt once more.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobrunner.records import Attempt
from jobrunner.wire import TASK_PROGRESS, TASK_STATED

if TYPE_CHECKING:
    from tracker.fold import Event

_STARTED, _RETRIED = "task-started", "task-retried"


def number_of(event: "Event", attempts: Sequence[Attempt]) -> int:
    """Return Celery's count of retries for an event without one, from all that is known of its delivery."""
    if not attempts:
        return 0
    if event.type in {TASK_PROGRESS, TASK_STATED}:
        return max(one.retries for one in attempts)
    told = [one.retries for one in attempts if _tells(one, event)]
    if told:
        return told[0]
    left = _left_over(event, attempts)
    mine = left & {one.retries for one in attempts if one.process == event.process}
    return min(mine or left) if left else _next(attempts)


def _left_over(event: "Event", attempts: Sequence[Attempt]) -> set[int]:
    """Return the numbers that wait for such an event."""
    if event.type not in {_STARTED, _RETRIED}:
        return set()
    starts = event.type == _STARTED
    past = {one.retries for one in attempts if one.outcome is not None or (starts and one.started_at is not None)}
    return {one.retries for one in attempts} - past


def _tells(attempt: Attempt, event: "Event") -> bool:
    """Whether the event was folded into this attempt before."""
    at = attempt.started_at if event.type == _STARTED else attempt.ended_at
    return event.type in {_STARTED, attempt.last_event} and at == event.at and attempt.process == event.process


def _next(attempts: Sequence[Attempt]) -> int:
    last = max(one.retries for one in attempts)
    return last + any(one.outcome == "retried" for one in attempts if one.retries == last)
