"""What the failed attempts of a job, or its items, have in common: grouped by exception and message. Pure."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from jobrunner.store.attempts import AttemptView
from jobrunner.store.items import ItemErrorView

#: What differs between two messages that say the same: ids, addresses and numbers.
_DIFFERS: Final = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b0x[0-9a-f]+\b|\b(?=[a-f]*\d)[0-9a-f]{8,}\b|\d+(?:\.\d+)?",
    re.IGNORECASE,
)
_IN_ITS_PLACE: Final = "#"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorGroup:
    """Failed attempts that say the same, but for numbers and ids: these are `#` in `error` if they differ.

    `outcomes` has how many of the `attempts` ended in which way: `retried` and `lost` are soft, `failed` is final.
    """

    error: str
    attempts: int
    tasks: int
    outcomes: dict[str, int]
    first_at: datetime | None
    last_at: datetime | None
    names: list[str]
    workers: list[str]


def group_errors(failed: Iterable[AttemptView]) -> list[ErrorGroup]:
    """Return groups of attempts that failed by the same error, the largest first."""
    groups: defaultdict[str, list[AttemptView]] = defaultdict(list)
    for one in failed:
        groups[_DIFFERS.sub(_IN_ITS_PLACE, one.why)].append(one)
    found = [_group(error, ones) for error, ones in groups.items()]
    return sorted(found, key=lambda one: (-one.attempts, one.error))


def _group(error: str, ones: list[AttemptView]) -> ErrorGroup:
    texts = {one.why for one in ones}
    ends = [one.ended_at for one in ones if one.ended_at is not None]
    return ErrorGroup(
        error=texts.pop() if len(texts) == 1 else error,
        attempts=len(ones),
        tasks=len({one.task_id for one in ones}),
        outcomes=dict(Counter(one.outcome for one in ones if one.outcome is not None)),
        first_at=min(ends, default=None),
        last_at=max(ends, default=None),
        names=sorted({one.name for one in ones}),
        workers=sorted({one.worker for one in ones if one.worker is not None}),
    )


@dataclass(slots=True, kw_only=True)
class ItemErrorGroup:
    """Items that were not processed for the same reason, but for numbers and ids, as in `ErrorGroup`."""

    error: str
    items: int = 0
    tasks: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)


def group_item_errors(errors: Iterable[ItemErrorView]) -> list[ItemErrorGroup]:
    """Return groups of items that failed by the same error, the largest first; errors are looked at one by one."""
    groups: dict[str, ItemErrorGroup] = {}
    for one in errors:
        alike = _DIFFERS.sub(_IN_ITS_PLACE, one.error)
        group = groups.setdefault(alike, ItemErrorGroup(error=one.error))
        group.error = one.error if group.error == one.error else alike
        group.items += 1
        group.tasks.add(one.task_id)
        group.names.add(one.name)
    return sorted(groups.values(), key=lambda one: (-one.items, one.error))
