"""What the failure of tasks means for their job, in a turn: nothing more starts, what runs ends, and then it failed."""

import pytest
from celery import chain, group

from jobrunner.condition import why_waiting
from jobrunner.order_kinds import OrderKind
from jobrunner.states import JobState
from jobrunner.store.held import held_view
from jobrunner.store.leases import TrackerStatus
from jobrunner.store.reading import get_job
from tests.apps import answer_to, order, read_rows
from tests.driven import Driven


def fail(one: Driven, *numbers: int) -> None:
    """Let tasks fail in one turn."""
    worker, ids = one.world.workers["worker"], {one.row(number).celery_id for number in numbers}
    for message in [message for message in one.world.queue if message.celery_id in ids]:
        one.world.prefetch(worker, message)
        one.world.start(worker, message)
    for running in [running for running in worker.running if running.message.celery_id in ids]:
        one.world.end(worker, running, "failed")
    one.turn()


def drain(one: Driven) -> list[str]:
    """Let the worker have all messages that there are, and return what it starts of them."""
    worker, started = one.world.workers["worker"], []
    for message in list(one.world.queue):
        one.world.prefetch(worker, message)
        one.world.start(worker, message)
        started += [running.message.celery_id for running in worker.running if running.message is message]
    one.turn()
    return started


# ---- when a rule is met ------------------------------------------------------------------------------------


def test_1_failure_of_100_lets_the_others_go_on_and_10_cancel_the_rest(here: Driven) -> None:
    one = here
    one.submit(group(one.work() for _ in range(100)), threshold=0.1)
    one.start(99)
    fail(one, 0)
    assert (one.state, one.tasks.count("queued")) == (JobState.ACTIVE, 98)
    fail(one, *range(1, 9))
    assert (one.job.will_fail, one.tasks.count("queued")) == (None, 90)
    fail(one, 9)
    assert (one.state, one.job.will_fail) == (JobState.ACTIVE, "threshold")
    assert "10 of 100 tasks failed, and its threshold is 10 percent" in one.job.note
    one.notice()
    one.turn()
    assert one.tasks == ["failed"] * 10 + ["canceled"] * 89 + ["active"]
    one.end(99)
    assert (one.state, one.job.reason) == (JobState.FAILED, "threshold")
    assert one.tasks[99] == "completed"
    assert one.job.note.startswith("10 of 100 tasks failed, and its threshold is 10 percent; the first is ")


def test_after_the_first_failure_nothing_more_starts_if_the_rule_is_to_cancel(here: Driven) -> None:
    one = here
    one.submit(group(chain(one.work(), one.work()), chain(one.work(), one.work()), one.work()), on_failure="cancel")
    one.start(2)
    fail(one, 0)
    one.world.read(one.world.workers["worker"])
    assert drain(one) == []
    assert one.tasks == ["failed", "canceled", "active", "canceled", "canceled"]
    one.end(2)
    assert one.tasks == ["failed", "canceled", "completed", "canceled", "canceled"]
    assert [one.row(number).reason for number in (1, 3, 4)] == ["upstream", "rule", "rule"]
    assert (one.state, one.job.reason) == (JobState.FAILED, "task")


def test_what_is_ready_is_not_sent_in_the_turn_in_which_the_rule_is_met(one: Driven) -> None:
    one.submit(group(chain(one.work(), one.work()), one.work()), on_failure="cancel")
    one.start(0)
    worker = one.world.workers["worker"]
    (running,) = worker.running
    one.world.end(worker, running, "succeeded")
    one.world.flush(worker)
    fail(one, 2)
    assert (one.row(1).delivery, one.tasks[1]) == (0, "canceled")


def test_what_was_sent_and_has_started_before_workers_know_runs_to_its_end(one: Driven) -> None:
    one.submit(group(one.work(), one.work(), one.work()), on_failure="cancel")
    fail(one, 0)
    assert one.tasks == ["failed", "queued", "queued"]
    one.start(1)
    one.notice()
    one.turn()
    assert one.tasks == ["failed", "active", "canceled"]
    one.end(1)
    assert one.tasks == ["failed", "completed", "canceled"]
    assert one.state is JobState.FAILED


