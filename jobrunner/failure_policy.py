"""What a failure of a task, or of some of its items, means for its job, as given at submission."""

from dataclasses import dataclass, replace
from typing import Any, Final

from jobrunner.errors import InvalidParametersError
from jobrunner.states import FailureRule, PartialRule

#: A threshold is kept in whole percents; what a float is off them by is not meant.
_HUNDRED = 100
_NEAR = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class FailurePolicy:
    """What follows from failures; `threshold` in percent, `propagate` None is as the tracker is told (C5)."""

    rule: FailureRule = FailureRule.CONTINUE
    threshold: int | None = None
    propagate: bool | None = None
    partial: PartialRule = PartialRule.FAIL

    @classmethod
    def of(
        cls,
        *,
        on_failure: str = FailureRule.CONTINUE,
        threshold: float | None = None,
        propagate_failures: bool | None = None,
        on_partial: str = PartialRule.FAIL,
    ) -> "FailurePolicy":
        """Check what was given, and return what it means; a `threshold` is a share of the job's tasks.

        Raises:
            InvalidParametersError: it means nothing.
        """
        percent = None if threshold is None else _percent(threshold)
        return cls(
            rule=_rule(on_failure, percent),
            threshold=percent,
            propagate=_truth(propagate_failures),
            partial=_partial_rule(on_partial),
        )

    def changed(
        self,
        *,
        on_failure: str | None = None,
        threshold: float | None = None,
        propagate_failures: bool | None = None,
        on_partial: str | None = None,
    ) -> "FailurePolicy":
        """Return this policy with what is given in the place of its own: a rule takes that of a threshold, too.

        Raises:
            InvalidParametersError: it means nothing.
        """
        changes: dict[str, Any] = {}
        if on_failure is not None or threshold is not None:
            given = FailurePolicy.of(on_failure=on_failure or FailureRule.CONTINUE, threshold=threshold)
            changes |= {"rule": given.rule, "threshold": given.threshold}
        if propagate_failures is not None:
            changes["propagate"] = _truth(propagate_failures)
        if on_partial is not None:
            changes["partial"] = _partial_rule(on_partial)
        return replace(self, **changes)

    @property
    def row(self) -> dict[str, object]:
        """The columns of table `job`."""
        return {
            "failure_rule": self.rule,
            "threshold": self.threshold,
            "propagate": self.propagate,
            "partial_rule": self.partial,
        }

    @property
    def fingerprint(self) -> str:
        """What tells it from other policies; as earlier versions had it, which knew no partial tasks."""
        known = {name: value for name, value in self.row.items() if value != PartialRule.FAIL}
        return "" if self == DEFAULT else repr(known)


DEFAULT: Final = FailurePolicy()


def _rule(on_failure: str, percent: int | None) -> FailureRule:
    if on_failure not in (FailureRule.CONTINUE, FailureRule.CANCEL):
        msg = f"on_failure={on_failure!r} is no rule."
        raise InvalidParametersError(msg, "Give 'continue' or 'cancel', or a threshold.")
    if percent is None:
        return FailureRule(on_failure)
    if on_failure == FailureRule.CANCEL:
        msg = "on_failure='cancel' leaves nothing to a threshold."
        raise InvalidParametersError(msg, "Give one of them.")
    return FailureRule.THRESHOLD


def _partial_rule(on_partial: str) -> PartialRule:
    if on_partial not in tuple(PartialRule):
        msg = f"on_partial={on_partial!r} is no rule."
        raise InvalidParametersError(msg, "Give 'fail' or 'tolerate'.")
    return PartialRule(on_partial)


def _percent(threshold: object) -> int:
    share = threshold if isinstance(threshold, int | float) and not isinstance(threshold, bool) else 0
    if 0 < share < 1 and abs(share * _HUNDRED - round(share * _HUNDRED)) < _NEAR:
        return round(share * _HUNDRED)
    msg = f"The threshold {threshold!r} is no share of the tasks in whole percents."
    raise InvalidParametersError(
        msg, "Give 0.01 to 0.99; on_failure='cancel' starts nothing more after the first failure."
    )


def _truth(value: object) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    msg = f"propagate_failures={value!r} says nothing."
    raise InvalidParametersError(msg, "Give True, False, or None for what the tracker is told.")
