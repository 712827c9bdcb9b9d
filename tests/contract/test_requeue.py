"""Requeue in a turn, on both databases: what runs again, with what, and what becomes of what had been added or sent."""

import pytest
from celery import chain, chord, group
from celery.canvas import Signature

from jobrunner.order_kinds import OrderKind
from jobrunner.order_records import Requeue
from jobrunner.store import tracking
from tests.apps import order, read_rows
from tests.builders import event
from tests.requeued import Requeued
from tracker import requeue


@pytest.fixture
def job(on_each: Requeued) -> Requeued:
    return on_each


def total(job: Requeued) -> Signature:
    return job.runner.app.tasks["total"].s()


def test_of_a_completed_job_all_tasks_run_again(job: Requeued) -> None:
    job.submit(chord([job.leaf(), job.leaf()], total(job)))
    job.run_all()
    assert job.job()["state"] == "completed"
    assert job.requeue().text == "It is queued: 3 tasks run again."
    assert job.states() == {0: "queued", 1: "queued", 2: "pending"}
    assert job.job()["state"] == "queued"
    job.run(0)
    assert job.job()["state"] == "active"
    job.run_all()
    assert job.job()["state"] == "completed"
    assert job.deliveries() == {0: 2, 1: 2, 2: 2}
    assert job.job()["run"] == 2


def test_of_a_failed_job_what_had_not_ended_well_runs_again_and_what_depends_on_it(job: Requeued) -> None:
    job.submit(chord([job.leaf(), job.leaf(), job.leaf()], total(job)))
    job.run(0, 2)
    job.fail(1)
    assert job.states() == {0: "completed", 1: "failed", 2: "completed", 3: "canceled"}
    assert job.requeue().outcome == "done"
    assert job.states() == {0: "completed", 1: "queued", 2: "completed", 3: "pending"}
    assert job.job()["state"] == "queued"
    job.run(1)
    assert job.states()[3] == "queued"
    job.run_all()
    assert job.job()["state"] == "completed"
    assert job.deliveries() == {0: 1, 1: 2, 2: 1, 3: 1}


def test_all_of_a_failed_job_can_be_ordered_to_run_again(job: Requeued) -> None:
    job.submit(chain(job.leaf(), job.leaf()))
    job.run(0)
    job.fail(1)
    job.requeue(scope="all")
    assert job.states() == {0: "queued", 1: "pending"}


def test_a_requeued_task_takes_its_descendants_with_it_and_nothing_else(job: Requeued) -> None:
    job.submit(chain(group(chain(job.leaf(), job.leaf()), job.leaf()), job.leaf()))
    job.run_all()
    job.requeue(0)
    assert job.states() == {0: "queued", 1: "pending", 2: "completed", 3: "pending"}
    job.run_all()
    assert job.deliveries() == {0: 2, 1: 2, 2: 1, 3: 2}
    assert job.job()["state"] == "completed"


def test_a_requeued_task_of_a_failed_job_is_sent(job: Requeued) -> None:
    job.submit(chain(job.leaf(), job.leaf(), job.leaf()))
    job.run(0)
    job.fail(1)
    job.requeue(1)
    assert job.states() == {0: "completed", 1: "queued", 2: "pending"}
    job.run_all()
    assert job.job()["state"] == "completed"


def test_a_task_whose_predecessor_has_not_ended_well_cannot_run_again_alone(job: Requeued) -> None:
    job.submit(chain(job.leaf(), job.leaf()))
    job.fail(0)
    answer = job.requeue(1)
    assert answer.outcome == "refused"
    assert "could not run. Requeue the job." in answer.text
    assert job.job()["state"] == "failed"


def test_a_task_is_not_requeued_while_what_comes_after_it_is_under_way(job: Requeued) -> None:
    job.submit(chain(job.leaf(), job.leaf()))
    job.run(0)
    assert job.requeue(0).text.startswith("1 tasks that come after ")
    assert job.states() == {0: "completed", 1: "queued"}


def test_one_task_of_a_paused_job_runs_again_once_that_is_resumed(job: Requeued) -> None:
    job.submit(group(job.leaf(), job.leaf()))
    job.fail(0)
    job.order(OrderKind.PAUSE)
    job.requeue(0)
    assert (job.job()["state"], job.states()) == ("paused", {0: "ready", 1: "queued"})
    job.order(OrderKind.RESUME)
    assert job.states() == {0: "queued", 1: "queued"}


def test_large_jobs_are_requeued_in_batches(job: Requeued, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requeue, "BATCH", 4)
    job.submit(job.several(10))
    job.run_all()
    order(job.runner, OrderKind.REQUEUE, job.job_id)
    seen = []
    while job.job()["state"] != "queued":
        job.turn()
        seen.append((job.job()["state"], list(job.states().values()).count("completed")))
    assert seen == [("requeueing", 6), ("requeueing", 2), ("queued", 0)]


def test_what_a_task_had_added_is_removed_and_made_anew(job: Requeued) -> None:
    job.submit(chain(job.leaf(), job.leaf()))
    job.add(0, job.several(3))
    job.run(2, 3, 4)
    job.fail(1)
    job.requeue(0)
    assert job.states() == {0: "queued", 1: "pending"}
    job.add(0, job.several(2))
    assert list(job.states().values()) == ["completed", "pending", "queued", "queued"]
    job.run_all()
    assert (job.job()["state"], job.job()["total"]) == ("completed", 4)