def test_a_soft_failure_is_not_tried_again_once_the_rule_is_met(one: Driven) -> None:
    one.submit(group(one.work(), one.work()), on_failure="cancel")
    one.run(1, "retried")
    fail(one, 0)
    one.notice()
    one.turn()
    assert (one.tasks, one.state) == (["failed", "canceled"], JobState.FAILED)
    drain(one)
    assert one.tasks == ["failed", "canceled"]


def test_what_failed_only_because_of_another_task_does_not_count_towards_a_threshold(one: Driven) -> None:
    behind = chain(one.work(), one.work(), one.work(), one.work())
    one.submit(group(behind, *(one.work() for _ in range(6))), threshold=0.3, propagate_failures=True)
    fail(one, 0)
    assert one.tasks[:4] == ["failed"] * 4
    assert one.job.will_fail is None
    fail(one, 4, 5)
    assert one.job.will_fail == "threshold"


def test_a_threshold_that_the_last_failures_reach_is_the_reason(one: Driven) -> None:
    one.submit(group(one.work(), one.work()), threshold=0.5)
    one.run(0)
    one.run(1, "failed")
    assert (one.state, one.job.reason) == (JobState.FAILED, "threshold")


def test_a_job_goes_on_by_its_rule_whoever_leads(one: Driven) -> None:
    one.submit(group(one.work(), one.work(), one.work()), on_failure="cancel")
    one.start(2)
    fail(one, 0)
    one.world._take_over()
    one.notice()
    one.turn()
    one.end(2)
    assert (one.state, one.tasks) == (JobState.FAILED, ["failed", "canceled", "completed"])


def test_a_job_says_why_it_fails_and_what_it_waits_for(one: Driven) -> None:
    one.submit(group(one.work(), one.work()), on_failure="cancel")
    one.start(1)
    fail(one, 0)
    one.notice()
    with one.world.runner.database.read() as connection:
        view = get_job(connection, one.job_id)
        assert view is not None
        assert view.note == f"nothing more of it starts: anything [{one.row(0).id}] failed"
        held = held_view(connection, view)
    assert held is not None
    leader = TrackerStatus(holder="tracker", alive=True, trouble=None, behind_seconds=None)
    why = f"it fails (task) after this: 1 task still runs: anything [{one.row(1).id}] on worker"
    assert why_waiting(view, leader, 1, held) == why


# ---- what else is ordered or told of it --------------------------------------------------------------------


def failing(one: Driven) -> None:
    """Have a job whose rule is met, and of which one task runs."""
    one.submit(group(one.work(), one.work(), one.work()), on_failure="cancel")
    one.start(2)
    fail(one, 0)
    assert one.job.will_fail == "task"


@pytest.mark.parametrize(
    ("kind", "outcome", "text"),
    [
        (OrderKind.PAUSE, "refused", "fails as soon as what runs has ended: nothing more of it starts"),
        (OrderKind.RESUME, "done", "It is not paused."),
        (OrderKind.REQUEUE, "refused", "A job that is active cannot be requeued"),
        (OrderKind.SET, "done", "priority: 0 → 3"),
    ],
)
def test_what_is_ordered_of_a_job_that_fails_changes_nothing_of_that(
    one: Driven, kind: OrderKind, outcome: str, text: str
) -> None:
    failing(one)
    one.order(kind, **({"priority": 3} if kind is OrderKind.SET else {}))
    assert one.answer is not None
    assert one.answer.outcome == outcome
    assert text in one.answer.text
    one.notice()
    one.turn()
    assert one.tasks == ["failed", "canceled", "active"]
    one.end(2)
    assert (one.state, one.job.held, one.job.chore) == (JobState.FAILED, True, False)


def test_a_job_that_fails_can_be_canceled(one: Driven) -> None:
    failing(one)
    one.order(OrderKind.CANCEL, grace=1.0)
    one.notice()
    one.turn()
    assert (one.state, one.tasks) == (JobState.CANCELED, ["failed", "canceled", "canceled"])
    assert (one.job.will_fail, one.job.held, one.job.chore) == (None, False, False)
    assert one.answer is not None
    assert one.answer.outcome == "done"


def test_a_job_that_has_failed_by_its_rule_can_be_canceled(one: Driven) -> None:
    failing(one)
    one.notice()
    one.end(2)
    one.turn()
    one.order(OrderKind.CANCEL)
    one.turn()
    assert (one.state, one.job.will_fail, one.job.held) == (JobState.CANCELED, None, False)


