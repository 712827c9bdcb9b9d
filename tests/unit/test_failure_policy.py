"""What may be given as failure rule, threshold and propagation, and what is said of the rest."""

from typing import Any

import pytest

from jobrunner.errors import InvalidParametersError
from jobrunner.failure_policy import DEFAULT, FailurePolicy
from jobrunner.states import FailureRule, PartialRule


def test_nothing_given_lets_the_rest_go_on_and_propagates_as_the_tracker_is_told() -> None:
    assert FailurePolicy.of() == DEFAULT == FailurePolicy(rule=FailureRule.CONTINUE, threshold=None, propagate=None)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"on_failure": "continue"}, DEFAULT),
        ({"on_failure": "cancel"}, FailurePolicy(rule=FailureRule.CANCEL)),
        ({"threshold": 0.1}, FailurePolicy(rule=FailureRule.THRESHOLD, threshold=10)),
        (
            {"threshold": 0.29},
            FailurePolicy(rule=FailureRule.THRESHOLD, threshold=29),
        ),  # 0.29 * 100 is 28.999999999999996
        ({"threshold": 0.01}, FailurePolicy(rule=FailureRule.THRESHOLD, threshold=1)),
        ({"propagate_failures": False}, FailurePolicy(propagate=False)),
        ({"on_partial": "tolerate"}, FailurePolicy(partial=PartialRule.TOLERATE)),
    ],
)
def test_what_is_given_is_kept_a_threshold_in_whole_percents(given: dict[str, Any], meant: FailurePolicy) -> None:
    assert FailurePolicy.of(**given) == meant


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"on_failure": "stop"}, "on_failure='stop' is no rule. Give 'continue' or 'cancel', or a threshold."),
        ({"on_failure": "threshold"}, "on_failure='threshold' is no rule."),
        ({"on_failure": "cancel", "threshold": 0.1}, "Give one of them."),
        *(
            ({"threshold": odd}, f"The threshold {odd!r} is no share of the tasks in whole percents.")
            for odd in (0, 1, 1.5, -0.1, 0.005, 10, float("nan"), float("inf"), True, "0.1")
        ),
        ({"propagate_failures": "false"}, "propagate_failures='false' says nothing."),
        ({"propagate_failures": 1}, "propagate_failures=1 says nothing."),
        ({"on_partial": "ignore"}, "on_partial='ignore' is no rule. Give 'fail' or 'tolerate'."),
        ({"on_partial": []}, "on_partial=[] is no rule."),
    ],
)
def test_what_means_nothing_is_refused_with_what_does(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidParametersError) as caught:
        FailurePolicy.of(**given)
    assert said in str(caught.value)


def test_the_fingerprint_of_a_policy_that_earlier_versions_knew_stays_what_it_was() -> None:
    assert DEFAULT.fingerprint == ""
    known = FailurePolicy.of(on_failure="cancel")
    earlier = {"failure_rule": FailureRule.CANCEL, "threshold": None, "propagate": None}
    assert known.fingerprint == repr(earlier)
    assert FailurePolicy.of(on_failure="cancel", on_partial="tolerate").fingerprint != known.fingerprint
    assert FailurePolicy.of(on_partial="tolerate").fingerprint


def test_what_is_said_of_one_job_takes_the_place_of_what_its_name_says() -> None:
    named = FailurePolicy.of(on_failure="cancel", propagate_failures=True, on_partial="tolerate")
    assert named.changed() == named
    assert named.changed(threshold=0.5) == FailurePolicy.of(
        threshold=0.5, propagate_failures=True, on_partial="tolerate"
    )
    assert FailurePolicy.of(threshold=0.5).changed(on_failure="cancel") == FailurePolicy.of(on_failure="cancel")
    assert named.changed(on_failure="continue", propagate_failures=False, on_partial="fail") == FailurePolicy.of(
        propagate_failures=False
    )
    with pytest.raises(InvalidParametersError):
        named.changed(on_partial="ignore")