def test_what_added_tasks_had_added_goes_with_them(job: Requeued) -> None:
    job.submit(job.leaf())
    job.add(0, job.several(2))
    job.add(1, job.leaf())
    job.run_all()
    assert len(job.states()) == 4
    job.requeue()
    assert job.states() == {0: "queued"}
    assert [row["id"] for row in read_rows(job.runner.database, "block")] == [job.job_id]
    assert len(read_rows(job.runner.database, "message")) == 1


def test_an_added_task_that_failed_runs_again_without_its_creator(job: Requeued) -> None:
    job.submit(chain(job.leaf(), job.leaf()))
    job.add(0, job.several(2))
    job.run(2)
    job.fail(3)
    job.requeue()
    assert job.states() == {0: "completed", 1: "pending", 2: "completed", 3: "queued"}
    job.run_all()
    assert job.job()["state"] == "completed"


def test_a_task_that_had_been_expanded_has_its_own_value_again(job: Requeued) -> None:
    job.submit(chain(job.leaf(), total(job)))
    job.add(0, job.several(2), expands=True)
    job.run_all()
    assert job.tasks()[0]["value_group"] is not None
    job.requeue()
    assert (job.tasks()[0]["value_task"], job.tasks()[0]["value_group"]) == (None, None)


def test_levels_of_a_job_with_a_barrier_lose_what_had_joined_them(job: Requeued) -> None:
    job.submit(chain(group(job.leaf(), job.leaf()), job.leaf()), barrier=True)
    job.add(0, chain(job.leaf(), job.leaf()))
    job.run_all()
    assert job.job()["state"] == "completed"
    job.requeue(0)
    assert job.states() == {0: "queued", 1: "completed", 2: "pending"}
    job.add(0, job.leaf())
    job.run_all()
    assert (job.job()["state"], job.job()["total"]) == ("completed", 4)


def test_where_a_task_failed_that_another_has_sent_the_sender_runs_again(job: Requeued) -> None:
    job.submit(group(job.leaf(), job.leaf()))
    job.send(0, "sent-1")
    job.run(0, 1)
    job.turn(event("started", uuid="sent-1"), event("failed", uuid="sent-1"))
    assert job.job()["state"] == "failed"
    job.requeue()
    assert job.states() == {0: "queued", 1: "completed"}
    job.run_all()
    assert job.job()["state"] == "completed"


def test_a_canceled_job_runs_again_as_if_it_had_not_been(job: Requeued) -> None:
    job.submit(chain(job.leaf(), job.leaf()))
    job.turn(job.tell(0, "started"))
    order(job.runner, OrderKind.CANCEL, job.job_id, grace=1)
    job.turn(job.tell(0, "revoked", terminated=True))
    job.turn()
    assert (job.job()["state"], job.states()) == ("canceled", {0: "canceled", 1: "canceled"})
    job.requeue()
    assert job.states() == {0: "queued", 1: "pending"}
    job.run_all()
    assert (job.job()["state"], job.job()["intent"]) == ("completed", None)


def test_messages_of_the_run_before_are_void(job: Requeued) -> None:
    job.submit(job.leaf())
    job.order(OrderKind.CANCEL)
    job.requeue()
    (entry,) = read_rows(job.runner.database, "gate_entry")
    assert (entry["kind"], entry["number"]) == ("run", 2)


def test_a_skipped_task_lets_go_on_what_comes_after_it(job: Requeued) -> None:
    job.submit(chain(job.leaf(), job.leaf(), job.leaf()))
    job.fail(0)
    job.order(OrderKind.SKIP, 0)
    assert job.states() == {0: "skipped", 1: "queued", 2: "pending"}
    job.run_all()
    assert job.job()["state"] == "completed"


def test_a_pending_task_is_skipped_when_its_turn_comes(job: Requeued) -> None:
    job.submit(chain(job.leaf(), group(chain(job.leaf(), job.leaf()), job.leaf()), job.leaf()))
    assert job.order(OrderKind.SKIP, 1).text == "It is skipped when its turn comes."
    assert job.states()[1] == "pending"
    job.run(0)
    job.turn()
    assert job.states() == {0: "completed", 1: "skipped", 2: "queued", 3: "queued", 4: "pending"}
    job.run_all()
    assert job.job()["state"] == "completed"


def test_a_failed_task_that_is_skipped_in_a_job_at_work_opens_what_it_had_blocked(job: Requeued) -> None:
    job.submit(group(chain(job.leaf(), job.leaf()), job.leaf()))
    job.fail(0)
    assert job.states() == {0: "failed", 1: "pending", 2: "queued"}
    job.order(OrderKind.SKIP, 0)
    assert job.states() == {0: "skipped", 1: "queued", 2: "queued"}


def test_any_number_of_tasks_and_of_places_behind_which_all_waits_can_be_asked_for(job: Requeued) -> None:
    job.submit(job.several(3))
    job.run(0, 1, 2)
    ids = [row["id"] for row in job.tasks().values()]
    nobody = tuple(f"nobody {number}" for number in range(70_000))
    nowhere = tuple((f"nowhere {number}", 0) for number in range(1_500))
    what = Requeue(tasks=(*nobody, *ids), behind=(*nowhere, (job.job_id, -1)))
    with job.runner.database.read() as connection:
        found = tracking.tasks_to_reset(connection, job.job_id, what, 5)
        some = tracking.tasks_to_reset(connection, job.job_id, what, 2)
    assert sorted(task_id for task_id, _, _ in found) == sorted(ids)
    assert len(some) == 2
