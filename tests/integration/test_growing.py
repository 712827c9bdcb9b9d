"""Jobs that grow: tasks add tasks, and what is behind them waits, on real brokers and workers."""

from collections import Counter
from collections.abc import Iterator

import pytest
from celery import chain, group

from jobrunner.errors import OutsideJobError
from jobrunner.handle import Job
from jobrunner.states import JobState, TaskState
from jobrunner.store import reading
from jobrunner.store.check import wrong_counters
from tests.house import PATIENCE, House, on_each_broker, on_sqlite
from tests.waiting import until

pytestmark = on_each_broker


@pytest.fixture(autouse=True)
def _sound(request: pytest.FixtureRequest) -> Iterator[None]:
    """See after each test that counters are those of the rows."""
    house: House = request.getfixturevalue("running" if "running" in request.fixturenames else "house")
    yield
    with house.jobs.database.read() as connection:
        assert wrong_counters(connection) == []


def history(house: House, job: Job) -> list[str]:
    with house.jobs.database.read() as connection:
        return [one.line for one in reading.list_history(connection, job.id, limit=10)]


def numbers_of(job: Job) -> dict[str, int]:
    """How many tasks of each name there are."""
    return Counter(task.name.rpartition(".")[2] for task in job.tasks())


# ---- children ------------------------------------------------------------------------------------------


def test_children_run_when_their_creator_has_completed_and_successors_wait_for_them(running: House) -> None:
    proj, path = running.proj, running.path("children")
    job = running.jobs.submit(chain(proj.add_children.si(3, path), proj.append.s(path)))
    assert job.result(PATIENCE) == "creator"
    *children, last = running.lines("children")
    assert (sorted(children), last) == (["child 0", "child 1", "child 2"], "creator")
    first, successor, *added = job.tasks()
    assert [(one.created_by, one.arrival, one.sequence) for one in (first, successor)] == [(None, 0, 0), (None, 1, 1)]
    assert [(one.created_by, one.arrival, one.sequence) for one in added] == [(first.id, n, 1) for n in (2, 3, 4)]
    running.check_completed_once(job)
    assert (job.view.total, job.view.outcome) == (5, "ok")


def test_children_are_pending_and_counted_while_their_creator_runs(running: House) -> None:
    proj, gate = running.proj, running.gate("open")
    job = running.jobs.submit(proj.add_children_and_wait.si(3, running.path("pending"), str(gate)))
    gate.reached()
    known = {TaskState.ACTIVE: 1, TaskState.PENDING: 3}
    until(lambda: job.view.counts == known, timeout=PATIENCE, what="the children to be known")
    assert running.lines("pending") == []
    gate.open()
    assert job.wait(PATIENCE) is JobState.COMPLETED
    assert len(running.lines("pending")) == 3


def test_a_creator_that_dies_is_tried_again_and_in_the_end_there_is_one_set_of_children(running: House) -> None:
    proj, path = running.proj, running.path("once")
    job = running.jobs.submit(proj.add_children_and_die_once.si(3, path, running.path("deaths")))
    assert job.wait(PATIENCE) is JobState.COMPLETED
    assert sorted(running.lines("once")) == ["child 0", "child 1", "child 2"]
    assert numbers_of(job) == {"add_children_and_die_once": 1, "append": 3}
    (line,) = history(running, job)
    assert line.startswith("deleted 3 tasks that tests.integration.proj.add_children_and_die_once [")
    running.check_completed_once(job)


def test_children_of_a_creator_that_fails_are_deleted_and_never_run(running: House) -> None:
    proj, path = running.proj, running.path("never")
    job = running.jobs.submit(chain(proj.add_children_and_fail.si(3, path), proj.append.si("behind", path)))
    assert job.wait(PATIENCE) is JobState.FAILED
    assert (job.view.reason, numbers_of(job)) == ("retries", {"add_children_and_fail": 1, "append": 1})
    lines = history(running, job)  # one for each try, or one for both
    assert sum(int(line.removeprefix("deleted ").partition(" ")[0]) for line in lines) == 12
    assert running.lines("never") == []


