"""The gate of a worker, with made-up requests: what passes, and what can be acknowledged when."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from celery.exceptions import TaskRevokedError

from jobrunner import ids
from jobrunner.snapshot import Hold, Kind, Refusal, Sent, Snapshot
from jobrunner.wire import HEADER, RUN_HEADER
from workers import gate as gates
from workers.gate import Gate, is_from_tracker, is_of_job, sent_of

JOB = ids.uuid7()
PAUSED = Snapshot(version=2, jobs={JOB: Hold(held=Kind.PAUSED)})
CANCELED = Snapshot(version=3, jobs={JOB: Hold(held=Kind.CANCELED, grace=5.0)})
NOTHING = Snapshot(version=1)


@dataclass(eq=False)
class Made:
    """A message in a worker's hands."""

    sent: Sent
    is_of_job: bool = True
    is_waiting: bool = True
    is_running: bool = False

    def begin(self) -> None:
        self.is_waiting, self.is_running = False, True


def made(number: int = 1, *, root_id: str | None = JOB, is_of_job: bool = True, redelivered: bool = False) -> Made:
    sent = Sent(root_id=root_id, celery_id=str(number), redelivered=redelivered)
    return Made(sent, is_of_job=is_of_job)


def gate(
    snapshot: Snapshot | None = NOTHING, *, forks: bool = True, refresh: Callable[[], bool] = lambda: False
) -> Gate:
    one = Gate(worker="here@host", forks=forks, stop=TaskRevokedError, refresh=refresh)
    if snapshot:
        one.apply(snapshot, gates.now())
    return one


def version(one: Gate) -> int | None:
    """Return the version that can be acknowledged."""
    holds = one.acknowledgement()
    return holds.version if holds else None


# ---- what passes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forks", [True, False])
def test_nothing_of_a_held_job_passes_and_all_else_does(forks: bool) -> None:
    one = gate(PAUSED, forks=forks)
    assert one.let_pass(made()) is Refusal.PAUSED
    assert one.let_pass(made(root_id=ids.uuid7())) is None
    assert one.let_pass(made(root_id="plain", is_of_job=False, redelivered=True)) is None


def test_a_plain_task_is_held_if_the_snapshot_speaks_of_it() -> None:
    observed = Snapshot(version=4, jobs={"plain": Hold(held=Kind.CANCELED)}, void={"2": None})
    assert gate(observed).let_pass(made(root_id="plain", is_of_job=False)) is Refusal.CANCELED
    assert gate(observed).let_pass(made(2, root_id="other", is_of_job=False)) is Refusal.VOID


def test_a_worker_holds_what_it_has_failed_or_is_blocked_for_and_another_does_not() -> None:
    live = {"here@host": ["q"], "there@host": ["q"]}
    one = gate(Snapshot(version=5, workers=live, blocked={JOB: {"work": ["here@host"], "other": ["there@host"]}}))
    assert one.let_pass(Made(Sent(root_id=JOB, celery_id="1", avoid=("here@host",)))) is Refusal.AVOIDED
    assert one.let_pass(Made(Sent(root_id=JOB, celery_id="1", avoid=("there@host",)))) is None
    assert one.let_pass(Made(Sent(root_id=JOB, celery_id="1", name="work"))) is Refusal.BLOCKED
    assert one.let_pass(Made(Sent(root_id=JOB, celery_id="1", name="other"))) is None


def test_what_has_passed_elsewhere_than_to_a_process_is_judged_again_when_a_thread_has_it() -> None:
    one, message = gate(forks=False), made()
    assert one.let_pass(message) is None
    one.apply(PAUSED, gates.now())
    assert one.let_begin(message, message.begin) is Refusal.PAUSED
    assert not message.is_running


def test_what_a_process_has_begun_is_not_judged_again() -> None:
    one, message = gate(), made()
    assert one.let_pass(message) is None
    one.apply(PAUSED, gates.now())
    assert one.let_begin(message, message.begin) is None
    assert message.is_running


# ---- what it knows -----------------------------------------------------------------------------------------


def test_without_any_snapshot_plain_tasks_alone_pass() -> None:
    assert gate(None).let_pass(made()) is Refusal.UNINFORMED
    assert gate(None).let_pass(made(is_of_job=False)) is None
    assert version(gate(None)) is None


