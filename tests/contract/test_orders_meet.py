"""Orders that meet others which are not done yet, or events that come after them: every one has a true answer."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import chain, group
from sqlalchemy import select

from jobrunner.additions import parts
from jobrunner.order_kinds import OrderKind
from jobrunner.order_records import Answer
from jobrunner.states import ENDED_JOB, JobState, TaskState
from jobrunner.store.check import wrong_counters
from jobrunner.store.schema import job, orders
from tests.apps import answer_to, new_runner, order, store, take_turn
from tests.driven import Driven, driven
from tracker import requeue, sending


@pytest.fixture
def here(tmp_path: Path, any_database_url: str) -> Iterator[Driven]:
    with driven(tmp_path, any_database_url) as made:
        yield made


def answers(here: Driven) -> list[str]:
    """What became of all orders, in the order in which they were given."""
    with here.world.runner.database.read() as connection:
        found = connection.execute(select(orders.c.answer).order_by(orders.c.id)).scalars().all()
    return ["none" if one is None else ": ".join(json.loads(one).values()) for one in found]


def has_chore(here: Driven) -> bool:
    with here.world.runner.database.read() as connection:
        return bool(connection.execute(select(job.c.chore).where(job.c.id == here.job_id)).scalar())


def test_a_pause_that_is_resumed_in_the_same_turn_is_answered_and_leaves_no_chore(here: Driven) -> None:
    here.submit(group(here.work(), here.work()))
    here.start()
    here.give(OrderKind.PAUSE)
    here.give(OrderKind.RESUME)
    here.turn()
    here.notice()
    assert answers(here) == ["refused: It was resumed before that.", "done: It is active."]
    assert not has_chore(here)


def test_to_requeue_a_task_is_answered_when_its_job_is_canceled_meanwhile(here: Driven) -> None:
    here.submit(here.work())
    here.run()
    here.give(OrderKind.REQUEUE, 0)
    here.give(OrderKind.CANCEL, grace=1.0)
    here.rest()
    here.turn()
    assert here.state is JobState.CANCELED
    assert answers(here)[0] == "refused: It was canceled before that."
    assert not has_chore(here)


def test_a_requeue_goes_on_when_the_job_is_resumed_and_says_so(here: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requeue, "BATCH", 1)
    here.submit(group(here.work() for _ in range(3)))
    for number in (0, 1):
        here.run(number, "failed")
    here.order(OrderKind.PAUSE)
    here.notice()
    here.order(OrderKind.REQUEUE, scope=None)
    assert here.state is JobState.REQUEUEING
    here.order(OrderKind.RESUME)
    here.rest()
    here.turn()
    assert answers(here)[1:] == ["done: It is queued: 2 tasks run again.", "done: It is requeueing."]


def test_requeue_all_of_a_job_that_is_being_requeued_in_part_runs_all(here: Driven) -> None:
    here.submit(chain(here.work(), here.work()))
    here.run(0)
    here.run(1, "failed")
    here.give(OrderKind.REQUEUE, scope=None)
    here.give(OrderKind.REQUEUE, scope="all")
    here.turn()
    assert answers(here) == ["done: It is queued: 2 tasks run again."] * 2
    assert here.tasks == [TaskState.READY, TaskState.PENDING]


def test_a_task_that_was_left_to_finish_can_be_terminated_after_all(here: Driven) -> None:
    here.submit(here.work())
    here.start()
    here.order(OrderKind.CANCEL, 0, grace=None)
    here.notice()
    assert here.tasks == [TaskState.ACTIVE]
    here.order(OrderKind.CANCEL, 0, grace=0.0)
    assert answers(here) == ["none", "none"]
    here.notice()
    assert answers(here) == ["done: It is canceled."] * 2


def test_of_orders_that_want_different_ends_of_a_task_only_the_last_is_done(here: Driven) -> None:
    here.submit(here.work())
    here.start()
    here.order(OrderKind.CANCEL, 0, grace=1.0)
    here.order(OrderKind.SKIP, 0)
    here.notice()
    here.turn()
    assert answers(here) == ["refused: It is skipped.", "done: It is skipped."]


def test_what_was_failed_by_order_and_requeued_before_all_knew_does_not_say_that_it_was_done(here: Driven) -> None:
    here.submit(here.work())
    here.start()
    here.order(OrderKind.FAIL, 0)
    here.world.end(here.world.workers["worker"], here.world.workers["worker"].running[0], "failed")
    here.turn()
    here.order(OrderKind.REQUEUE, scope=None)
    assert answers(here) == ["refused: It was requeued before that.", "done: It is queued: 1 tasks run again."]


def test_to_cancel_an_ended_job_is_done_when_workers_know_what_was_ordered_of_its_tasks(here: Driven) -> None:
    here.submit(here.work())
    here.order(OrderKind.FAIL, 0)
    assert here.state is JobState.FAILED
    here.order(OrderKind.CANCEL, grace=0.0)
    assert here.state is JobState.CANCELED
    assert answers(here)[1] == "none"  # the message is on the broker, and no gate knows yet
    here.notice()
    assert answers(here)[1] == "done: It is canceled: it had ended, and nothing of it ran any more."
    assert not has_chore(here)


@pytest.mark.parametrize("kind", [OrderKind.PAUSE, OrderKind.CANCEL, OrderKind.SKIP, OrderKind.FAIL])
def test_a_retry_that_a_lost_worker_has_sent_and_not_told_of_is_refused_too(here: Driven, kind: OrderKind) -> None:
    here.submit(here.work())
    here.start()
    worker = here.world.workers["worker"]
    here.world.end(worker, worker.running[0], "retried")  # the broker has the retry, and nobody has read of it
    here.give(kind, 0 if kind in {OrderKind.SKIP, OrderKind.FAIL} else None)
    here.lose_worker()
    (retry,) = (one for one in here.world.queue if one.retries == 1 and one.celery_id == here.row(0).id)
    here.notice()
    here.turn()
    assert answers(here)[0].startswith("done")
    worker = here.world.workers["worker"]
    here.world.prefetch(worker, retry)
    here.world.start(worker, retry)
    assert worker.running == []


@pytest.mark.parametrize("then", [OrderKind.CANCEL, OrderKind.FAIL])
def test_another_order_on_a_task_that_was_ended_by_one_is_done_when_workers_know_of_that(
    here: Driven, then: OrderKind
) -> None:
    here.submit(here.work())
    here.give(OrderKind.FAIL, 0)
    here.order(then, 0)
    assert answers(here)[1] == "none"  # the message is on the broker
    here.notice()
    here.turn()
    assert answers(here)[1].startswith("done")
    assert not has_chore(here)


def test_to_skip_a_task_is_done_when_workers_know_also_if_its_job_is_requeued_before(here: Driven) -> None:
    here.submit(here.work())
    here.order(OrderKind.SKIP, 0)
    assert here.state is JobState.COMPLETED
    here.order(OrderKind.REQUEUE, scope="incomplete")
    assert answers(here) == ["none", "done: It is queued: 0 tasks run again."]
    here.notice()
    here.turn()
    assert answers(here)[0] == "done: It is skipped."
    assert not has_chore(here)


@pytest.mark.parametrize("told", ["started", "succeeded"])
@pytest.mark.parametrize("when", ["it had failed", "another task of it ran"])
def test_a_canceled_job_stays_so_when_an_event_corrects_a_failure(here: Driven, told: str, when: str) -> None:
    here.submit(group(chain(here.work(), here.work()), here.work()))
    here.run(0, "failed")
    if when == "it had failed":
        here.run(2)
        assert here.state is JobState.FAILED
    here.order(OrderKind.CANCEL, grace=1.0)
    here.notice()
    before = here.tasks
    here.hear(told, 0, worker="another")
    here.rest()
    assert here.state is JobState.CANCELED
    assert here.tasks == before


def test_what_turns_up_of_a_failed_job_that_was_canceled_does_not_wake_it(here: Driven) -> None:
    here.submit(chain(here.work(), here.work()))
    here.start()
    worker = here.world.workers["worker"]
    (running,) = worker.running
    here.end(0, "failed")
    here.order(OrderKind.CANCEL, grace=1.0)
    started: list[str] = []
    here.world.gate = lambda message: started.append(message.celery_id)
    here.world.call(worker, running)
    here.rest()
    assert here.state is JobState.CANCELED
    assert here.tasks == [TaskState.FAILED, TaskState.CANCELED, TaskState.CANCELED]
    assert started == []


def test_a_task_of_a_canceled_job_can_be_skipped_and_the_job_stays_canceled(here: Driven) -> None:
    here.submit(group(here.work(), here.work()))
    here.run(0, "failed")
    here.order(OrderKind.CANCEL, grace=1.0)
    here.notice()
    here.order(OrderKind.SKIP, 0)
    assert answers(here)[-1] == "done: It is skipped."
    here.hear("succeeded", 1, worker="another")
    assert here.state is JobState.CANCELED
    assert here.tasks == [TaskState.SKIPPED, TaskState.CANCELED]


def test_a_requeue_that_is_canceled_in_the_middle_leaves_a_plan_that_is_counted_right(
    here: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requeue, "BATCH", 1)
    here.submit(chain(group(here.work(), here.work()), here.work()))
    for number in range(3):
        here.run(number)
    here.order(OrderKind.REQUEUE, scope="all")
    assert here.tasks == [TaskState.PENDING, TaskState.COMPLETED, TaskState.COMPLETED]
    here.order(OrderKind.CANCEL, grace=1.0)
    assert here.tasks == [TaskState.CANCELED, TaskState.COMPLETED, TaskState.COMPLETED]
    with here.world.runner.database.read() as connection:
        assert wrong_counters(connection) == []
    monkeypatch.undo()
    here.notice()
    here.order(OrderKind.REQUEUE, scope=None)
    for _ in range(5):
        here.world.work_on()
    assert here.state is JobState.COMPLETED


def test_what_is_ready_in_a_large_paused_job_does_not_keep_others_waiting(
    here: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_LETTERS", 2)
    large = store(here.world.runner, group(here.work() for _ in range(50)))
    order(here.world.runner, OrderKind.PAUSE, large)
    here.submit(here.work())
    here.turn()
    assert here.tasks == [TaskState.QUEUED]


def test_an_order_that_fails_is_refused_and_keeps_nobody_else_waiting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runner = new_runner(tmp_path)
    one, other = (store(runner, runner.app.tasks["add"].s(1, 2)) for _ in range(2))
    take_turn(runner)
    odd = order(runner, OrderKind.SET, one, priority="x" * 10, no_such_column=1)
    good = order(runner, OrderKind.PAUSE, other)
    take_turn(runner)
    refused, paused = answer_to(runner, odd), answer_to(runner, good)
    assert refused is not None
    assert (refused.outcome, refused.text[:30]) == ("refused", "It could not be carried out (K")
    assert paused == Answer(outcome="done", text="It is paused, with 1 tasks left.")
    assert "could not be carried out" in caplog.text
    runner.database.close()


def test_who_had_a_task_skipped_that_still_waited_is_to_be_read_when_it_was(here: Driven) -> None:
    first = here.submit(here.work())
    second = here.submit(chain(here.work(), here.work(), here.work()), after=[first])
    for number in (0, 1):
        here.order(OrderKind.SKIP, number)
    here.of(first).run()
    here.of(second)
    for _ in range(3):  # one for each that opens
        here.turn()
    assert here.tasks == [TaskState.SKIPPED, TaskState.SKIPPED, TaskState.QUEUED]
    assert [here.row(number).note for number in (0, 1)] == ["skipped by tester"] * 2


def test_a_job_that_is_resumed_and_paused_again_while_it_is_requeued_starts_nothing(here: Driven) -> None:
    """Its tasks that had not ended are out still: what the gates knew of the first pause was lifted."""
    here.submit(group(here.work(), here.work()))
    here.order(OrderKind.PAUSE)
    here.notice()
    here.turn()
    assert here.state is JobState.PAUSED
    for kind in (OrderKind.REQUEUE, OrderKind.RESUME, OrderKind.PAUSE):
        here.give(kind)
    here.turn()
    assert here.state is JobState.REQUEUEING, "workers do not know yet"
    here.notice()
    here.turn()
    assert here.state is JobState.PAUSED
    here.start()
    assert here.world.workers["worker"].running == []
    here.order(OrderKind.RESUME)
    here.rest()
    assert here.state is JobState.COMPLETED


def to_be_skipped(here: Driven, *, by_rule: bool = False) -> None:
    """Have a job that has ended before the second task of its chain was skipped, as it was to be."""
    here.submit(group(chain(here.work(), here.work(), here.work()), here.work()), on_failure="cancel")
    here.order(OrderKind.SKIP, 1, why="bad data")
    if by_rule:
        here.run(3, "failed")
    else:
        here.order(OrderKind.CANCEL)
    here.notice()
    here.turn()
    assert (here.state in ENDED_JOB, here.tasks[1]) == (True, TaskState.CANCELED)


@pytest.mark.parametrize("by_rule", [True, False])
def test_what_was_to_be_skipped_when_its_job_ended_is_skipped_after_a_requeue(here: Driven, by_rule: bool) -> None:
    to_be_skipped(here, by_rule=by_rule)
    here.order(OrderKind.REQUEUE)
    here.notice()
    here.turn()
    here.run(0)
    here.turn()
    assert here.tasks[:3] == [TaskState.COMPLETED, TaskState.SKIPPED, TaskState.QUEUED]
    assert here.row(1).note.startswith("skipped by tester")


def test_what_was_to_be_skipped_runs_if_it_is_requeued_itself(here: Driven) -> None:
    here.submit(chain(here.work(), here.work(), here.work()))
    here.start(0)
    here.order(OrderKind.PAUSE)
    here.order(OrderKind.SKIP, 1)
    here.end(0)
    here.order(OrderKind.CANCEL)
    here.notice()
    here.turn()
    assert (here.state, here.tasks[1]) == (JobState.CANCELED, TaskState.CANCELED)
    here.order(OrderKind.REQUEUE, 1)
    here.notice()
    here.turn()
    assert here.tasks[1] is TaskState.QUEUED


def test_what_was_to_be_skipped_when_its_job_was_canceled_stays_canceled_whatever_is_told_of_its_last_run(
    here: Driven,
) -> None:
    here.submit(chain(here.work(), here.work()))
    here.run(0)
    here.run(1)
    here.order(OrderKind.REQUEUE, scope="all")
    here.notice()
    here.turn()
    here.order(OrderKind.SKIP, 1)
    here.order(OrderKind.CANCEL)
    here.notice()
    here.turn()
    assert (here.state, here.tasks) == (JobState.CANCELED, [TaskState.CANCELED] * 2)
    here.hear("started", 1, worker="another")
    assert (here.state, here.tasks) == (JobState.CANCELED, [TaskState.CANCELED] * 2)


def test_a_message_of_a_task_that_a_requeue_of_its_paused_job_has_removed_is_refused(here: Driven) -> None:
    here.submit(group(here.work(), here.work()))
    here.start(0)
    worker = here.world.workers["worker"]
    for part in parts(here.world.runner.app, here.work(), chain="c", group="g", number=0, expands=False):
        here.world.tell(worker, "added", worker.running[0].message, part=part.model_dump(mode="json"))
    here.end(0)
    stale = here.row(2).celery_id
    for kind, arguments in ((OrderKind.PAUSE, {}), (OrderKind.REQUEUE, {"scope": "all"}), (OrderKind.RESUME, {})):
        here.order(kind, **arguments)
        here.notice()
        here.turn()
    (message,) = (one for one in here.world.queue if one.celery_id == stale)
    here.world.prefetch(worker, message)
    here.world.start(worker, message)
    here.turn()
    assert (worker.running, len(here.tasks)) == ([], 2)
    here.rest()
    assert here.state is JobState.COMPLETED