def test_children_add_children_and_successors_wait_for_all_of_them(running: House) -> None:
    proj, path = running.proj, running.path("levels")
    job = running.jobs.submit(chain(proj.add_levels.si(3, 2, path), proj.append.si("last", path)))
    assert job.result(PATIENCE) == "last"
    lines = running.lines("levels")
    assert Counter(lines) == {"level 3": 1, "level 2": 2, "level 1": 4, "level 0": 8, "last": 1}
    assert lines[-1] == "last"
    assert {one.sequence for one in job.tasks()} == {0, 1, 2, 3}
    running.check_completed_once(job)


def test_a_body_that_calls_its_own_task_adds_in_every_call(running: House) -> None:
    job = running.jobs.submit(running.proj.call_itself_and_add.si(3, running.path("calls")))
    assert job.wait(PATIENCE) is JobState.COMPLETED
    assert sorted(running.lines("calls")) == ["call 1", "call 2", "call 3"]


@pytest.mark.parametrize("number", [400, pytest.param(5_000, marks=pytest.mark.chaos)])
def test_one_task_adds_many(running: House, number: int) -> None:
    path = running.path(f"many {number}")
    job = running.jobs.submit(running.proj.add_children.si(number, path))
    assert job.result(10 * PATIENCE) == "creator"
    assert sorted(running.lines(f"many {number}")) == sorted(f"child {one}" for one in range(number))
    assert job.view.counts == {TaskState.COMPLETED: number + 1}


def test_what_a_task_adds_outside_of_a_job_is_refused(running: House) -> None:
    sent = running.proj.add_children.apply_async((1, running.path("none")), retries=3)
    with pytest.raises(OutsideJobError, match="No task of a job runs here"):
        sent.get(timeout=PATIENCE)


# ---- values --------------------------------------------------------------------------------------------


def test_a_task_that_expands_has_the_value_of_the_canvas(running: House) -> None:
    proj = running.proj
    sum_of_three = group(proj.add.s(one, 1) for one in range(3)) | proj.total.s()
    job = running.jobs.submit(
        chain(group(proj.expand.s(sum_of_three), proj.expand.s(proj.add.s(1, 1))), proj.total.s())
    )
    assert job.result(PATIENCE) == 6 + 2
    several = group(proj.identity.s(one) for one in range(3))
    assert running.jobs.submit(proj.expand.s(several)).result(PATIENCE) == [0, 1, 2]


def test_a_task_may_expand_into_one_that_expands(running: House) -> None:
    proj = running.proj
    job = running.jobs.submit(chain(proj.expand.s(None, None, proj.add.s(2, 3)), proj.add.s(10)))
    assert job.result(PATIENCE) == 15
    assert numbers_of(job) == {"expand": 3, "add": 2}


def test_a_task_expands_once(running: House) -> None:
    job = running.jobs.submit(running.proj.add_twice_over.si(running.path("twice")))
    assert job.result(PATIENCE) == "first"
    refused, first = running.lines("twice")
    assert refused.startswith("This task has been expanded already")
    assert first == "first"


def test_a_task_that_replaces_itself_has_the_value_of_the_canvas(running: House) -> None:
    proj = running.proj
    job = running.jobs.submit(chain(proj.replace.s(chain(proj.add.s(1, 2), proj.add.s(3))), proj.add.s(10)))
    assert job.result(PATIENCE) == 16
    assert numbers_of(job) == {"replace": 1, "add": 3}
    running.check_completed_once(job)


@pytest.mark.parametrize("values", [[], [1], [1, 2]], ids=str)
def test_callbacks_of_a_task_that_replaces_itself_get_all_values_of_a_group(running: House, values: list[int]) -> None:
    proj, path = running.proj, running.path(f"linked {len(values)}")
    several = group(proj.identity.s(one) for one in values)
    job = running.jobs.submit(proj.replace.s(several).set(link=proj.append.s(path)))
    assert job.result(PATIENCE) == values
    until(lambda: running.lines(f"linked {len(values)}") == [str(values)], timeout=PATIENCE, what="the callback")