def test_a_job_that_is_paused_when_its_rule_is_met_fails_and_the_pause_is_refused(one: Driven) -> None:
    one.submit(group(one.work(), one.work(), one.work()), on_failure="cancel")
    one.start(0)
    one.start(1)
    paused = order(one.world.runner, OrderKind.PAUSE, one.job_id)
    one.turn()
    assert one.state is JobState.PAUSING
    one.end(0, "failed")
    answer = answer_to(one.world.runner, paused)
    assert answer is not None
    assert (answer.outcome, answer.text[:10]) == ("refused", "It fails: ")
    assert one.state is JobState.ACTIVE
    one.notice()
    one.end(1)
    one.turn()
    assert (one.state, one.tasks) == (JobState.FAILED, ["failed", "completed", "canceled"])


@pytest.mark.parametrize("scope", ["incomplete", "all"])
def test_a_job_that_has_failed_by_its_rule_runs_again_when_it_is_requeued(one: Driven, scope: str) -> None:
    failing(one)
    one.notice()
    one.end(2)
    one.turn()
    assert one.state is JobState.FAILED
    one.order(OrderKind.REQUEUE, scope=scope)
    one.rest()
    assert (one.state, one.tasks) == (JobState.COMPLETED, ["completed"] * 3)
    assert (one.job.will_fail, one.job.held, one.job.chore) == (None, False, False)


def test_a_requeued_job_fails_by_its_rule_again(one: Driven) -> None:
    failing(one)
    one.notice()
    one.end(2)
    one.turn()
    one.order(OrderKind.REQUEUE, scope="all")
    one.notice()
    one.turn()
    fail(one, 1)
    one.notice()
    one.turn()
    assert (one.state, one.tasks) == (JobState.FAILED, ["canceled", "failed", "canceled"])


def test_who_accepts_the_failure_lets_what_was_canceled_for_it_run(one: Driven) -> None:
    failing(one)
    one.notice()
    one.end(2)
    one.turn()
    one.order(OrderKind.SKIP, 0)
    one.rest()
    assert (one.state, one.tasks) == (JobState.COMPLETED, ["skipped", "completed", "completed"])


def test_a_failure_that_is_corrected_after_the_end_starts_nothing_more(one: Driven) -> None:
    one.submit(group(chain(one.work(), one.work()), one.work()), on_failure="cancel")
    one.run(0, "failed")
    one.notice()
    one.turn()
    assert (one.state, one.tasks) == (JobState.FAILED, ["failed", "canceled", "canceled"])
    one.hear("started", 0, worker="other")
    assert (one.state, one.tasks[0]) == (JobState.ACTIVE, "active")
    one.hear("succeeded", 0, worker="other")
    one.turn()
    assert (one.state, one.tasks) == (JobState.CANCELED, ["completed", "canceled", "canceled"])


def test_an_order_that_fails_a_task_counts_as_a_failure(one: Driven) -> None:
    one.submit(group(chain(one.work(), one.work()), one.work()), on_failure="cancel")
    one.start(2)
    one.order(OrderKind.FAIL, 1)
    one.notice()
    one.turn()
    assert one.tasks == ["canceled", "failed", "active"]
    assert one.job.will_fail == "task"


@pytest.mark.parametrize("paused", [False, True])
def test_a_job_that_waits_for_others_fails_at_once_if_an_order_has_its_rule_met(one: Driven, paused: bool) -> None:
    first = one.submit(one.work())
    second = one.submit(chain(one.work(), one.work()), after=[first], on_failure="cancel", paused=paused)
    one.order(OrderKind.FAIL, 0)
    one.turn()
    assert (one.state, one.tasks, one.job.reason) == (JobState.FAILED, ["failed", "canceled"], "order")
    assert (one.job.chore, one.job.unmet, one.job.intent) == (False, 1, None)
    one.order(OrderKind.REQUEUE)
    one.notice()
    assert (one.state, one.tasks) == (JobState.WAITING, ["pending", "pending"])
    one.of(first).run()
    one.of(second).rest()
    assert (one.state, one.tasks) == (JobState.COMPLETED, ["completed", "completed"])


def test_each_decision_is_a_line_in_the_history(one: Driven) -> None:
    failing(one)
    lines = [
        row["line"] for row in read_rows(one.world.runner.database, "history") if row["trigger"] == "its failure rule"
    ]
    assert lines == [f"nothing more of it starts: anything [{one.row(0).id}] failed"]
