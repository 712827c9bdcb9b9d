"""What the CAF job tracking worker says (C), as far as states, moves and a running house show it."""

from pathlib import Path

import pytest
from celery import chain, group

from jobrunner.handle import Job
from jobrunner.states import JOB_MOVES, FailureReason, JobState, TaskState
from tests.apps import read_rows
from tests.driven import driven
from tests.house import PATIENCE, Gate, House, on_sqlite
from tests.waiting import until


def test_c1_each_message_is_reported_before_it_is_forwarded_to_the_intended_worker(running: House) -> None:
    """A task looks into the database from inside: it finds its own row there, with the delivery that it is of."""
    look = running.proj.what_the_database_says
    job = running.jobs.submit(chain(look.si(), look.si()))
    assert job.wait(PATIENCE) is JobState.COMPLETED
    first, second = (running.app.AsyncResult(task.id).get() for task in job.tasks())
    ids = [task.id for task in job.tasks()]
    assert first[0] in ([state, 1, ids[0]] for state in ("queued", "active"))
    assert first[1] == ["pending", 0, ids[1]]
    assert second[0] == ["completed", 1, ids[0]]
    assert second[1] in ([state, 1, ids[1]] for state in ("queued", "active"))


@on_sqlite
def test_c3_a_message_is_re_routed_to_the_tracker_which_checks_for_cancellation_and_forwards_it_to_the_right_queue(
    running: House,
) -> None:
    """A message that only the broker has is handed back by the worker as long as its job is held."""
    gate, proj = running.gate("open"), running.proj

    def held() -> dict[str, str]:
        return {one["job_id"]: one["queue"] for one in read_rows(running.jobs.database, "held_message")}

    def sender(name: str) -> Job:
        append = proj.append.si("sent", running.path(name)).set(queue="elsewhere")
        return running.jobs.submit(group(proj.call.si(append), proj.hold.si(1, str(gate))))

    resumed, canceled = jobs = sender("resumed"), sender("canceled")
    gate.reached(2)
    until(lambda: all(len(job.tasks()) == 3 for job in jobs), timeout=PATIENCE, what="the sending to be reported")
    orders = [job.pause() for job in jobs]
    gate.open()
    assert [one.wait(PATIENCE).outcome for one in orders] == ["done", "done"]
    running.worker("elsewhere", queues="elsewhere")
    until(lambda: len(held()) == 2, timeout=PATIENCE, what="the messages to be re-routed")
    assert held() == {job.id: "elsewhere" for job in jobs}
    canceled.cancel()
    resumed.resume()
    assert [job.wait(PATIENCE) for job in jobs] == [JobState.COMPLETED, JobState.CANCELED]
    assert [running.lines(name) for name in ("resumed", "canceled")] == [["sent"], []]
    until(lambda: not held(), timeout=PATIENCE, what="the tracker to have no more of them")


@on_sqlite
@pytest.mark.parametrize("how", ["current.progress", "send_event", "update_state"])
def test_c2_it_can_also_receive_progress_messages_sent_explicitly_to_it(running: House, how: str) -> None:
    """In the ways of Celery's users as well; what these show elsewhere, they show still."""
    gate = running.gate(f"c2 {how}")
    job = running.jobs.submit(running.proj.report.si(how, 3, 4, str(gate)))

    def received() -> bool:  # a process of the pool may be heard before its worker, which tells the start
        (task,) = job.tasks()
        return task.progress is not None and task.state is TaskState.ACTIVE

    until(received, timeout=PATIENCE, what="the message to be received")
    (task,) = job.tasks()
    assert (task.progress, task.said) == (0.75, how)
    stored = running.app.AsyncResult(task.celery_id)
    if how == "update_state":
        assert (stored.state, stored.info["current"]) == ("PROGRESS", 3)
    assert f"75%: {how}" in running.ask("tasks", job.id).out
    gate.open()
    assert job.wait(PATIENCE) is JobState.COMPLETED
    (task,) = running.ask("tasks", job.id, "--json").json
    assert (task["progress"], stored.state) == (1.0, "SUCCESS")


