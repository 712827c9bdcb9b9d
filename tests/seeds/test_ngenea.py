"""What Ngenea Hub's states say (N), as far as states, moves and a running house show it."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import chain, group
from sqlalchemy import update

from jobrunner.condition import seconds_behind
from jobrunner.event_log import WrittenBatch, open_writer
from jobrunner.order_kinds import OrderKind
from jobrunner.states import ENDED_JOB, ENDED_TASK, JOB_MOVES, TASK_MOVES, WELL, JobState, TaskState, success
from jobrunner.store import leases, reading
from jobrunner.store.schema import lease
from jobrunner.terminology import ours, theirs
from jobrunner.wire import VERSION
from tests.driven import Driven, driven
from tests.house import PATIENCE, House
from tests.waiting import until

JOB_STATES = {
    "Pending": JobState.UNDER_CONSTRUCTION,
    "Started": JobState.ACTIVE,
    "Success": JobState.COMPLETED,
    "Failure": JobState.FAILED,
    "Pausing": JobState.PAUSING,
    "Paused": JobState.PAUSED,
    "Cancelled": JobState.CANCELED,
    "Dequeuing": JobState.CANCEL_REQUESTED,
}

TASK_STATES = {
    "Pending": TaskState.PENDING,
    "Started": TaskState.ACTIVE,
    "Success": TaskState.COMPLETED,
    "Failure": TaskState.FAILED,
    "Error": TaskState.PARTIAL,
    "Skipped": TaskState.SKIPPED,
    "Cancelled": TaskState.CANCELED,
}


@pytest.mark.parametrize(("name", "state"), JOB_STATES.items(), ids=JOB_STATES)
def test_n1_every_job_state_has_a_counterpart_and_is_found_back(name: str, state: JobState) -> None:
    assert ours("Ngenea Hub", "job", name) == (state,)
    assert theirs("Ngenea Hub", state) == (name,)


@pytest.mark.parametrize(("name", "state"), TASK_STATES.items(), ids=TASK_STATES)
def test_n2_every_task_state_has_a_counterpart_and_is_found_back(name: str, state: TaskState) -> None:
    assert state in ours("Ngenea Hub", "task", name)
    assert theirs("Ngenea Hub", state) == (name,)


def test_n1_pending_begins_when_paths_have_been_collected() -> None:
    assert {JobState.QUEUED, JobState.ACTIVE} <= JOB_MOVES[JobState.UNDER_CONSTRUCTION]


def test_n1_pending_is_being_populated_with_tasks_through_its_discovery_task_and_begins_when_they_are_collected(
    running: House,
) -> None:
    proj, gate, begun = running.proj, running.gate("collected"), running.gate("begun")
    job = running.jobs.submit(chain(proj.discover.si([1, 2], str(gate)), proj.hold.s(str(begun))))
    until(lambda: job.state is JobState.UNDER_CONSTRUCTION, timeout=PATIENCE, what="the job to be pending")
    assert theirs("Ngenea Hub", job.state) == ("Pending",)
    assert job.progress.growing
    gate.open()
    begun.reached()
    until(lambda: job.state is JobState.ACTIVE, timeout=PATIENCE, what="the job to be started")
    begun.open()
    assert job.result(PATIENCE) == [1, 2]
    assert job.view.total == 4


def test_n1_failure_is_also_a_discovery_that_failed_the_job_could_not_complete(running: House) -> None:
    job = running.jobs.submit(running.proj.discover_nothing_but_an_error.si())
    assert (job.wait(PATIENCE), job.reason) == (JobState.FAILED, "construction")


# ---- the arrows, driven: real turns of the tracker, on what a simulated worker tells and what is ordered -------


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Driven]:
    """Return a world with a worker, to submit one job."""
    with driven(tmp_path) as made:
        yield made


def passed(one: Driven) -> list[str]:
    """Return the states that the job has been in, as Ngenea Hub calls them; what it has no name for is left out."""
    states = [one.moves[0][0], *(new for _, new in one.moves)]
    return [name for state in states for name in theirs("Ngenea Hub", state)]


def test_n1_pending_to_started(one: Driven) -> None:
    one.submit(chain(one.work(discovers=True), one.work()))
    one.run(0)
    one.start(1)
    assert passed(one) == ["Pending", "Started"]


def test_n1_pending_to_failure(one: Driven) -> None:
    one.submit(one.work(discovers=True))
    one.run(how="failed")
    assert passed(one)[-1] == "Failure"


def test_n1_pending_to_pausing(one: Driven) -> None:
    one.submit(chain(one.work(discovers=True), one.work()))
    one.start()
    one.order(OrderKind.PAUSE)
    assert passed(one) == ["Pending", "Pausing"]


def test_n1_pending_to_dequeuing(one: Driven) -> None:
    one.submit(one.work(discovers=True))
    one.start()
    one.order(OrderKind.CANCEL)
    assert passed(one) == ["Pending", "Dequeuing"]


def test_n1_started_to_success(one: Driven) -> None:
    one.submit(one.work())
    one.run()
    assert passed(one) == ["Started", "Success"]


def test_n1_started_to_failure(one: Driven) -> None:
    one.submit(one.work())
    one.run(how="failed")
    assert passed(one) == ["Started", "Failure"]


def test_n1_started_to_pausing_waits_for_ongoing_tasks(one: Driven) -> None:
    one.submit(chain(one.work(), one.work()))
    one.start(0)
    one.order(OrderKind.PAUSE)
    one.notice()
    assert (passed(one), one.answer) == (["Started", "Pausing"], None)
    assert one.tasks == [TaskState.ACTIVE, TaskState.PENDING]


def test_n1_pausing_to_paused(one: Driven) -> None:
    one.submit(chain(one.work(), one.work()))
    one.start(0)
    one.order(OrderKind.PAUSE)
    one.notice()
    one.end(0)
    assert passed(one) == ["Started", "Pausing", "Paused"]
    assert one.answer is not None
    assert one.answer.outcome == "done"


def test_n1_pausing_to_success(one: Driven) -> None:
    """Nothing was left to hold."""
    one.submit(one.work())
    one.start()
    one.order(OrderKind.PAUSE)
    one.end()
    assert passed(one) == ["Started", "Pausing", "Success"]


def test_n1_pausing_to_started(one: Driven) -> None:
    one.submit(chain(one.work(), one.work()))
    one.start(0)
    one.order(OrderKind.PAUSE)
    one.order(OrderKind.RESUME)
    assert passed(one) == ["Started", "Pausing", "Started"]


def test_n1_paused_to_started_when_resumed(one: Driven) -> None:
    one.submit(chain(one.work(), one.work()))
    one.start(0)
    one.order(OrderKind.PAUSE)
    one.notice()
    one.end(0)
    one.order(OrderKind.RESUME)
    one.notice()
    one.run(1)
    assert passed(one) == ["Started", "Pausing", "Paused", "Started", "Success"]


def test_n1_paused_to_cancelled(one: Driven) -> None:
    one.submit(chain(one.work(), one.work()))
    one.start(0)
    one.order(OrderKind.PAUSE)
    one.notice()
    one.end(0)
    one.order(OrderKind.CANCEL)
    one.notice()
    assert passed(one) == ["Started", "Pausing", "Paused", "Dequeuing", "Cancelled"]


def test_n1_started_to_dequeuing_removes_tasks_from_the_queue(one: Driven) -> None:
    one.submit(group(one.work(), one.work()))
    one.start(0)
    one.order(OrderKind.CANCEL, grace=None)
    assert passed(one) == ["Started", "Dequeuing"]
    assert one.tasks == [TaskState.ACTIVE, TaskState.CANCELED]


def test_n1_dequeuing_to_cancelled(one: Driven) -> None:
    """All remaining tasks cancelled."""
    one.submit(group(one.work(), one.work()))
    one.start(0)
    one.order(OrderKind.CANCEL, grace=0.0)
    one.notice()
    assert passed(one) == ["Started", "Dequeuing", "Cancelled"]
    assert one.tasks == [TaskState.CANCELED, TaskState.CANCELED]


def test_n1_pausing_is_passed_on_the_way_from_started_to_paused() -> None:
    assert JobState.PAUSED not in JOB_MOVES[JobState.ACTIVE]


def test_n1_dequeuing_ends_in_cancelled_only() -> None:
    assert JOB_MOVES[JobState.CANCEL_REQUESTED] == {JobState.CANCELED}


def test_n2_cancelled_because_a_previous_task_failed(one: Driven) -> None:
    one.submit(chain(one.work(), one.work()))
    one.run(0, how="failed")
    assert [theirs("Ngenea Hub", state) for state in one.tasks] == [("Failure",), ("Cancelled",)]


def test_n2_failure_is_an_unexpected_error_without_structured_output(one: Driven) -> None:
    one.submit(one.work())
    one.run(0, how="failed")
    assert [theirs("Ngenea Hub", state) for state in one.tasks] == [("Failure",)]
    assert (one.row(0).note, one.row(0).value_task) == ("no", None)


def test_n2_cancelled_because_the_job_was(one: Driven) -> None:
    one.submit(chain(one.work(), one.work()))
    one.order(OrderKind.CANCEL)
    one.notice()
    assert [theirs("Ngenea Hub", state) for state in one.tasks] == [("Cancelled",), ("Cancelled",)]


def test_n2_pending_to_started_to_success(one: Driven) -> None:
    one.submit(one.work())
    names = [theirs("Ngenea Hub", one.tasks[0])]
    one.start()
    names.append(theirs("Ngenea Hub", one.tasks[0]))
    one.end()
    names.append(theirs("Ngenea Hub", one.tasks[0]))
    assert names == [("Pending",), ("Started",), ("Success",)]


def test_n1_success_failure_and_cancelled_are_the_ends() -> None:
    assert {JOB_STATES[name] for name in ("Success", "Failure", "Cancelled")} == ENDED_JOB


def test_n2_pending_is_created_but_not_picked_up() -> None:
    assert ours("Ngenea Hub", "task", "Pending") == (TaskState.PENDING, TaskState.READY, TaskState.QUEUED)


def test_n2_failure_and_error_are_two_states() -> None:
    assert success(TaskState.FAILED) is False
    assert success(TaskState.PARTIAL) is True


def test_n2_after_an_error_the_paths_that_succeeded_go_on_to_the_next_tasks() -> None:
    assert TaskState.PARTIAL in WELL


PATHS = [f"/data/{number}" for number in range(10)]


def test_n2_error_is_a_captured_error_not_all_paths_processed_and_the_paths_that_succeeded_go_on(
    running: House,
) -> None:
    process = running.proj.process
    job = running.jobs.submit(chain(process.si(PATHS, PATHS[3:5]), process.s([])))
    assert (job.wait(PATIENCE), job.reason) == (JobState.FAILED, "partial")
    first, second = job.tasks()
    assert (first.state, second.state) == (TaskState.PARTIAL, TaskState.COMPLETED)
    survivors = PATHS[:3] + PATHS[5:]
    assert [running.app.AsyncResult(one.celery_id).result for one in (first, second)] == [survivors, survivors]
    assert [(one.item, one.message, one.type) for one in job.task(first.id).item_errors()] == [
        (path, f"no {path}", "FileNotFoundError") for path in PATHS[3:5]
    ]
    shown = running.ask("show", "--errors", job.id).out
    listed = [line.split() for line in shown.splitlines() if line.startswith("/data")]
    assert listed == [[path, "FileNotFoundError:", "no", path, first.id] for path in PATHS[3:5]]
    assert "items      processed 16, skipped 0, failed 2, aborted 0" in shown


def test_n2_failure_is_an_unexpected_error_no_structured_output_and_what_comes_next_is_cancelled(
    running: House,
) -> None:
    job = running.jobs.submit(chain(running.proj.fail.si("unexpected"), running.proj.process.s([])))
    assert job.wait(PATIENCE) is JobState.FAILED
    first, second = job.tasks()
    assert [theirs("Ngenea Hub", one.state) for one in (first, second)] == [("Failure",), ("Cancelled",)]
    assert (first.items, job.task(first.id).item_errors()) == (None, [])
    assert (second.reason, second.note) == ("upstream", f"upstream: {first.name} [{first.id}] failed")


def test_n2_skipped_is_no_work_to_perform(running: House) -> None:
    job = running.jobs.submit(chain(running.proj.skip.si([], "no paths"), running.proj.process.s([])))
    assert job.wait(PATIENCE) is JobState.COMPLETED
    first, second = job.tasks()
    assert [theirs("Ngenea Hub", one.state) for one in (first, second)] == [("Skipped",), ("Success",)]
    assert first.note == "no paths"
    assert job.result() == []


def test_n2_skipped_is_entered_without_having_been_sent() -> None:
    assert TaskState.SKIPPED in TASK_MOVES[TaskState.PENDING]
    assert TaskState.SKIPPED in TASK_MOVES[TaskState.READY]


def test_n2_skipped_is_also_automatically_by_another_task(running: House) -> None:
    proj, path = running.proj, running.path("skipped")
    branches = group(chain(proj.append.s(path), proj.append.s(path)), proj.identity.s())
    job = running.jobs.submit(chain(proj.find_none.si([1], proj.append.name), branches, proj.identity.s()))
    assert job.result(PATIENCE) == [None, [1]]
    assert (job.state, job.outcome) == (JobState.COMPLETED, "ok")
    first, *skipped, _, _ = job.tasks()
    assert [theirs("Ngenea Hub", one.state) for one in skipped] == [("Skipped",)] * 2
    assert [(one.reason, one.delivery, one.sent_at, one.last_event) for one in skipped] == [("said", 0, None, None)] * 2
    assert {one.note for one in skipped} == {f"skipped: nothing found (said by {first.name} [{first.id}])"}
    assert running.lines("skipped") == []


def test_n2_a_job_all_of_which_was_skipped_had_nothing_to_do(running: House) -> None:
    proj, path = running.proj, running.path("nothing")
    job = running.jobs.submit(
        chain(proj.find_none.si([]), group(proj.append.s(path), proj.append.s(path)), proj.total_of_any.s())
    )
    assert (job.wait(PATIENCE), job.outcome) == (JobState.COMPLETED, "noop")
    assert [(one.state, one.reason, one.delivery) for one in job.tasks()[1:]] == [
        (TaskState.SKIPPED, "said", 0),
        (TaskState.SKIPPED, "said", 0),
        (TaskState.SKIPPED, "empty", 0),
    ]
    assert job.result() is None
    assert job.id not in running.ask("list", "--no-noop").out


def test_n2_cancelled_is_entered_without_having_started() -> None:
    for state in (TaskState.PENDING, TaskState.READY, TaskState.QUEUED):
        assert TaskState.CANCELED in TASK_MOVES[state]


def test_n2_all_but_pending_and_started_are_ends() -> None:
    assert {state for name, state in TASK_STATES.items() if name not in {"Pending", "Started"}} == ENDED_TASK


def test_n3_states_are_updated_asynchronously(house: House) -> None:
    """What has run is told later, however late the tracker is; the task does not wait for that."""
    house.broker()
    tracker = house.tracker()
    house.worker()
    gate = house.gate("open")
    job = house.jobs.submit(house.proj.hold.s("done", str(gate)) | house.proj.append.s(house.path("lines")))
    gate.reached()
    until(lambda: job.tasks()[0].state is TaskState.ACTIVE, timeout=PATIENCE, what="the start to be known")
    os.kill(tracker.pid, signal.SIGSTOP)
    gate.open()
    until(lambda: house.app.AsyncResult(job.tasks()[0].id).ready(), timeout=PATIENCE, what="the task to end")
    assert job.tasks()[0].state is TaskState.ACTIVE
    os.kill(tracker.pid, signal.SIGCONT)
    assert job.result(PATIENCE) == "done"
    assert [task.state for task in job.tasks()] == [TaskState.COMPLETED, TaskState.COMPLETED]


@pytest.mark.house_on("sqlite-redis", chaos=["postgresql-rabbitmq"])
def test_n3_how_long_the_delay_is_is_known_until_everything_has_been_read(house: House) -> None:
    """A tracker that takes over begins where the one before had got, and is as far behind as that was long ago."""
    house.broker()
    house.tracker().stop()
    with house.jobs.database.write() as connection:
        connection.execute(update(lease).values(caught_up_at=lease.c.caught_up_at - 7200))
    job = house.jobs.submit(house.proj.add.s(1, 2))
    assert "2 h 0 min behind" in house.ask("show", job.id).out
    assert "what the last one knew 2 h 0 min ago" in house.ask("list").err
    leave_unread(house, batches=1_000, last="last@house")
    house.tracker()

    def prompt() -> set[str]:
        """Return who is known to be online as soon as the tracker is not behind any more."""
        with house.jobs.database.read() as connection:
            view, status = job.view, leases.tracker_status(connection)
            online = {one.name for one in reading.list_workers(connection, None)}
        return set() if seconds_behind(view, status) else online | {"nobody"}

    assert "last@house" in until(prompt, timeout=PATIENCE, what="the tracker to be prompt")
    assert house.ask("show", job.id, "--json").json["behind_seconds"] is None


def leave_unread(house: House, batches: int, last: str) -> None:
    """Write batches of events that say nothing, and then one that a worker is there."""
    with house.app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=3)
        writer = open_writer(connection)
        for number in range(batches):
            writer.append(WrittenBatch(v=VERSION, source=f"{number}", worker="", events='[{"type": "task-baked"}]'))
        online = {"type": "worker-online", "hostname": last, "timestamp": 1.0, "pid": 1}
        writer.append(WrittenBatch(v=VERSION, source="last", worker=last, events=json.dumps([online])))
