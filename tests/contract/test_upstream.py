"""What becomes of jobs that wait for one that fails or is canceled (C5), and orders on jobs that wait."""

import re
from pathlib import Path
from typing import Any

import pytest
from celery import chain, group
from sqlalchemy import select, update

from jobrunner.order_kinds import OrderKind
from jobrunner.states import FailureReason, JobState, TaskState
from jobrunner.store.schema import history, job
from tests.apps import read_rows, statements_to, store
from tests.driven import Driven, driven
from tracker import prerequisites


def row(one: Driven, job_id: str) -> dict[str, object]:
    """The row of a job."""
    (found,) = (row for row in read_rows(one.world.runner.database, "job") if row["id"] == job_id)
    return found


def propagate(one: Driven, *, on: bool = True) -> None:
    """Let the tracker be told so."""
    one.world.propagates = on


# ---- failures propagate ------------------------------------------------------------------------------------


def test_what_waits_for_a_job_that_fails_fails_with_it_and_all_that_waits_for_that(here: Driven) -> None:
    propagate(here)
    first = here.submit(here.work(), name="J1")
    second = here.submit(chain(here.work(discovers=True), here.work()), name="J2", after=[first])
    third = here.submit(here.work(), name="J3", after=[second], key="3")
    here.of(first).run(how="failed")
    for job_id in (second, third):
        found = row(here, job_id)
        assert (found["state"], found["reason"]) == (JobState.FAILED, FailureReason.UPSTREAM)
        assert found["note"] == f"upstream: J1 [{first}] failed"
        assert (found["started_at"], found["unmet"]) == (None, 1)
        tasks = [(task.state, task.reason, task.note) for task in here.world.runner.get(job_id).tasks()]
        assert set(tasks) == {(TaskState.FAILED, FailureReason.UPSTREAM, found["note"])}
    assert here.of(third).moves == [(JobState.WAITING, JobState.FAILED)]


def test_the_history_says_why_a_job_has_failed_with_another(one: Driven) -> None:
    propagate(one)
    first = one.submit(one.work(), name="J1")
    second = one.submit(one.work(), after=[first])
    one.of(first).run(how="failed")
    with one.world.runner.database.read() as connection:
        (line,) = connection.execute(select(history).where(history.c.job_id == second)).all()
    assert (line.line, line.trigger) == ("reason: upstream", f"upstream: J1 [{first}] failed")


def test_what_waits_for_a_job_that_is_canceled_fails_as_well(one: Driven) -> None:
    propagate(one)
    first = one.submit(one.work(), name="J1")
    second = one.submit(one.work(), after=[first])
    one.of(first).order(OrderKind.CANCEL)
    one.notice()
    one.turn()
    assert row(one, second)["note"] == f"upstream: J1 [{first}] was canceled"


def test_failures_go_on_from_job_to_job_over_as_many_turns_as_it_takes(
    one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prerequisites, "_STEPS", 2)
    propagate(one)
    jobs = [one.submit(one.work(), name="root")]
    for _ in range(5):
        jobs.append(one.submit(one.work(), after=[jobs[-1]]))
    one.of(jobs[0]).run(how="failed")
    assert one.of(jobs[-1]).state is JobState.WAITING
    for _ in range(3):
        one.turn()
    assert {str(row(one, job_id)["note"]) for job_id in jobs[1:]} == {f"upstream: root [{jobs[0]}] failed"}


@pytest.mark.parametrize("says", [True, False])
def test_a_job_that_says_what_a_failure_means_for_it_goes_before_the_tracker(one: Driven, says: bool) -> None:
    propagate(one, on=not says)
    first = one.submit(one.work())
    second = one.submit(one.work(), after=[first])
    with one.world.runner.database.write() as connection:
        connection.execute(update(job).where(job.c.id == second).values(propagate=says))
    one.of(first).run(how="failed")
    assert one.of(second).state is (JobState.FAILED if says else JobState.WAITING)


def test_a_job_that_waits_for_what_had_failed_does_not_fail_with_it(one: Driven) -> None:
    propagate(one)
    first = one.submit(one.work())
    one.run(how="failed")
    second = one.submit(one.work(), after=[first], wait_for_failed=True)
    one.of(first).order(OrderKind.REQUEUE, scope=None)
    one.turn()
    one.run(how="failed")
    assert one.of(second).state is JobState.WAITING


def test_a_job_that_failed_with_another_waits_again_when_it_is_requeued(here: Driven) -> None:
    propagate(here)
    first = here.submit(here.work())
    second = here.submit(chain(here.work(), here.work()), after=[first])
    here.of(first).run(how="failed")
    here.of(second).order(OrderKind.REQUEUE, scope=None)
    assert (here.state, here.tasks) == (JobState.WAITING, [TaskState.PENDING] * 2)
    here.of(first).order(OrderKind.REQUEUE, scope=None)
    here.turn()
    here.run()
    assert here.of(second).state is JobState.QUEUED
    here.turn()
    here.run(0)
    here.run(1)
    assert here.state is JobState.COMPLETED