def test_c4_a_job_is_not_executed_until_all_jobs_it_depends_on_have_completed(tmp_path: Path) -> None:
    started = {JobState.UNDER_CONSTRUCTION, JobState.ACTIVE, JobState.PAUSING, JobState.COMPLETED}
    assert not started & JOB_MOVES[JobState.WAITING]
    with driven(tmp_path) as one:
        before = [one.submit(one.work()) for _ in range(3)]
        last = one.submit(one.work(), after=before)
        for job_id in before:
            assert (one.of(last).state, one.tasks) == (JobState.WAITING, [TaskState.PENDING])
            one.of(job_id).run()
        assert one.of(last).state is JobState.QUEUED


def test_c4_then_it_is_forwarded_automatically(running: House) -> None:
    append, path = running.proj.append, running.path("in order")
    first = running.jobs.submit(append.si("first", path), after=["c4"])
    second = running.jobs.submit(append.si("second", path), after=[first])
    running.jobs.submit(append.si("before them", path), key="c4")
    assert second.wait(PATIENCE) is JobState.COMPLETED
    assert running.lines("in order") == ["before them", "first", "second"]


def c5(house: House) -> tuple[Job, Gate]:
    """T1 has dependents T2 and T3, T3 has T4; T5 has nothing to do with them, and is slow. T1 fails."""
    gate, proj = house.gate("slow"), house.proj
    first = chain(proj.fail.si("T1"), group(proj.add.si(2, 2), chain(proj.add.si(3, 3), proj.add.si(4, 4))))
    job = house.jobs.submit(group(first, proj.hold.si(5, str(gate))))
    gate.reached()
    until(lambda: job.tasks()[0].state is TaskState.FAILED, timeout=PATIENCE, what="T1 to fail")
    return job, gate


@on_sqlite
def test_c5_tasks_that_will_never_be_eligible_to_run_are_marked_failed_too(house: House) -> None:
    """Once with the setting of the system that this one takes the place of."""
    house.broker()
    house.tracker(CAF_JOB_TRACKING_PROPAGATE_FAILURES="true")
    house.worker()
    job, gate = c5(house)
    first, *dependents, _ = job.tasks()
    assert [(task.state, task.reason) for task in dependents] == [(TaskState.FAILED, "upstream")] * 3
    assert {task.note for task in dependents} == {f"upstream: {first.name} [{first.id}] failed"}
    assert job.state is JobState.ACTIVE
    gate.open()
    assert job.wait(PATIENCE) is JobState.FAILED
    assert [task.state for task in job.tasks()] == [TaskState.FAILED] * 4 + [TaskState.COMPLETED]


@on_sqlite
def test_c5_by_default_they_are_not_and_wait_for_the_end_of_their_job(running: House) -> None:
    job, gate = c5(running)
    first, *dependents, _ = job.tasks()
    assert [(task.state, task.note) for task in dependents] == [
        (TaskState.PENDING, f"blocked by {first.name} [{first.id}]")
    ] * 3
    gate.open()
    assert job.wait(PATIENCE) is JobState.FAILED
    assert [(task.state, task.note) for task in job.tasks()[1:4]] == [
        (TaskState.CANCELED, f"upstream: {first.name} [{first.id}] failed")
    ] * 3


@pytest.mark.parametrize("propagate_failures", [True, False])
def test_c5_jobs_that_will_never_be_eligible_to_run_are_marked_failed_too(
    tmp_path: Path, propagate_failures: bool
) -> None:
    """T1 has dependents T2 and T3, T3 has T4: with true, the failure of T1 marks T2, T3, T4 failed."""
    with driven(tmp_path) as one:
        one.world.propagates = propagate_failures
        t1 = one.submit(one.work(), name="T1")
        t2, t3 = (one.submit(one.work(), after=[t1]) for _ in range(2))
        t4 = one.submit(one.work(), after=[t3])
        one.of(t1).run(how="failed")
        rows = {row["id"]: row for row in read_rows(one.world.runner.database, "job")}
    for job_id in (t2, t3, t4):
        assert rows[job_id]["state"] == (JobState.FAILED if propagate_failures else JobState.WAITING)
        assert rows[job_id]["reason"] == (FailureReason.UPSTREAM if propagate_failures else None)
        assert rows[job_id]["note"] == (f"upstream: T1 [{t1}] failed" if propagate_failures else None)
