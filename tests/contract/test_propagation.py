"""What becomes of tasks that can never run because one before them has failed (C5), in a turn."""

import pytest
from celery import chain, group
from celery.canvas import Signature

from jobrunner.additions import parts
from jobrunner.order_kinds import OrderKind
from jobrunner.states import JobState
from tests.apps import read_rows, statements_to
from tests.builders import event
from tests.driven import Driven

WORK = "anything"


def c5(one: Driven) -> Signature:
    """T1 has dependents T2 and T3, and T3 has T4; nobody depends on T5."""
    first = chain(one.work(), group(one.work(), chain(one.work(), one.work())))
    return group(first, one.work())


def notes(one: Driven, *numbers: int) -> list[str | None]:
    return [one.row(number).note for number in numbers]


def named(one: Driven, number: int) -> str:
    return f"{WORK} [{one.row(number).id}]"


# ---- on and off --------------------------------------------------------------------------------------------


def test_with_propagation_all_that_can_never_run_has_failed_in_the_same_turn(here: Driven) -> None:
    one = here
    one.submit(c5(one), propagate_failures=True)
    one.start(4)
    one.run(0, "failed")
    assert one.tasks == ["failed"] * 4 + ["active"]
    assert notes(one, 1, 2, 3) == [f"upstream: {named(one, 0)} failed"] * 3
    assert {one.row(number).reason for number in (1, 2, 3)} == {"upstream"}
    assert all(one.row(number).ended_at for number in (1, 2, 3))
    assert one.state is JobState.ACTIVE
    one.end(4)
    assert (one.state, one.job.reason) == (JobState.FAILED, "task")
    assert one.job.note.startswith(f"{named(one, 0)} failed: ")


def test_without_propagation_it_waits_and_names_what_blocks_it_until_its_job_has_ended(
    here: Driven,
) -> None:
    one = here
    one.submit(c5(one))
    one.start(4)
    one.run(0, "failed")
    assert one.tasks == ["failed", "pending", "pending", "pending", "active"]
    assert notes(one, 1, 2, 3) == [f"blocked by {named(one, 0)}"] * 3
    one.end(4)
    assert one.state is JobState.FAILED
    assert one.tasks == ["failed", "canceled", "canceled", "canceled", "completed"]
    assert notes(one, 1, 2, 3) == [f"upstream: {named(one, 0)} failed"] * 3


@pytest.mark.parametrize(("told", "own", "marked"), [(True, None, "failed"), (True, False, "pending"),
                                                     (False, True, "failed"), (False, None, "pending")])  # fmt: skip
def test_what_a_job_says_itself_outweighs_what_the_tracker_is_told(
    one: Driven, told: bool, own: bool | None, marked: str
) -> None:
    one.world.propagates = told
    one.submit(group(chain(one.work(), one.work()), one.work()), propagate_failures=own)
    one.run(0, "failed")
    assert one.tasks == ["failed", marked, "queued"]


def test_each_task_names_the_failure_that_it_waits_for_in_vain(one: Driven) -> None:
    one.submit(group(chain(one.work(), one.work()), chain(one.work(), one.work()), one.work()))
    one.run(2, "failed")
    one.run(0, "failed")
    assert notes(one, 1, 3) == [f"blocked by {named(one, 0)}", f"blocked by {named(one, 2)}"]
    one.run(4)
    assert notes(one, 1, 3) == [f"upstream: {named(one, 0)} failed", f"upstream: {named(one, 2)} failed"]


def test_what_comes_before_a_failure_or_beside_it_is_not_touched(one: Driven) -> None:
    inner = chain(one.work(), one.work(), one.work())
    one.submit(chain(one.work(), group(inner, chain(one.work(), one.work())), one.work()), propagate_failures=True)
    one.run(0)
    one.run(1)
    one.run(2, "failed")
    assert one.tasks == ["completed", "completed", "failed", "failed", "queued", "pending", "failed"]


def test_behind_a_failure_is_every_later_level_of_a_job_with_a_barrier(one: Driven) -> None:
    canvas = group(chain(one.work(), one.work(), one.work()), chain(one.work(), one.work()))
    one.submit(canvas, barrier=True, propagate_failures=True)
    one.run(0, "failed")
    assert one.tasks == ["failed", "failed", "failed", "queued", "failed"]
    assert notes(one, 1, 2, 4) == [f"upstream: {named(one, 0)} failed"] * 3


