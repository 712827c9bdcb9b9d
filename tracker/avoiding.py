"""Which workers a message is to avoid, and how long one rests that a worker has handed back (F1).

Pure. Workers hand back what names them, as long as others live; see `jobrunner.snapshot`.
"""

from collections.abc import Sequence
from typing import Any

from jobrunner.records import Task, Tried
from jobrunner.snapshot import Refusal
from jobrunner.wire import HEADER, MOST_AVOIDED

#: Hand-backs of one try, after which whoever gets it runs it.
MOST_HANDED_BACK = 3
#: Deliveries to blocked workers until the rest between them grows no more.
_MOST_DOUBLED = 4


def to_avoid(tried: Sequence[Tried], first_retries: int) -> list[str]:
    """Return the workers that have failed a task since it was submitted or requeued, at most the last few.

    `tried` has the last ones first. A requeue counts retries from zero again: so the tries of this run are those whose
    numbers go down without a break, from the one that comes next. Whose code lacks the task has used up none.
    """
    names: list[str] = []
    upper = first_retries
    for one in tried:
        if one.retries >= upper + (one.outcome == "unknown"):
            break
        upper = one.retries
        if one.worker is not None and one.worker not in names:
            names.append(one.worker)
    return names[:MOST_AVOIDED][::-1]


def rest_after(why: str, task: Task) -> float:
    """Return for how many seconds a message rests that a gate has refused: workers may know better then.

    One that was handed back by who had failed it before: 1, 2, 4. One that came to a blocked worker, since others may
    be busy for long: 1, 2, 4, 8, 8, from delivery to delivery.
    """
    if why == Refusal.AVOIDED:
        return 2.0 ** (min(task.handed_back, MOST_HANDED_BACK) - 1)
    return 2.0 ** (min(task.delivery, _MOST_DOUBLED) - 1) if why == Refusal.BLOCKED else 1.0


def for_anybody(headers: dict[str, Any]) -> dict[str, Any]:
    """Return the headers of a message without the workers that it is to avoid."""
    ours = headers.get(HEADER)
    if not isinstance(ours, dict) or "avoid" not in ours:
        return headers
    return {**headers, HEADER: {name: value for name, value in ours.items() if name != "avoid"}}
