"""The fold by examples, one sentence each; that no order matters is shown in `tests/property/test_fold.py`."""

import math
from typing import Any

import pytest

from jobrunner.records import Attempt
from jobrunner.states import TASK_MOVES, TaskState
from jobrunner.text import SENTENCE, TRACEBACK
from tests.builders import attempt, event, moment, task
from tracker.fold import OUTCOMES, RANKS, Event, deciding, fold, state_after


def _told(*events: Event, **known: Any) -> Attempt:
    folded = attempt(**known)
    for one in events:
        folded = fold(folded, one)
    return folded


# ---- one attempt ---------------------------------------------------------------------------------------


def test_a_received_attempt_is_in_a_workers_hands() -> None:
    told = _told(event("received", at=1, worker="w1@host", source="process-1", pid=7))
    assert (told.last_event, told.received_at, told.started_at) == ("task-received", moment(1), None)
    assert (told.worker, told.source, told.pid, told.outcome) == ("w1@host", "process-1", 7, None)


def test_a_started_attempt_is_open() -> None:
    told = _told(event("received", at=1), event("started", at=2))
    assert (told.last_event, told.received_at, told.started_at) == ("task-started", moment(1), moment(2))
    assert told.outcome is None


def test_a_success_keeps_value_and_runtime() -> None:
    told = _told(event("started", at=1), event("succeeded", at=3, fields={"result": "42", "runtime": 1.5}))
    assert (told.outcome, told.ended_at, told.runtime, told.result) == ("succeeded", moment(3), 1.5, "42")
    assert told.exception is None


def test_a_failure_keeps_exception_and_traceback() -> None:
    told = _told(event("failed", at=3, fields={"exception": "ValueError('x')", "traceback": "Traceback …"}))
    assert (told.outcome, told.exception, told.traceback) == ("failed", "ValueError('x')", "Traceback …")


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"expired": True, "terminated": False}, "expired"),
        ({"expired": False, "terminated": True, "signum": 15}, "terminated"),
        ({"expired": False, "terminated": False}, "revoked"),
        ({}, "revoked"),
    ],
)
def test_a_revoked_attempt_says_why(fields: dict[str, Any], why: str) -> None:
    told = _told(event("revoked", fields=fields))
    assert (told.outcome, told.exception) == ("revoked", why)


@pytest.mark.parametrize("outcome", ["succeeded", "failed", "revoked", "retried"])
def test_an_end_implies_the_start_that_was_not_told(outcome: str) -> None:
    told = _told(event("received", at=1), event(outcome, at=3))
    assert (told.outcome, told.ended_at) == (outcome, moment(3))
    assert told.rank == RANKS["task-succeeded"] > RANKS["task-started"]


def test_a_late_start_fills_in_the_time_and_nothing_else() -> None:
    ended = _told(event("succeeded", at=3))
    late = fold(ended, event("started", at=2))
    assert late.started_at == moment(2)
    assert (late.outcome, late.last_event, late.rank, late.ended_at) == (
        ended.outcome,
        ended.last_event,
        ended.rank,
        ended.ended_at,
    )


def test_a_late_receipt_does_not_take_a_started_attempt_from_its_worker() -> None:
    told = _told(event("started", at=2, worker="w1@host"), event("received", at=5, worker="w2@host"))
    assert (told.worker, told.last_event) == ("w1@host", "task-started")


def test_whoever_received_it_last_has_it() -> None:
    received = [event("received", at=1, worker="w2@host"), event("received", at=2, worker="w1@host")]
    assert _told(*received).worker == _told(*reversed(received)).worker == "w1@host"


@pytest.mark.parametrize("stronger", range(1, len(OUTCOMES)))
def test_of_two_ends_the_stronger_stands_whichever_comes_first(stronger: int) -> None:
    for weaker in OUTCOMES[1:stronger]:
        weak = event(weaker, at=9, worker="w2@host", fields={"result": "weak", "exception": "weak"})
        strong = event(OUTCOMES[stronger], at=1, fields={"result": "strong", "exception": "strong"})
        for told in (_told(weak, strong), _told(strong, weak)):
            assert (told.outcome, told.ended_at, told.exception) == (OUTCOMES[stronger], moment(1), "strong")


def test_success_beats_failure_beats_revoked_beats_retried_beats_lost() -> None:
    assert OUTCOMES == ("lost", "retried", "revoked", "failed", "succeeded")


def test_a_worker_that_was_taken_for_lost_may_still_tell_the_end() -> None:
    assert _told(event("succeeded", at=3), outcome="lost", ended_at=moment(2)).outcome == "succeeded"


def test_a_late_start_does_not_reopen_a_lost_attempt() -> None:
    assert _told(event("started", at=3), outcome="lost", ended_at=moment(2)).outcome == "lost"


