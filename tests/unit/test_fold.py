"""The fold by examples, one sentence each; that no order matters is shown in `tests/property/test_fold.py`."""

import math
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest

from jobrunner.records import Attempt, Standing
from jobrunner.states import TASK_MOVES, FailureReason, TaskState
from jobrunner.text import SENTENCE, TRACEBACK
from tests.builders import attempt, event, moment, task
from tracker.fold import OUTCOMES, Event, deciding, fold, is_foreign, lost_values, reason_of, state_after, tell, weigh


def _told(*events: Event, **known: Any) -> Attempt:
    folded = attempt(**known)
    for one in events:
        folded = fold(folded, one)
    return folded


# ---- one attempt ---------------------------------------------------------------------------------------


def test_a_received_attempt_is_in_a_workers_hands() -> None:
    told = _told(event("received", at=1, worker="w1@host", source="process-1", pid=7))
    assert (told.last_event, told.received_at, told.started_at) == ("task-received", moment(1), None)
    assert (told.worker, told.pid, told.outcome) == ("w1@host", 7, None)


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
        ({"expired": False, "terminated": True, "signum": 15}, "terminated, SIGTERM"),
        ({"terminated": True, "signum": "SIGKILL"}, "terminated, SIGKILL"),
        ({"terminated": True, "signum": "15"}, "terminated, SIGTERM"),
        ({"terminated": True, "signum": {}}, "terminated"),
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
    assert told.standing == OUTCOMES[outcome]


def test_a_late_start_fills_in_the_time_and_nothing_else() -> None:
    ended = _told(event("succeeded", at=3))
    assert fold(ended, event("started", at=2)) == replace(ended, started_at=moment(2))


@pytest.mark.parametrize(("weaker", "stronger"), list(combinations(["retried", "revoked", "failed", "succeeded"], 2)))
def test_of_two_ends_the_stronger_stands_whichever_comes_first(weaker: str, stronger: str) -> None:
    weak = event(weaker, at=9, fields={"result": "weak", "exception": "weak", "traceback": ""})
    strong = event(stronger, at=1, fields={"result": "strong", "exception": "strong", "traceback": ""})
    for told in (_told(weak, strong), _told(strong, weak)):
        assert (told.outcome, told.ended_at, told.exception) == (stronger, moment(1), "strong")


def test_success_beats_failure_beats_revoked_beats_retried_beats_lost() -> None:
    ends = ["lost", "retried", "revoked", "failed", "succeeded"]
    assert sorted(ends, key=lambda end: OUTCOMES[end]) == ends


def test_a_worker_that_was_taken_for_lost_may_still_tell_the_end() -> None:
    assert _told(event("succeeded", at=3), outcome="lost", ended_at=moment(2)).outcome == "succeeded"


def test_a_late_start_does_not_reopen_a_lost_attempt() -> None:
    assert _told(event("started", at=3), outcome="lost", ended_at=moment(2)).outcome == "lost"


def test_a_weaker_end_tells_nothing() -> None:
    strong = _told(event("succeeded", at=1))
    assert fold(strong, event("retried", at=2)) is strong


@pytest.mark.parametrize("word", ["rejected", "cancelled"])
def test_what_was_handed_back_may_be_received_again_by_the_same_process(word: str) -> None:
    back = _told(event("started", at=1), event(word, at=2, fields={"requeue": True}))
    assert (back.outcome, back.ended_at, back.last_event) == (word, moment(2), f"task-{word}")
    again = fold(back, event("received", at=3))
    assert (again.standing, again.last_event) == (Standing.RECEIVED, "task-received")
    assert fold(again, event("started", at=4)).standing == Standing.STARTED
    assert state_after(task(), again, [again]) is TaskState.SOFT_FAILED


def test_a_message_that_is_dropped_ends_with_the_failure_that_comes_with_it() -> None:
    dropped = event("rejected", at=2, fields={"requeue": False})
    known = _told(event("started", at=1))
    assert fold(known, dropped) is known


def test_a_worker_without_the_code_has_dropped_the_message() -> None:
    unregistered = {"exception": "NotRegistered('tasks.add')"}
    assert _told(event("failed", fields=unregistered)).outcome == "unknown"
    assert _told(event("failed", fields=unregistered | {"traceback": "Traceback …"})).outcome == "failed"


@pytest.mark.parametrize("type_", ["task-sent", "task-unheard-of", "worker-heartbeat", ""])
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


def test_the_process_of_a_stock_worker_is_told_by_its_pid_and_name() -> None:
    assert event("started", source=None, pid=7, worker="w1@host").process == "7 on w1@host"


# ---- the executions of an attempt ----------------------------------------------------------------------


def _by(worker: str, *events: Event, **known: Any) -> Attempt:
    return _told(*(replace(one, worker=worker) for one in events), process=worker, **known)


def _standings(*executions: Attempt) -> dict[str, int]:
    return {one.process: one.standing for one in weigh(executions)}