def test_a_task_that_was_added_blocks_what_waits_for_its_creator(one: Driven) -> None:
    one.submit(group(chain(one.work(), one.work()), one.work()), propagate_failures=True)
    one.start(0)
    add(one, 0, chain(one.work(), one.work()))
    one.end(0)
    assert one.tasks == ["completed", "pending", "queued", "queued", "pending"]
    one.run(3, "failed")
    assert one.tasks == ["completed", "failed", "queued", "failed", "failed"]
    one.run(2)
    assert one.job.note.startswith(f"{named(one, 3)} failed: ")


def test_what_joins_a_level_behind_a_failure_can_never_run_either(one: Driven) -> None:
    one.submit(group(one.work(), one.work(), one.work()), barrier=True, propagate_failures=True)
    one.start(1)
    add(one, 1, one.work())
    one.run(0, "failed")
    one.end(1)
    assert one.tasks == ["failed", "completed", "queued", "failed"]
    assert notes(one, 3) == [f"upstream: {named(one, 0)} failed"]


def test_failures_in_many_chains_take_no_more_statements_than_one(one: Driven) -> None:
    def statements(failures: int) -> int:
        one.submit(chain(group(chain(one.work(), one.work()) for _ in range(failures)), one.work(), one.work()))
        told = [event("failed", uuid=one.row(2 * number).celery_id, source="worker/1") for number in range(failures)]
        one.world.log += told
        with statements_to(one.world.runner.database) as seen:
            one.turn()
        assert one.tasks.count("canceled") == failures + 2
        return len(seen)

    statements(1)  # the tracker hears the worker for the first time; by the third failure it gets no more such tasks
    assert statements(40) == statements(3)


@pytest.mark.parametrize("propagates", [True, False])
def test_any_number_of_tasks_behind_a_failure_is_marked(here: Driven, propagates: bool) -> None:
    one = here
    behind = chain(one.work(), group(one.work() for _ in range(200)), one.work())
    one.submit(group(behind, one.work()), propagate_failures=propagates)
    one.run(0, "failed")
    rows = [row for row in read_rows(one.world.runner.database, "task") if row["arrival"] in range(1, 202)]
    wanted = "upstream: {} failed" if propagates else "blocked by {}"
    assert {row["note"] for row in rows} == {wanted.format(named(one, 0))}
    assert {(row["state"], row["reason"]) for row in rows} == {("failed" if propagates else "pending", "upstream")}
    assert {row["ended_at"] is not None for row in rows} == {propagates}


# ---- what is no failure after all --------------------------------------------------------------------------


@pytest.mark.parametrize("propagates", [True, False])
def test_a_failure_that_is_corrected_lets_what_waited_in_vain_run(one: Driven, propagates: bool) -> None:
    one.submit(c5(one), propagate_failures=propagates)
    one.start(4)
    one.run(0, "failed")
    one.hear("started", 0, worker="other")
    assert one.tasks == ["active", "pending", "pending", "pending", "active"]
    assert notes(one, 1, 2, 3) == [None] * 3
    one.hear("succeeded", 0, worker="other")
    assert one.tasks == ["completed", "queued", "queued", "pending", "active"]


@pytest.mark.parametrize("propagates", [True, False])
def test_a_correction_after_the_end_of_the_job_does_so_too(one: Driven, propagates: bool) -> None:
    one.submit(chain(one.work(), one.work()), propagate_failures=propagates)
    one.run(0, "failed")
    assert one.state is JobState.FAILED
    one.hear("started", 0, worker="other")
    assert one.tasks == ["active", "pending"]
    one.hear("succeeded", 0, worker="other")
    assert (one.state, one.tasks) == (JobState.ACTIVE, ["completed", "queued"])
    one.run(1)
    assert one.state is JobState.COMPLETED