def test_one_that_failed_with_another_is_requeued_at_once_when_that_has_completed(one: Driven) -> None:
    propagate(one)
    first = one.submit(one.work())
    second = one.submit(one.work(), after=[first])
    one.of(first).run(how="failed")
    one.order(OrderKind.REQUEUE, scope=None)
    one.turn()
    one.run()
    assert one.of(second).state is JobState.FAILED
    one.order(OrderKind.REQUEUE, scope=None)
    assert (one.state, one.tasks) == (JobState.QUEUED, [TaskState.READY])


def test_what_was_skipped_in_a_job_that_failed_with_another_is_not_run(one: Driven) -> None:
    """It had failed by order while the job was waiting: else there is nothing to skip."""
    propagate(one)
    first = one.submit(one.work())
    second = one.submit(chain(one.work(), one.work()), after=[first])
    one.order(OrderKind.FAIL, 0)
    one.of(first).run(how="failed")
    one.of(second).order(OrderKind.SKIP, 0)
    one.turn()
    assert (one.state, one.tasks) == (JobState.WAITING, [TaskState.SKIPPED, TaskState.PENDING])
    one.of(first).order(OrderKind.REQUEUE, scope=None)
    one.turn()
    one.run()
    one.of(second).turn()
    assert one.tasks == [TaskState.SKIPPED, TaskState.QUEUED]


# ---- failures do not propagate -----------------------------------------------------------------------------


def test_a_job_waits_on_when_what_it_waits_for_fails_and_runs_when_that_has_completed_after_all(here: Driven) -> None:
    first = here.submit(here.work())
    others = [here.submit(here.work(), after=[first])]
    others.append(here.submit(here.work(), after=others))
    here.of(first).run(how="failed")
    assert [here.of(job_id).state for job_id in others] == [JobState.WAITING] * 2
    here.of(first).order(OrderKind.REQUEUE, scope=None)
    here.turn()
    here.run()
    for job_id in others:
        here.of(job_id).turn()
        here.run()
    assert [here.of(job_id).state for job_id in others] == [JobState.COMPLETED] * 2


# ---- orders on jobs that wait ------------------------------------------------------------------------------


def waiting(one: Driven, **options: Any) -> tuple[str, str]:
    first = one.submit(one.work())
    return first, one.submit(group(one.work(), one.work()), after=[first], **options)


@pytest.mark.parametrize("propagates", [True, False])
def test_a_failure_that_turns_out_to_be_none_lets_run_who_still_waits_and_the_others_are_requeued(
    one: Driven, propagates: bool
) -> None:
    """As of a task whose worker was taken for lost, and which another one has completed."""
    propagate(one, on=propagates)
    first = one.submit(one.work())
    second = one.submit(one.work(), after=[first])
    one.of(first).run(how="failed")
    one.hear("started", worker="other")
    one.hear("succeeded", worker="other")
    assert one.state is JobState.COMPLETED
    assert one.of(second).state is (JobState.FAILED if propagates else JobState.QUEUED)
    if propagates:
        one.order(OrderKind.REQUEUE)
        one.rest()
    assert (one.state, row(one, second)["unmet"]) == (JobState.COMPLETED if propagates else JobState.QUEUED, 0)


def test_a_paused_job_waits_on_when_it_is_resumed(one: Driven) -> None:
    first, second = waiting(one)
    one.order(OrderKind.PAUSE)
    assert (one.state, one.answer and one.answer.outcome) == (JobState.PAUSED, "done")
    one.order(OrderKind.RESUME)
    one.turn()
    assert one.state is JobState.WAITING
    one.of(first).run()
    one.of(second).turn()
    assert (one.state, one.tasks) == (JobState.QUEUED, [TaskState.QUEUED] * 2)


@pytest.mark.parametrize("how", ["ordered", "submitted"])
def test_a_job_that_is_released_while_it_is_paused_runs_when_it_is_resumed(one: Driven, how: str) -> None:
    first, second = waiting(one, paused=how == "submitted")
    if how == "ordered":
        one.order(OrderKind.PAUSE)
    one.of(first).run()
    one.of(second).turn()
    with one.world.runner.database.read() as connection:
        lines = connection.execute(select(history.c.line).where(history.c.job_id == second)).scalars().all()
    assert lines[-1] == "All that it waited for has completed; it is paused."
    assert (one.state, one.tasks) == (JobState.PAUSED, [TaskState.READY] * 2)
    one.order(OrderKind.RESUME)
    one.rest()
    assert one.state is JobState.COMPLETED


