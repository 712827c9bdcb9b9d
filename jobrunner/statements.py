"""What the body of a task states of its work: that a part of it failed, or that there was none.

`Partial` and `Skip` are for bodies (N2: Error, Skipped); a `Statement` is what of that goes to the tracker. Pure: no
clock, database or broker.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Generic, Self, TypeVar

from celery.exceptions import Ignore

from jobrunner import strict_json
from jobrunner.errors import InvalidParametersError
from jobrunner.states import TaskState
from jobrunner.text import NAME, SENTENCE, bounded

_Value = TypeVar("_Value")

#: Item errors that are kept of one execution; of more only their number is known.
MOST_ERRORS: Final = 10_000
#: Characters of JSON of the longest item that can be processed again by itself, and of the details of an error.
LONGEST_ITEM: Final = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemError:
    """Why one item was not processed.

    `item` is any JSON value, as the task takes it in the list of its items, such as a path; `details` are what else a
    program would want to know, by name, in JSON values. NaN and infinities are none: in details they become null, and
    an item that has any can be shown, but not be processed again by itself.
    """

    item: Any
    message: str
    type: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, item: Any, error: BaseException, **details: Any) -> Self:
        """Make one of an exception."""
        return cls(item=item, message=str(error), type=type(error).__name__, details=details)

    def as_told(self) -> dict[str, Any]:
        """Return it as it is told to the tracker: bounded, and None for an item that is too long or no JSON."""
        return {
            "item": _json(self.item, _exactly),
            "label": bounded(self.item, NAME),
            "type": None if self.type is None else bounded(self.type, NAME),
            "message": bounded(self.message, SENTENCE),
            "details": _json(dict(self.details), strict_json.dumps) if self.details else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemCounts:
    """Items of a task: processed well, left out because nothing was to be done, failed, not reached."""

    processed: int = 0
    skipped: int = 0
    failed: int = 0
    aborted: int = 0

    def __post_init__(self) -> None:
        for name, number in asdict(self).items():
            if isinstance(number, bool) or not isinstance(number, int) or number < 0:
                msg = f"{number!r} is no number of items ({name})."
                raise InvalidParametersError(msg, "Give a whole number from 0 up.")


class Partial(Generic[_Value]):
    """What a body returns that has processed a part of its items: `value` flows on, and the errors are kept (N2 Error).

    The task ends `partial`, and its job `failed (partial)`, or `completed (with-errors)` if it tolerates that. Without
    a number of `failed` items it is that of the errors.

    Raises:
        InvalidParametersError: a number is none, or an error is no `ItemError`.
    """

    def __init__(
        self,
        value: _Value,
        *,
        errors: Iterable[ItemError],
        processed: int = 0,
        skipped: int = 0,
        failed: int | None = None,
        aborted: int = 0,
    ) -> None:
        self.value = value
        self.errors = list(errors)
        if not all(isinstance(one, ItemError) for one in self.errors):
            msg = "The errors of a Partial are no item errors."
            raise InvalidParametersError(msg, "Give ItemError(item=…, message=…), or ItemError.of(item, exception).")
        self.counts = ItemCounts(
            processed=processed, skipped=skipped, failed=len(self.errors) if failed is None else failed, aborted=aborted
        )


class Skip(Ignore):
    """Raised by a body that finds no work to perform (N2 Skipped): no failure, whatever the task's retry policy covers.

    The task ends `skipped`, and what comes next takes `value`.
    """

    def __init__(self, why: str = "nothing to do", *, value: Any = None) -> None:
        super().__init__(why)
        self.why, self.value = bounded(why, SENTENCE), value


#: What the JSON of a statement holds if, and only if, it skips what comes next: in a text the quotes were escaped.
SKIPS: Final = '"skips": "'


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What the tracker is told of an execution that ends well.

    `state` is what the task becomes: completed, partial or skipped. `errors` is how many item errors it has, kept or
    not. `skips` says why what comes next is to be skipped, None if it is not; of that only the branches that begin with
    tasks of these names, if there are any.
    """

    state: TaskState = TaskState.COMPLETED
    why: str | None = None
    counts: ItemCounts | None = None
    errors: int = 0
    skips: str | None = None
    branches: tuple[str, ...] = ()

    def dumps(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> Self:
        """Read what `dumps` has written."""
        values = json.loads(text)
        counts = values["counts"]
        return cls(
            state=TaskState(values["state"]),
            why=values["why"],
            counts=None if counts is None else ItemCounts(**counts),
            errors=values["errors"],
            skips=values["skips"],
            branches=tuple(values["branches"]),
        )


def _exactly(value: Any) -> str:
    """Return JSON of which the very same value can be made: an item is processed again by that."""
    return json.dumps(value, allow_nan=False)


def _json(value: Any, dumps: Callable[[Any], str]) -> str | None:
    try:
        text = dumps(value)
    except (TypeError, ValueError, RecursionError):
        return None
    return text if len(text) <= LONGEST_ITEM else None