def test_a_weaker_end_tells_nothing_not_even_its_worker() -> None:
    strong = _told(event("succeeded", at=1, worker="w1@host"))
    assert fold(strong, event("retried", at=2, worker="w2@host", pid=9)) == strong


@pytest.mark.parametrize("type_", ["task-sent", "task-rejected", "task-unheard-of", "worker-heartbeat", ""])
def test_an_event_of_another_type_tells_nothing(type_: str) -> None:
    known = attempt()
    assert fold(known, Event(type=type_, uuid="task", worker="w", at=moment())) is known


def test_foreign_text_is_cut_and_cleaned() -> None:
    long = "\x00" + "x" * 30_000
    told = _told(event("failed", fields={"exception": long, "traceback": long, "result": long}))
    assert told.exception is not None
    assert told.traceback is not None
    assert told.result is not None
    assert [len(told.exception), len(told.traceback), len(told.result)] == [SENTENCE, TRACEBACK, SENTENCE]
    assert "\x00" not in told.exception + told.traceback + told.result


@pytest.mark.parametrize(
    ("runtime", "kept"),
    [
        (2, 2.0),
        (0.5, 0.5),
        ("0.5", None),
        (None, None),
        ([1], None),
        (math.nan, None),
        (math.inf, None),
        (-math.inf, None),
    ],
)
def test_a_runtime_that_is_no_number_is_left_out(runtime: object, kept: float | None) -> None:
    assert _told(event("succeeded", fields={"runtime": runtime})).runtime == kept


def test_a_runtime_too_large_for_a_float_is_left_out() -> None:
    assert _told(event("succeeded", fields={"runtime": 10**400})).runtime is None


def test_two_starts_of_one_attempt_leave_the_same_holder_in_either_order() -> None:
    starts = [event("started", at=1, worker="w1@host"), event("started", at=2, worker="w2@host")]
    assert _told(*starts) == _told(*reversed(starts))


def test_an_attempt_that_two_workers_revoke_ends_the_same_in_either_order() -> None:
    revoked = [event("revoked", at=1, worker="w1@host"), event("revoked", at=2, worker="w2@host")]
    assert _told(*revoked) == _told(*reversed(revoked))


# ---- the attempts of a delivery ------------------------------------------------------------------------


def test_nothing_decides_where_nothing_was_heard() -> None:
    assert deciding([]) is None


def test_the_latest_attempt_decides() -> None:
    first, second = _told(event("retried")), _told(event("started"), retries=1)
    assert deciding([first, second]) is deciding([second, first]) is second


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_a_final_end_decides_over_later_attempts(outcome: str) -> None:
    final, later = _told(event(outcome)), _told(event("started"), retries=1)
    assert deciding([final, later]) is deciding([later, final]) is final


def test_a_success_decides_over_a_failure_of_a_later_attempt() -> None:
    success, failure = _told(event("succeeded")), _told(event("failed"), retries=1)
    assert deciding([success, failure]) is deciding([failure, success]) is success


# ---- the state of the task -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "state"),
    [
        pytest.param(["received"], TaskState.QUEUED, id="received"),
        pytest.param(["received", "started"], TaskState.ACTIVE, id="started"),
        pytest.param(["started", "succeeded"], TaskState.COMPLETED, id="succeeded"),
        pytest.param(["started", "failed"], TaskState.FAILED, id="failed"),
        pytest.param(["received", "revoked"], TaskState.CANCELED, id="revoked"),
        pytest.param(["started", "retried"], TaskState.SOFT_FAILED, id="retried"),
    ],
)
def test_a_task_follows_the_attempt_that_decides(events: list[str], state: TaskState) -> None:
    assert state_after(task(), _told(*(event(one, at=at) for at, one in enumerate(events)))) is state


def test_a_lost_attempt_leaves_the_task_soft_failed() -> None:
    assert state_after(task(), attempt(outcome="lost")) is TaskState.SOFT_FAILED


def test_a_retry_that_waits_in_a_worker_leaves_the_task_soft_failed() -> None:
    assert state_after(task(), _told(event("received"), retries=1)) is TaskState.SOFT_FAILED


def test_a_later_delivery_that_goes_on_counting_retries_is_queued_at_first() -> None:
    resent = task(delivery=2, first_retries=3)
    assert state_after(resent, _told(event("received"), delivery=2, retries=3)) is TaskState.QUEUED
    assert state_after(resent, _told(event("received"), delivery=2, retries=4)) is TaskState.SOFT_FAILED


def test_every_state_that_events_lead_to_can_be_entered_from_queued() -> None:
    told = {state_after(task(), attempt(outcome=outcome)) for outcome in OUTCOMES}
    told.add(state_after(task(), _told(event("started"))))
    assert told <= TASK_MOVES[TaskState.QUEUED]
