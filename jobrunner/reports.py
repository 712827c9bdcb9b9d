"""What a task reports of how far it is: done of total, and a word about it, in our way and in those of Celery's users.

Pure: no clock, database or broker.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from jobrunner.errors import InvalidParametersError
from jobrunner.text import SENTENCE, bounded

#: What existing code calls these things, in its `send_event` and `update_state` (C2).
_DONE = ("done", "current")
_MESSAGE = ("message", "description", "status")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`done` of `total`; without a total it is the share itself. `share` is from 0.0 to 1.0."""

    share: float
    done: float
    total: float | None
    message: str | None


def report_of(done: object, total: object = None, message: object = None) -> Report:
    """Return a report: of nothing all is done, and more than all is all.

    Raises:
        InvalidParametersError: these are no numbers, or below zero, or there is no total and the share exceeds 1.
    """
    known, of = _number(done), None if total is None else _number(total)
    if known is None or (of is None and total is not None):
        msg = f"A progress of {done!r} of {total!r} is none."
        raise InvalidParametersError(msg, "Give two numbers from 0 up, or one from 0 to 1, the share.")
    if of is None and known > 1:
        msg = f"A progress of {done!r} without a total is none."
        raise InvalidParametersError(msg, "Give the total as well, or a share from 0 to 1.")
    share = known if of is None else min(known / of, 1.0) if of else 1.0
    said = None if message is None else bounded(message, SENTENCE)
    return Report(share=float(share), done=known, total=of, message=said)


def read_report(told: Mapping[str, Any]) -> Report | None:
    """Return what the fields of an event, or of a state's meta, report; None if that is not how far a task is."""
    done, total = next(((told[name], told.get("total")) for name in _DONE if name in told), (None, None))
    try:
        return report_of(told.get("progress") if done is None else done, total, _message(told))
    except InvalidParametersError:
        return None


def report_told(fields: Mapping[str, Any]) -> Report | None:
    """Return what an event reports: the share that our workers say, else what can be read in it."""
    share = _number(fields.get("progress"))
    return read_report(fields) if share is None or share > 1 else report_of(share, None, _message(fields))


def _message(told: Mapping[str, Any]) -> object:
    return next((told[name] for name in _MESSAGE if told.get(name) is not None), None)


def _number(value: object) -> int | float | None:
    """Return a number that JSON has a word for, from 0 up; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        known = float(value)
    except OverflowError:  # integers have any length
        return None
    if not 0 <= known < math.inf:
        return None
    return int(value) if isinstance(value, Integral) else known
