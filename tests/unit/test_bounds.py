"""How many attempts there may be, and why a task has failed when none is left: by examples."""

from typing import Any

import pytest

from jobrunner.records import Attempt, Standing
from jobrunner.retry_policy import MAX_ATTEMPTS
from jobrunner.states import FailureReason, TaskState
from tests.builders import attempt, event, moment, task
from tracker.bounds import explain, is_lost_for_good, is_spent, next_retry, why_failed
from tracker.fold import deciding, state_after, tell, weigh


def lost(number: int = 1, **known: Any) -> Attempt:
    """A delivery that had started when its worker was lost."""
    told = {"outcome": "lost", "standing": Standing.LOST, "started_at": moment(1), "exception": "lost: worker w1"}
    return attempt(delivery=number, process=f"w{number}", ended_at=moment(2), **(told | known))


def failed(exception: str, **known: Any) -> Attempt:
    return attempt(outcome="failed", standing=Standing.FAILED, started_at=moment(1), exception=exception, **known)


def test_what_was_lost_after_its_start_has_used_up_a_retry_and_what_was_only_received_has_not() -> None:
    assert next_retry(lost(retries=1), ()) == 2
    assert next_retry(lost(retries=1, started_at=None), ()) == 1


@pytest.mark.parametrize(("max_retries", "last"), [(3, 3), (0, 0), (None, MAX_ATTEMPTS - 1)])
def test_a_task_has_its_own_number_of_retries_whoever_sends_it_and_never_more_than_any_task(
    max_retries: int | None, last: int
) -> None:
    one = task(max_retries=max_retries)
    assert is_spent(one, lost(retries=last), ())
    assert state_after(one, lost(retries=last)) is TaskState.FAILED
    if last:
        assert not is_spent(one, lost(retries=last - 1), ())
        assert state_after(one, lost(retries=last - 1)) is TaskState.SOFT_FAILED


def test_a_refusal_of_what_was_not_executed_is_never_the_end() -> None:
    refused = attempt(outcome="held", standing=Standing.DROPPED, retries=3, exception="paused", ended_at=moment(3))
    assert state_after(task(max_retries=3), refused, [refused]) is TaskState.QUEUED
    begun = attempt(retries=3, process="other", outcome="rejected", started_at=moment(1), ended_at=moment(2))
    assert state_after(task(max_retries=3), refused, [refused, begun]) is TaskState.FAILED


def test_what_the_same_process_gets_again_and_refuses_counts_as_executed() -> None:
    known = {"outcome": "held", "standing": Standing.DROPPED, "exception": "redelivered", "ended_at": moment(4)}
    assert next_retry(attempt(started_at=moment(1), received_at=moment(3), **known), ()) == 1
    refused_in_a_thread = attempt(started_at=moment(3), received_at=moment(2), **known)
    assert next_retry(refused_in_a_thread, ()) == 0


def test_a_worker_that_is_shut_down_has_lost_what_it_ran() -> None:
    cancelled = event("cancelled", at=2, fields={"shut_down": True})
    (told,) = tell(task(), [], [event("started", at=1), cancelled])
    assert (told.outcome, told.standing) == ("lost", Standing.LOST)
    assert state_after(task(), told) is TaskState.SOFT_FAILED


def test_a_worker_that_has_lost_its_broker_gets_the_message_back() -> None:
    (told,) = tell(task(), [], [event("started", at=1), event("cancelled", at=2)])
    assert (told.outcome, told.standing, next_retry(told, [told])) == ("cancelled", Standing.HANDED_BACK, 0)


@pytest.mark.parametrize(
    ("executions", "reason"),
    [
        ([lost(retries=0)], FailureReason.LOST),
        ([lost(retries=0), lost(2, retries=1)], FailureReason.POISON),
        ([failed("WorkerLostError('x')"), lost(2, retries=1)], FailureReason.POISON),
        ([failed("ValueError('x')", retries=0), lost(2, retries=1)], FailureReason.LOST),
        (
            [lost(retries=0), lost(2, retries=1, exception="lost: its worker was shut down while it ran this task")],
            FailureReason.LOST,
        ),
        ([lost(retries=0), lost(2, retries=0, started_at=None), lost(3, retries=1)], FailureReason.POISON),
    ],
)
def test_a_task_that_has_ended_each_of_several_processes_is_poison_and_else_it_is_lost(
    executions: list[Attempt], reason: FailureReason
) -> None:
    assert why_failed(task(max_retries=1), executions[-1], executions) is reason


@pytest.mark.parametrize(
    ("known", "exception", "retries", "reason"),
    [
        ({"max_retries": 3}, "ValueError('x')", 0, None),
        ({"max_retries": 3}, "ValueError('x')", 1, None),
        ({"max_retries": 3}, "ValueError('x')", 3, FailureReason.RETRIES),
        ({"max_retries": 0}, "ValueError('x')", 0, None),
        ({"max_retries": 3}, "MaxRetriesExceededError('x')", 1, FailureReason.RETRIES),
        ({"block_id": ""}, "ValueError('x')", 1, FailureReason.RETRIES),
        ({"max_retries": 3}, "SoftTimeLimitExceeded()", 3, FailureReason.TIMEOUT),
        ({"max_retries": 3}, "TimeLimitExceeded(5,)", 0, FailureReason.TIMEOUT),
        ({"max_retries": 0}, "WorkerLostError('x')", 0, FailureReason.LOST),
    ],
)
def test_the_last_error_says_why_a_task_has_failed(
    known: dict[str, Any], exception: str, retries: int, reason: FailureReason | None
) -> None:
    end = failed(exception, retries=retries)
    assert why_failed(task(**known), end, [end]) is reason


@pytest.mark.parametrize(
    ("reason", "said", "told"),
    [
        (None, "ValueError('x')", "ValueError('x')"),
        (FailureReason.TIMEOUT, "SoftTimeLimitExceeded()", "it ran into its soft time limit: SoftTimeLimitExceeded()"),
        (FailureReason.TIMEOUT, "TimeLimitExceeded(5)", "it ran into its hard time limit of 5 s: TimeLimitExceeded(5)"),
        (FailureReason.LOST, "lost: worker w1", "lost: worker w1; no retry is left of 3"),
        (FailureReason.LOST, "WorkerLostError()", "lost: WorkerLostError(); no retry is left of 3"),
        (FailureReason.POISON, "x", "poison: every attempt has ended the process that ran it, at last: x"),
    ],
)
def test_people_are_told_the_reason_with_the_last_words(reason: FailureReason | None, said: str, told: str) -> None:
    assert explain(reason, said, task(max_retries=3)) == told


def test_a_task_of_which_nobody_ever_tells_a_start_is_not_sent_for_ever() -> None:
    silent = [lost(number, started_at=None) for number in range(1, MAX_ATTEMPTS + 1)]
    assert not is_lost_for_good(task(), silent[1:])
    assert is_lost_for_good(task(), silent)
    lacking = [attempt(delivery=one, outcome="unknown") for one in range(1, MAX_ATTEMPTS + 1)]
    assert not is_lost_for_good(task(), lacking)  # workers without the code: a rollout may take its time


def test_an_end_for_good_stays_whatever_comes_after_it_but_a_success() -> None:
    last = lost(retries=3)
    copy = attempt(process="w2", retries=3, outcome="held", exception="redelivered", ended_at=moment(9))
    decider = deciding(weigh([last, copy]))
    assert decider is not None
    assert state_after(task(max_retries=3), decider, [last, copy]) is TaskState.FAILED
