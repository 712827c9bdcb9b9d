"""What tasks of a job send by Celery's own means: part of the job, on real worker processes."""

from contextlib import suppress

from celery import chain, chord, group

from jobrunner.errors import NotFoundError
from jobrunner.handle import Job
from jobrunner.states import FailureReason, JobState, TaskState
from tests.house import PATIENCE, House, on_sqlite
from tests.waiting import until

pytestmark = on_sqlite


def ended(house: House, job: Job) -> JobState:
    """Wait for the end of a job, see that it was its only one, and return how it ended."""
    job.wait(PATIENCE)
    log = house.home.joinpath("tracker.log").read_text()
    ends = [log.count(f"Job {job.id} is {state}.") for state in ("completed", "failed")]
    assert sum(ends) == 1
    return job.state


def family(job: Job) -> dict[str, list[str]]:
    """Return the names of a job's tasks, each under its creator's; and see to their sequence."""
    tasks = {one.id: one for one in job.tasks()}
    found: dict[str, list[str]] = {}
    for one in tasks.values():
        creator = tasks[one.created_by] if one.created_by else None
        assert one.sequence == (creator.sequence + 1 if creator else 0)
        found.setdefault(_short(creator.name) if creator else "", []).append(_short(one.name))
    return {name: sorted(names) for name, names in found.items()}


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def test_subtasks_and_theirs_are_part_of_the_job(running: House) -> None:
    proj = running.proj
    job = running.jobs.submit(proj.call.si(proj.call.si(proj.add.si(1, 2)), proj.identity.si(3)))
    assert ended(running, job) is JobState.COMPLETED
    assert family(job) == {"": ["call"], "call": ["add", "call", "identity"]}
    assert job.view.counts == {TaskState.COMPLETED: 4}
    assert len(job.result(PATIENCE)) == 2


def test_a_subtask_may_be_sent_by_its_name(running: House) -> None:
    job = running.jobs.submit(running.proj.call_by_name.si(running.proj.add.name, 1, 2))
    assert ended(running, job) is JobState.COMPLETED
    assert family(job) == {"": ["call_by_name"], "call_by_name": ["add"]}


def test_a_whole_canvas_may_be_sent_from_a_body(running: House) -> None:
    add, total = running.proj.add, running.proj.total
    canvas = chord([add.si(1, 2), chain(add.si(1, 1), add.s(3)), add.si(4, 5)], total.s())
    job = running.jobs.submit(running.proj.call.si(canvas, group(add.si(n, n) for n in range(20))))
    assert ended(running, job) is JobState.COMPLETED
    assert job.view.counts == {TaskState.COMPLETED: 1 + 5 + 20}


def test_link_is_part_of_the_job(running: House) -> None:
    add, append = running.proj.add, running.proj.append
    job = running.jobs.submit(running.proj.call.si(add.si(1, 2).set(link=append.s(running.path("linked")))))
    assert ended(running, job) is JobState.COMPLETED
    assert family(job) == {"": ["call"], "call": ["add"], "add": ["append"]}
    assert running.lines("linked") == ["3"]


def test_links_that_are_submitted_are_adopted_when_celery_sends_them(running: House) -> None:
    add, identity = running.proj.add, running.proj.identity
    job = running.jobs.submit(chain(add.si(1, 2).set(link=identity.s()), add.s(3).set(link_error=identity.s())))
    assert ended(running, job) is JobState.COMPLETED
    assert job.result(PATIENCE) == 6
    assert sorted((one.sequence, _short(one.name)) for one in job.tasks()) == [(0, "add"), (1, "add"), (1, "identity")]
    failing = running.jobs.submit(chain(running.proj.fail.si("no").set(link_error=identity.s()), add.si(1, 2)))
    assert ended(running, failing) is JobState.FAILED
    assert failing.view.counts == {TaskState.FAILED: 1, TaskState.CANCELED: 1, TaskState.COMPLETED: 1}


def test_link_error_is_known_before_the_failure_that_it_is_for(running: House) -> None:
    """Sent by the process that has failed; and by the main process if the other has died."""
    proj = running.proj
    for fails in (proj.fail.si("no"), proj.die.si()):
        job = running.jobs.submit(proj.call.si(fails.set(link_error=proj.identity.s())))
        assert ended(running, job) is JobState.FAILED
        name = _short(fails.task)
        assert family(job) == {"": ["call"], "call": [name], name: ["identity"]}
        assert job.view.counts == {TaskState.COMPLETED: 2, TaskState.FAILED: 1}
        assert (job.view.note or "").startswith(fails.task)


def test_what_each_try_of_a_task_has_sent_is_part_of_the_job(running: House) -> None:
    proj = running.proj
    job = running.jobs.submit(proj.call_and_fail.si(1, running.path("tries"), proj.add.si(1, 2)))
    assert ended(running, job) is JobState.COMPLETED
    assert family(job) == {"": ["call_and_fail"], "call_and_fail": ["add", "add"]}


def test_an_adopted_task_may_be_tried_again(running: House) -> None:
    proj = running.proj
    job = running.jobs.submit(proj.call.si(proj.fail_times.si(1, 2, running.path("again"))))
    assert ended(running, job) is JobState.COMPLETED
    assert job.view.total == 2


def test_the_job_waits_for_what_no_worker_has_received_yet(running: House) -> None:
    """It is known from its sender alone."""
    proj = running.proj
    job = running.jobs.submit(proj.call.si(proj.on_its_own_queue.si(1)))
    until(lambda: job.view.counts.get(TaskState.COMPLETED), timeout=PATIENCE, what="the creator to end")
    assert (job.state, job.view.counts) == (JobState.ACTIVE, {TaskState.COMPLETED: 1, TaskState.QUEUED: 1})
    running.worker("own", queues="own")
    assert ended(running, job) is JobState.COMPLETED


def test_outside_of_jobs_only_what_the_app_wants_is_told(running: House) -> None:
    sent = running.proj.call.apply_async((running.proj.add.si(1, 2),))
    job = running.jobs.get(sent.id)

    def seen() -> bool:
        with suppress(NotFoundError):
            return job.view.counts == {TaskState.COMPLETED: 2}
        return False

    until(seen, timeout=PATIENCE, what="both tasks to be observed")
    assert job.view.observed
    assert {one.queue for one in job.tasks()} == {""}  # which `task-sent` alone would tell


def test_what_a_lost_worker_had_started_fails_the_job_and_says_why(house: House) -> None:
    house.broker()
    house.tracker()
    worker, gate = house.worker(), house.gate("gate")
    job = house.jobs.submit(house.proj.call.si(house.proj.hold.si(1, str(gate))))
    gate.reached()
    until(lambda: job.view.counts == {TaskState.COMPLETED: 1, TaskState.ACTIVE: 1}, timeout=PATIENCE, what="the start")
    worker.kill()
    house.worker()  # another process of the same name: the first is gone
    assert job.wait(PATIENCE) is JobState.FAILED
    assert job.view.reason == FailureReason.LOST
    assert "worker worker@house was lost while it ran this task" in (job.view.note or "")
