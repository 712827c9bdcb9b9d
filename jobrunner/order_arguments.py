"""What an order may say besides its kind, checked before a row is written: grace, scope, priority, labels, a worker.

Each function returns the arguments as the row holds them, and raises `InvalidParametersError`. Pure.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from jobrunner.errors import InvalidParametersError
from jobrunner.order_kinds import Items, Scope
from jobrunner.text import NAME, SENTENCE, check_texts

#: Seconds between the wish that a process ends and its end by force, if nobody says otherwise.
GRACE = 10.0
#: A day: what runs longer than that had better be left to finish.
MOST_GRACE = 86_400.0
#: From the last that is sent to the first.
PRIORITIES = range(-100, 101)

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")


def cancel_arguments(grace: float | None = GRACE) -> dict[str, Any]:
    """Return those of `cancel`: what runs is ended after so many seconds, or with None left to finish."""
    if grace is None:
        return {"grace": None}
    if isinstance(grace, bool) or not isinstance(grace, int | float) or not math.isfinite(grace):
        msg = f"The grace {grace!r} is no number of seconds."
        raise InvalidParametersError(msg, "Give seconds, or None to let finish what runs.")
    if not 0 <= grace <= MOST_GRACE:
        msg = f"The grace of {grace:g} s is not between 0 and {MOST_GRACE:g}."
        raise InvalidParametersError(msg, "Give fewer seconds, or None to let finish what runs.")
    return {"grace": float(grace)}


def requeue_arguments(scope: Scope | str | None = None, items: Items | str | None = None) -> dict[str, Any]:
    """Return those of `requeue` of a job; None leaves the scope to the job's state, or takes all items of tasks."""
    if scope is not None and scope not in list(Scope):
        msg = f"The scope {scope!r} is none."
        raise InvalidParametersError(msg, f"Give one of {', '.join(Scope)}, or None for what fits the job's state.")
    if scope is not None and items is not None:
        msg = f"A scope ({scope}) and items ({items}) exclude each other."
        raise InvalidParametersError(msg, "With items, only tasks that have such run again, and what depends on them.")
    return {"scope": scope and str(scope)} | items_arguments(items)


def items_arguments(items: Items | str | None = None) -> dict[str, Any]:
    """Return those of `requeue` of a task; None takes all of its items."""
    if items is None:
        return {}
    if items not in list(Items):
        msg = f"{items!r} are no items of a task."
        raise InvalidParametersError(msg, f"Give {', '.join(Items)}, or None for all that it takes.")
    return {"items": str(items)}


def unblock_arguments(worker: str, name: str | None = None) -> dict[str, Any]:
    """Return those of `unblock`: which worker, and the name of the tasks; None for all that it is blocked for."""
    check_texts(limit=NAME, worker=worker, task=name)
    return {"worker": worker, "name": name}


def set_arguments(
    *, priority: int | None = None, note: str | None = None, labels: Mapping[str, str | None] | None = None
) -> dict[str, Any]:
    """Return those of `set`: only what is to change. An empty note removes it, and None as a label's text that."""
    arguments: dict[str, Any] = {}
    if priority is not None:
        arguments["priority"] = _checked_priority(priority)
    if note is not None:
        check_texts(limit=SENTENCE, note=note or None)
        arguments["note"] = note or None
    if labels:
        check_labels(labels)
        arguments["labels"] = dict(labels)
    if not arguments:
        msg = "Nothing is to be set."
        raise InvalidParametersError(msg, "Give a priority, a note or labels.")
    return arguments


def _checked_priority(priority: object) -> int:
    if isinstance(priority, bool) or not isinstance(priority, int) or priority not in PRIORITIES:
        msg = f"The priority {priority!r} is no whole number from {PRIORITIES[0]} to {PRIORITIES[-1]}."
        raise InvalidParametersError(msg, "Higher ones are sent first; 0 is usual.")
    return priority


def check_labels(labels: Mapping[str, str | None]) -> None:
    """Refuse names of labels that not every database can be asked for, and texts that none keeps."""
    for name, text in labels.items():
        if not isinstance(name, str) or _LABEL.fullmatch(name) is None:
            msg = f"{name!r} is no name of a label."
            raise InvalidParametersError(
                msg,
                "Use 1 to 63 letters, digits, dots, dashes, slashes and underscores, a letter or digit at each end.",
            )
        check_texts(limit=NAME, **{f"label {name}": text})