# ---- discovery -----------------------------------------------------------------------------------------


def test_a_job_is_under_construction_while_it_discovers_its_work(running: House) -> None:
    proj, gate, doing = running.proj, running.gate("found"), running.gate("done")
    job = running.jobs.submit(chain(proj.discover.si([1, 2, 3], str(gate)), proj.hold.s(str(doing)), proj.total.s()))
    until(lambda: job.state is JobState.UNDER_CONSTRUCTION, timeout=PATIENCE, what="the job to be under construction")
    gate.open()
    doing.reached()
    until(lambda: job.state is JobState.ACTIVE, timeout=PATIENCE, what="the job to be active")
    doing.open()
    assert job.result(PATIENCE) == 6
    assert (job.view.total, job.view.outcome, job.view.discovered) == (6, "ok", 1)


def test_discovery_that_finds_nothing_makes_a_job_that_had_nothing_to_do(running: House) -> None:
    proj = running.proj
    job = running.jobs.submit(proj.discover.si([]))
    assert job.result(PATIENCE) == []
    assert (job.state, job.view.outcome) == (JobState.COMPLETED, "noop")
    job = running.jobs.submit(chain(proj.discover.si([]), proj.total.s()))
    assert (job.result(PATIENCE), job.view.outcome) == (0, "noop")


def test_a_job_whose_discovery_fails_has_failed_in_construction(running: House) -> None:
    proj = running.proj
    job = running.jobs.submit(chain(proj.discover_nothing_but_an_error.si(), proj.total.s()))
    assert job.wait(PATIENCE) is JobState.FAILED
    assert (job.view.reason, job.view.total) == ("construction", 2)
    assert "cannot be listed" in (job.view.note or "")


# ---- a worker and a tracker that are gone --------------------------------------------------------------


@on_sqlite
def test_children_of_a_worker_that_is_killed_are_deleted_and_made_anew(house: House) -> None:
    house.broker()
    tracker = house.tracker()
    first = house.worker("first")
    gate = house.gate("open")
    job = house.jobs.submit(house.proj.add_children_and_wait.si(3, house.path("lines"), str(gate)))
    gate.reached()
    until(lambda: job.view.total == 4, timeout=PATIENCE, what="the children to be known")
    first.kill()
    tracker.kill()
    house.tracker(ready=None)
    gate.open()
    house.worker("first")
    assert job.wait(PATIENCE) is JobState.COMPLETED
    assert sorted(house.lines("lines")) == ["child 0", "child 1", "child 2"]
    assert any("deleted 3 tasks" in line for line in history(house, job))
    house.check_completed_once(job)


@on_sqlite
@pytest.mark.chaos
@pytest.mark.timeout(300)
def test_an_attempt_whose_additions_the_event_log_does_not_take_is_tried_again_when_it_does(house: House) -> None:
    house.broker()
    tracker = house.tracker()
    worker = house.worker(JOBRUNNER_EVENT_LOG_LIMIT="300")  # Redis forgets about a hundred entries at a time
    gate = house.gate("open")
    # Two parts: the first may exceed the limit, which a process learns with its first batch.
    job = house.jobs.submit(house.proj.wait_and_add_children.si(250, house.path("lines"), str(gate)))
    gate.reached()
    tracker.kill()

    def full() -> bool:
        """Run one more task, whose events go into the log."""
        house.proj.identity.delay(1).get(timeout=PATIENCE)
        return "The event log is full" in worker.text

    until(full, timeout=PATIENCE, what="the event log to be full")
    gate.open()
    worker.says("EventLogFullError")
    assert house.lines("lines") == []
    house.tracker(ready=None)
    assert job.wait(2 * PATIENCE) is JobState.COMPLETED
    assert sorted(house.lines("lines")) == sorted(f"child {number}" for number in range(250))
    assert any("deleted 200 tasks" in line for line in history(house, job))
    house.check_completed_once(job)
