"""What a failure of a task means for its job, as given at submission."""

from dataclasses import dataclass
from typing import Final

from jobrunner.errors import InvalidParametersError


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What follows from failures; `propagate` None is as the tracker is told (C5)."""

    propagate: bool | None = None

    @classmethod
    def of(cls, *, propagate_failures: bool | None = None) -> "Policy":
        """Check what was given, and return what it means.

        Raises:
            InvalidParametersError: it means nothing.
        """
        return cls(propagate=_truth(propagate_failures))

    @property
    def row(self) -> dict[str, object]:
        """The columns of table `job`."""
        return {"propagate": self.propagate}


DEFAULT: Final = Policy()


def _truth(value: object) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    msg = f"propagate_failures={value!r} says nothing."
    raise InvalidParametersError(msg, "Give True, False, or None for what the tracker is told.")