def test_whoever_received_it_last_has_it() -> None:
    first, second = _by("w1", event("received", at=1)), _by("w2", event("received", at=2))
    assert _standings(first, second) == _standings(second, first) == {"w1": Standing.NONE, "w2": Standing.RECEIVED}


def test_a_late_receipt_does_not_take_a_started_attempt_from_its_worker() -> None:
    started, received = _by("w1", event("started", at=2)), _by("w2", event("received", at=5))
    assert deciding(weigh([started, received])) == started


@pytest.mark.parametrize("word", ["succeeded", "failed", "retried"])
def test_an_end_told_by_a_process_that_does_not_have_the_task_is_foreign_and_moves_nothing(word: str) -> None:
    holder, stranger = _by("w1", event("started", at=2)), _by("w2", event(word, at=3))
    weighed = weigh([holder, stranger])
    assert [is_foreign(one) for one in weighed] == [False, True]
    assert deciding(weighed) == holder


def test_the_same_end_is_not_foreign_where_nobody_else_has_the_task() -> None:
    received, ended = _by("w1", event("received", at=2)), _by("w2", event("failed", at=3))
    assert deciding(weigh([received, ended])) == ended


def test_a_process_that_never_received_what_it_revokes_is_not_foreign() -> None:
    retried, revoked = _by("w1", event("started", at=2), event("retried", at=3)), _by("w2", event("revoked", at=4))
    assert deciding(weigh([retried, revoked])) == revoked


def test_of_two_executions_the_one_that_is_open_decides_and_then_the_one_that_succeeded() -> None:
    failed = _by("w1", event("started", at=1), event("failed", at=2))
    running = _by("w2", event("started", at=1))
    assert deciding(weigh([failed, running])) == running
    done = fold(running, event("succeeded", at=3, worker="w2"))
    assert deciding(weigh([failed, done])) == done


# ---- the attempts of a delivery ------------------------------------------------------------------------


def test_nothing_decides_where_nothing_was_heard() -> None:
    assert deciding([]) is deciding([attempt()]) is None


@pytest.mark.parametrize("outcome", ["retried", "failed", "revoked"])
def test_the_latest_attempt_decides(outcome: str) -> None:
    first, second = _told(event(outcome)), _told(event("started"), retries=1)
    assert deciding([first, second]) is deciding([second, first]) is second


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
    assert state_after(task(), attempt(outcome="lost", standing=Standing.LOST)) is TaskState.SOFT_FAILED


def test_what_one_worker_handed_back_and_another_one_received_is_soft_failed() -> None:
    back = _by("w1", event("started", at=1), event("cancelled", at=2))
    received = _by("w2", event("received", at=3))
    assert state_after(task(), received, [back, received]) is TaskState.SOFT_FAILED


def test_a_retry_that_waits_in_a_worker_leaves_the_task_soft_failed() -> None:
    assert state_after(task(), _told(event("received"), retries=1)) is TaskState.SOFT_FAILED


def test_a_later_delivery_that_goes_on_counting_retries_is_queued_at_first() -> None:
    resent = task(delivery=2, first_retries=3)
    assert state_after(resent, _told(event("received"), delivery=2, retries=3)) is TaskState.QUEUED
    assert state_after(resent, _told(event("received"), delivery=2, retries=4)) is TaskState.SOFT_FAILED


def test_every_state_that_events_lead_to_can_be_entered_from_queued() -> None:
    told = {state_after(task(), attempt(outcome=word, standing=standing)) for word, standing in OUTCOMES.items()}
    told.add(state_after(task(), _told(event("started"))))
    assert told - {TaskState.QUEUED} <= TASK_MOVES[TaskState.QUEUED]


# ---- lost input ----------------------------------------------------------------------------------------


def test_a_task_whose_input_is_lost_has_failed_for_that_reason() -> None:
    one = fold(attempt(), event("failed", fields={"lost": ["value", 7], "exception": "InputLostError()"}))
    assert (one.outcome, one.last_event, one.exception) == ("input-lost", "task-failed", "InputLostError()")
    state = state_after(task(), one)
    assert (state, reason_of(task(), state, one)) == (TaskState.FAILED, FailureReason.INPUT_LOST)
    assert lost_values(event("failed", fields={"lost": ["value", 7]})) == ["value"]


@pytest.mark.parametrize("lost", [None, "value", {"value": 1}, 7])
def test_what_is_no_list_of_values_tells_nothing_of_lost_input(lost: object) -> None:
    one = fold(attempt(), event("failed", fields={"lost": lost}))
    assert (one.outcome, reason_of(task(), TaskState.FAILED, one)) == ("failed", None)


def test_a_success_stands_whatever_another_process_has_found_lost() -> None:
    other = {"worker": "w2@host", "source": "w2@host/1"}
    told = [event("started"), event("started", at=1, **other), event("succeeded", at=2, **other)]
    decider = deciding(tell(task(), [], [*told, event("failed", at=3, fields={"lost": []})]))
    assert decider is not None
    assert (decider.outcome, reason_of(task(), TaskState.COMPLETED, decider)) == ("succeeded", None)
