"""What the failed attempts of a job have in common: grouped by exception and message. Pure."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from jobrunner.store.attempts import AttemptView

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