def test_a_paused_job_fails_with_what_it_waits_for_and_says_so_to_who_had_paused_it(one: Driven) -> None:
    propagate(one)
    first, second = waiting(one, paused=True)
    one.of(first).run(how="failed")
    one.turn()
    found = row(one, second)
    assert (found["state"], found["intent"], found["held"], found["chore"]) == (JobState.FAILED, None, False, False)


def test_a_canceled_job_stays_so_when_what_it_waited_for_completes_and_can_be_requeued(one: Driven) -> None:
    first, second = waiting(one)
    one.order(OrderKind.CANCEL)
    assert (one.state, one.tasks) == (JobState.CANCELED, [TaskState.CANCELED] * 2)
    one.of(first).run()
    assert (one.of(second).state, row(one, second)["unmet"]) == (JobState.CANCELED, 0)
    one.order(OrderKind.REQUEUE, scope=None)
    one.rest()
    assert one.state is JobState.COMPLETED


def test_a_canceled_job_that_is_requeued_before_that_waits_again(one: Driven) -> None:
    first, second = waiting(one)
    one.order(OrderKind.CANCEL)
    one.order(OrderKind.REQUEUE, scope=None)
    assert (one.state, one.tasks) == (JobState.WAITING, [TaskState.PENDING] * 2)
    one.of(first).run()
    assert one.of(second).state is JobState.QUEUED


def test_a_job_that_completes_in_the_turn_in_which_one_that_waits_is_canceled(one: Driven) -> None:
    first, second = waiting(one)
    one.of(second).give(OrderKind.CANCEL)
    one.of(first).run()
    assert one.of(second).state is JobState.CANCELED
    assert one.tasks == [TaskState.CANCELED] * 2


def test_tasks_of_a_job_that_waits_take_orders_and_it_waits_on(one: Driven) -> None:
    first, second = waiting(one)
    one.order(OrderKind.SKIP, 0)
    one.order(OrderKind.CANCEL, 1)
    assert (one.state, one.tasks) == (JobState.WAITING, [TaskState.PENDING, TaskState.CANCELED])
    one.of(first).run()
    one.of(second).turn()
    assert (one.state, one.tasks) == (JobState.CANCELED, [TaskState.SKIPPED, TaskState.CANCELED])


def test_a_task_that_is_skipped_after_all_opens_nothing_in_a_job_that_waits(here: Driven) -> None:
    first = here.submit(here.work())
    second = here.submit(chain(here.work(), here.work()), after=[first])
    here.order(OrderKind.FAIL, 0)
    here.order(OrderKind.SKIP, 0)
    here.turn()
    assert (here.state, here.tasks) == (JobState.WAITING, [TaskState.SKIPPED, TaskState.PENDING])
    here.of(first).run()
    here.of(second).turn()
    assert here.tasks == [TaskState.SKIPPED, TaskState.QUEUED]
    here.run(1)
    assert here.state is JobState.COMPLETED


def test_a_job_of_which_all_was_canceled_task_by_task_waits_and_then_is_canceled(one: Driven) -> None:
    first, second = waiting(one)
    for number in (0, 1):
        one.order(OrderKind.CANCEL, number)
    assert one.state is JobState.WAITING
    one.of(first).run()
    assert one.of(second).state is JobState.CANCELED


def test_a_job_that_waits_takes_a_priority_and_a_note(one: Driven) -> None:
    _, second = waiting(one)
    one.order(OrderKind.SET, priority=5, note="soon")
    assert (row(one, second)["priority"], row(one, second)["annotation"]) == (5, "soon")
    assert one.state is JobState.WAITING


# ---- what it costs -----------------------------------------------------------------------------------------


def test_jobs_that_wait_cost_a_turn_nothing_as_long_as_nothing_ends(tmp_path: Path) -> None:
    with driven(tmp_path) as one:
        first, _ = waiting(one)
        with statements_to(one.world.runner.database) as told:
            one.of(first).start()
            one.turn()
        assert len(told) > 10
        assert not [statement for statement, _ in told if "prerequisite" in statement]


def test_who_waits_for_whom_is_found_by_indexes(tmp_path: Path) -> None:
    with driven(tmp_path) as one:
        database = one.world.runner.database
        with statements_to(database) as told:
            first, second = waiting(one, key="second")
            one.submit(one.work(), key="unknown", after=["third"])
            store(one.world.runner, one.work(), key="third", after=["second"])
            one.of(first).run()
        with database.read() as connection:
            plans = [
                (line.detail, statement)
                for statement, values in told
                if "prerequisite" in statement and not statement.startswith("INSERT")
                for line in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            ]
        assert len(plans) > 10
        assert not [plan for plan in plans if re.match("SCAN (job|named|waiter|prerequisite|task)", plan[0])]
        assert one.of(second).state is JobState.QUEUED