def test_what_was_read_long_ago_is_not_trusted_unless_it_can_be_read_now() -> None:
    stale = gates.now() - 11
    one = gate()
    one.apply(NOTHING, stale)
    assert one.let_pass(made()) is Refusal.UNINFORMED

    def refresh() -> bool:
        informed.apply(PAUSED, gates.now())
        return True

    informed = gate(refresh=refresh)
    informed.apply(NOTHING, stale)
    assert informed.let_pass(made(root_id=ids.uuid7())) is None
    informed.apply(PAUSED, stale)
    assert informed.let_pass(made()) is Refusal.PAUSED


def test_it_waits_for_no_backend_while_what_it_knows_is_fresh() -> None:
    def refresh() -> bool:
        raise AssertionError

    one = gate(refresh=refresh)
    one.apply(NOTHING, gates.now() - 9)
    assert one.let_pass(made()) is None


# ---- what it acknowledges ----------------------------------------------------------------------------------


def test_a_version_holds_once_what_has_passed_before_has_begun() -> None:
    one, message = gate(), made()
    assert one.let_pass(message) is None
    assert version(one) == NOTHING.version
    one.apply(PAUSED, gates.now())
    assert version(one) is None
    assert one.let_begin(message, message.begin) is None
    assert version(one) == PAUSED.version


def test_a_version_holds_once_what_has_passed_before_has_ended_without_a_beginning() -> None:
    one, message = gate(), made()
    assert one.let_pass(message) is None
    one.apply(PAUSED, gates.now())
    message.is_waiting = False
    assert version(one) == PAUSED.version


def test_what_has_passed_and_is_gone_is_waited_for_by_nobody() -> None:
    one, message = gate(), made()
    assert one.let_pass(message) is None
    one.apply(PAUSED, gates.now())
    del message
    assert version(one) == PAUSED.version


def test_what_passes_under_the_present_snapshot_is_not_waited_for_even_if_its_number_is_an_old_one() -> None:
    one, message = gate(CANCELED), made(root_id=ids.uuid7())
    one.apply(NOTHING, gates.now())
    assert one.let_pass(message) is None
    assert version(one) == NOTHING.version


def test_where_threads_judge_again_a_version_holds_at_once() -> None:
    one = gate(forks=False)
    assert one.let_pass(made()) is None
    one.apply(PAUSED, gates.now())
    assert version(one) == PAUSED.version


# ---- what is to end ----------------------------------------------------------------------------------------


def running(one: Gate, message: Made) -> Made:
    assert one.let_pass(message) is None
    assert one.let_begin(message, message.begin) is None
    return message


def test_what_runs_of_a_canceled_job_is_to_end_until_it_has() -> None:
    one = gate()
    message, other = running(one, made(1)), running(one, made(2, root_id=ids.uuid7()))
    one.apply(CANCELED, gates.now())
    with one.doomed() as doomed:
        assert doomed == [(message, 5.0)]
    assert version(one) == CANCELED.version
    one.end(message)
    with one.doomed() as doomed:
        assert doomed == []
    assert other.is_running


def test_what_no_signal_reaches_is_named_as_left() -> None:
    one = gate(forks=False)
    message = running(one, made(1))
    one.apply(CANCELED, gates.now())
    assert one.acknowledgement() == (CANCELED.version, ["1"])
    message.is_running = False
    assert one.acknowledgement() == (CANCELED.version, [])


# ---- what messages say of themselves -----------------------------------------------------------------------


def headers(**ours: Any) -> dict[str, Any]:
    header = {"v": 1, "task": "t", "run": 2, "delivery": 1, "batch": "5", "first": 1, **ours}
    return {"id": "c", "root_id": JOB, "retries": 1, HEADER: header}


def test_a_message_of_the_tracker_says_its_run_and_its_batch() -> None:
    assert sent_of(headers()) == Sent(root_id=JOB, celery_id="c", run=2, batch="5")
    assert is_from_tracker(headers())
    assert is_of_job(headers())


def test_a_retry_is_of_the_run_and_of_no_batch() -> None:
    retry = headers() | {"retries": 2}
    assert sent_of(retry) == Sent(root_id=JOB, celery_id="c", run=2)
    assert not is_from_tracker(retry)


def test_what_a_task_sends_says_the_run_of_that() -> None:
    subtask = {"id": "s", "root_id": JOB, RUN_HEADER: 3, "delivery_info": {"redelivered": True}}
    assert sent_of(subtask) == Sent(root_id=JOB, celery_id="s", run=3, redelivered=True)
    assert not is_from_tracker(subtask)
    assert is_of_job(subtask)


def test_a_plain_message_is_of_no_job() -> None:
    plain = {"id": "p", "root_id": "4f2d8c9a-0000-4000-8000-000000000000"}
    assert not is_of_job(plain)
    assert sent_of(plain) == Sent(root_id=plain["root_id"], celery_id="p")