@pytest.mark.parametrize("propagates", [True, False])
def test_what_another_failure_blocks_as_well_stays_blocked_and_names_that_one(one: Driven, propagates: bool) -> None:
    one.submit(chain(group(one.work(), one.work(), one.work()), one.work()), propagate_failures=propagates)
    one.run(0, "failed")
    one.run(1, "failed")
    one.order(OrderKind.SKIP, 0)
    word = "upstream: {} failed" if propagates else "blocked by {}"
    assert one.tasks == ["skipped", "failed", "queued", "failed" if propagates else "pending"]
    assert notes(one, 3) == [word.format(named(one, 1))]
    one.order(OrderKind.SKIP, 1)
    assert (one.tasks[3], notes(one, 3)) == ("pending", [None])
    one.run(2)
    assert one.tasks[3] == "queued"


@pytest.mark.parametrize("propagates", [True, False])
def test_a_failure_that_is_accepted_after_the_end_of_the_job_lets_the_rest_run(one: Driven, propagates: bool) -> None:
    one.submit(chain(one.work(), one.work(), one.work()), propagate_failures=propagates)
    one.run(0, "failed")
    one.order(OrderKind.SKIP, 0)
    one.rest()
    assert (one.state, one.tasks) == (JobState.COMPLETED, ["skipped", "completed", "completed"])


@pytest.mark.parametrize("propagates", [True, False])
def test_a_requeue_of_the_job_or_of_the_task_lets_all_run_again(one: Driven, propagates: bool) -> None:
    for number in (None, 0):
        one.submit(chain(one.work(), one.work(), one.work()), propagate_failures=propagates)
        one.run(0, "failed")
        one.order(OrderKind.REQUEUE, number)
        one.rest()
        assert (one.state, one.tasks) == (JobState.COMPLETED, ["completed"] * 3)


def test_a_requeued_task_leaves_blocked_what_another_failure_blocks(one: Driven) -> None:
    one.submit(chain(group(one.work(), one.work()), one.work()), propagate_failures=True)
    one.run(0, "failed")
    one.run(1, "failed")
    one.order(OrderKind.REQUEUE, 0)
    one.notice()
    assert one.tasks == ["queued", "failed", "failed"]
    assert notes(one, 2) == [f"upstream: {named(one, 1)} failed"]


def test_what_has_failed_because_of_another_task_cannot_be_accepted_by_itself(one: Driven) -> None:
    one.submit(chain(one.work(), one.work()), propagate_failures=True)
    one.run(0, "failed")
    one.order(OrderKind.SKIP, 1)
    assert one.answer is not None
    assert one.answer.outcome == "refused"
    assert f"upstream: {named(one, 0)} failed" in one.answer.text
    assert one.tasks == ["failed", "failed"]


def test_a_job_whose_only_failure_is_canceled_is_canceled_with_all_that_failed_for_it(one: Driven) -> None:
    one.submit(chain(one.work(), one.work()), propagate_failures=True)
    one.run(0, "failed")
    one.order(OrderKind.CANCEL, 0)
    assert (one.state, one.tasks) == (JobState.CANCELED, ["canceled", "canceled"])


def test_what_is_told_late_of_an_earlier_run_does_not_move_what_can_never_run(one: Driven) -> None:
    one.submit(chain(one.work(), one.work()), propagate_failures=True)
    one.run(0)
    one.start(1)
    late = one.row(1).celery_id
    one.end(1, "failed")
    one.order(OrderKind.REQUEUE, scope="all")
    one.notice()
    one.run(0, "failed")
    assert one.tasks == ["failed", "failed"]
    one.world.log.append(event("succeeded", uuid=late, worker="other", source="other/1", at=10**6))
    one.turn()
    assert one.tasks == ["failed", "failed"]
    assert one.row(1).reason == "upstream"


def add(one: Driven, number: int, canvas: Signature) -> None:
    """Let a task that runs tell that it adds a canvas."""
    uuid = one.row(number).celery_id
    told = parts(one.world.runner.app, canvas, chain=f"{uuid}/chain", group=f"{uuid}/group", number=0, expands=False)
    source = one.world.workers["worker"].source
    for part in told:
        fields = {"part": part.model_dump(mode="json"), "root_id": one.job_id}
        one.world.log.append(event("added", uuid=uuid, worker="worker", source=source, fields=fields))
    one.turn()
