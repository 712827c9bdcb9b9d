"""Jobs from end to end: real broker, real tracker, real worker processes, nobody killed."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

import pytest
from celery import Signature, chain, chord, group

from jobrunner.errors import JobFailedError, NotFoundError, WaitTimeoutError
from jobrunner.handle import Job
from jobrunner.states import JobState, TaskState
from tests.house import PATIENCE, Gate, House
from tests.waiting import until

Canvas = Callable[[ModuleType], Signature]

#: Canvases and their values, some of which bare Celery 5.7 gets wrong.
VALUES: dict[str, tuple[Canvas, Any]] = {
    "a single task": (lambda p: p.add.s(1, 2), 3),
    "a chain": (lambda p: chain(p.add.s(1, 2), p.add.s(3), p.add.s(4)), 10),
    "a group": (lambda p: group(p.add.s(i, i) for i in range(5)), [0, 2, 4, 6, 8]),
    "a chord": (lambda p: chord([p.add.s(i, i) for i in range(5)], p.total.s()), 20),
    "a group of one": (lambda p: group([p.add.s(1, 2)]), [3]),
    "a chord over one": (lambda p: chord([p.add.s(1, 2)], p.identity.s()), [3]),
    "a group in a group": (lambda p: group(p.add.s(0, 1), group(p.add.s(0, 2), p.add.s(0, 3)), p.add.s(0, 4)),
                           [1, [2, 3], 4]),
    "a chain in a group in a chain": (lambda p: chain(p.add.s(1, 1),
                                                      group(p.add.s(1), chain(p.add.s(2), p.add.s(3))), p.total.s()),
                                      10),
    "a chord in a chord": (lambda p: chord([chord([p.add.s(1, 1), p.add.s(2, 2)], p.total.s()), p.add.s(0, 1)],
                                           p.identity.s()), [6, 1]),
    "a chord whose body is a chain": (lambda p: chord([p.add.s(1, 1), p.add.s(2, 2)], chain(p.total.s(), p.add.s(1))),
                                      7),
    "a chord whose body is a group": (lambda p: chord([p.add.s(1, 1), p.add.s(2, 2)], group(p.total.s(),
                                                                                           p.identity.s())),
                                      [6, [2, 4]]),
    "groups one after another": (lambda p: chain(group(p.add.s(0, 1), p.add.s(0, 2)), group(p.total.s(), p.total.s()),
                                                 p.identity.s()), [3, 3]),
    "map, starmap and chunks": (lambda p: group(p.identity.map([1, 2]), p.add.starmap([(1, 2), (3, 4)]),
                                                p.add.chunks([(i, i) for i in range(4)], 2)),
                                [[1, 2], [3, 7], [[0, 2], [4, 6]]]),
    "an immutable signature": (lambda p: chain(p.add.s(1, 2), p.add.si(5, 6)), 11),
    "an immutable body": (lambda p: chord([p.add.s(1, 2)], p.add.si(5, 6)), 11),
    "a chord over nothing": (lambda p: chord([], p.identity.s()), []),
    "a chord over nothing in a chain": (lambda p: chain(p.add.s(1, 2), chord([], p.total.s()), p.add.s(1)), 1),
    "an empty group in a group": (lambda p: group(p.add.s(1, 2), group([])), [3, []]),
    "a value of None": (lambda p: chain(p.identity.s(None), p.identity.s()), None),
    "a task that calls itself": (lambda p: chain(p.identity.s(5), p.factorial.s()), 120),
    "a large value": (lambda p: chain(p.large.s(1_000_000), p.identity.s()), "x" * 1_000_000),
}  # fmt: skip

#: Canvases that bare Celery 5.7 gets right.
LIKE_CELERY: dict[str, Canvas] = {
    "a chain": lambda p: chain(p.add.s(1, 2), p.add.s(3), p.identity.s()),
    "a group": lambda p: group(p.identity.s(i) for i in "abc"),
    "a group of one": lambda p: group([p.add.s(1, 2)]),
    "a chord": lambda p: chord([p.identity.s(i) for i in range(7)], p.identity.s()),
    "a chord over one": lambda p: chord([p.add.s(1, 2)], p.identity.s()),
    "a chain before a group": lambda p: chain(p.identity.s(1), group(p.add.s(1), p.add.s(2))),
    "a chain around a group": lambda p: chain(p.identity.s(1), group(p.add.s(1), p.add.s(2)), p.identity.s()),
    "chains in a chord": lambda p: chord([chain(p.add.s(i, 1), p.add.s(i)) for i in range(4)], p.identity.s()),
    "keyword arguments": lambda p: chain(p.add.s(x=1, y=2), p.add.s(y=3)),
    "a frozen argument": lambda p: chain(p.add.s(1, 2), p.identity.si("other"), p.identity.s()),
    "map": lambda p: p.identity.map([3, 1, 2]),
    "starmap": lambda p: p.add.starmap([(1, 2), (3, 4)]),
    "chunks": lambda p: p.add.chunks([(i, i) for i in range(5)], 2),
}  # fmt: skip


@pytest.fixture
def gate(running: House, request: pytest.FixtureRequest) -> Iterator[Gate]:
    """Return a gate that opens in the end, so that no task waits for a test that failed."""
    gate = running.gate(f"{request.node.name}.open")
    yield gate
    gate.open()


def states(job: Job) -> list[str]:
    return [str(task.state) for task in job.tasks()]


# ------------------------------------------------------------------------------------------------------------ values


@pytest.mark.parametrize(("canvas", "value"), VALUES.values(), ids=VALUES)
def test_a_job_has_the_value_of_its_canvas(running: House, canvas: Canvas, value: object) -> None:
    job = running.jobs.submit(canvas(running.proj))
    assert job.result(PATIENCE) == value
    assert job.state is JobState.COMPLETED
    assert set(states(job)) <= {"completed"}
    assert all(task.delivery == 1 for task in job.tasks())


@pytest.mark.parametrize("canvas", LIKE_CELERY.values(), ids=LIKE_CELERY)
def test_a_job_has_the_value_that_celery_yields_for_the_same_canvas(running: House, canvas: Canvas) -> None:
    theirs = canvas(running.proj).apply_async().get(timeout=PATIENCE)
    assert running.jobs.submit(canvas(running.proj)).result(PATIENCE) == theirs


def test_an_empty_group_alone_is_a_job_that_completes_with_an_empty_list(running: House) -> None:
    job = running.jobs.submit(group([]))
    assert job.wait(PATIENCE) is JobState.COMPLETED
    assert job.result(PATIENCE) == []
    assert job.tasks() == []


def test_a_join_takes_more_inputs_than_fit_into_a_message(running: House) -> None:
    proj = running.proj
    job = running.jobs.submit(chord([proj.identity.s(i) for i in range(250)], proj.identity.s()))
    assert job.result(PATIENCE) == list(range(250))


def test_a_retry_still_has_its_long_list_of_inputs(running: House) -> None:
    proj = running.proj
    retrying = proj.fail_times.s(1, running.path("long-list"))
    job = running.jobs.submit(chord([proj.identity.s(i) for i in range(150)], retrying))
    assert job.result(PATIENCE) == list(range(150))


def test_every_task_of_a_job_has_the_job_as_its_root(running: House) -> None:
    who = running.proj.who_am_i
    job = running.jobs.submit(group(who.si(), chain(who.si(), who.si())))
    job.wait(PATIENCE)
    assert {attempt.celery_id for ones in running.attempts(job).values() for attempt in ones} == {
        task.id for task in job.tasks()
    }
    assert {one["root_id"] for one in job.result()} == {job.id}
    assert [one["id"] for one in job.result()] == [job.tasks()[0].id, job.tasks()[2].id]


# ---------------------------------------------------------------------------------------------------------- failures


def test_a_failure_in_a_chain_fails_the_job_and_cancels_what_comes_after(running: House) -> None:
    proj = running.proj
    job = running.jobs.submit(chain(proj.identity.s("no luck"), proj.fail.s(), proj.identity.s(), proj.identity.s()))
    assert job.wait(PATIENCE) is JobState.FAILED
    assert states(job) == ["completed", "failed", "canceled", "canceled"]
    _, failed, *canceled = job.tasks()
    assert failed.exception == "ValueError('no luck')"
    assert "raise ValueError(message)" in (failed.traceback or "")
    for task in canceled:
        assert task.note == f"upstream: {failed.name} [{failed.id}] failed"
        assert task.sent_at is None
    assert job.view.reason == "task"
    assert job.view.note == f"{failed.name} [{failed.id}] failed: ValueError('no luck')"


def test_a_failure_in_one_branch_lets_independent_branches_go_on(running: House, gate: Gate) -> None:
    proj = running.proj
    broken = chain(proj.fail.si("broken"), proj.identity.s())
    sound = chain(proj.hold.si(1, str(gate)), proj.add.s(1), proj.add.s(1))
    job = running.jobs.submit(chord([broken, sound], proj.identity.s()))
    until(lambda: TaskState.FAILED in job.progress.counts, timeout=PATIENCE, what="the broken branch to fail")
    gate.open()
    assert job.wait(PATIENCE) is JobState.FAILED
    assert states(job) == ["failed", "canceled", "completed", "completed", "completed", "canceled"]


def test_the_result_of_a_failed_job_raises_what_failed_and_where_to_look(running: House) -> None:
    job = running.jobs.submit(running.proj.fail.s("no luck"))
    with pytest.raises(JobFailedError, match=rf"failed: .*no luck.*jobrunner tasks {job.id}"):
        job.result(PATIENCE)


def test_a_task_that_fails_and_then_succeeds_keeps_both_attempts(running: House) -> None:
    job = running.jobs.submit(running.proj.fail_times.s("value", 2, running.path("twice")))
    assert job.result(PATIENCE) == "value"
    (attempts,) = running.ended_attempts(job)
    assert [(one.delivery, one.retries, one.outcome) for one in attempts] == [
        (1, 0, "retried"),
        (1, 1, "retried"),
        (1, 2, "succeeded"),
    ]
    assert [one.exception for one in attempts] == ["ValueError('try 1')", "ValueError('try 2')", None]
    assert all(one.worker == "worker@house" and one.started_at and one.ended_at for one in attempts)


def test_a_task_that_waits_for_its_retry_is_soft_failed(running: House) -> None:
    """Its worker has the retry already, and holds it for longer than this test takes."""
    job = running.jobs.submit(running.proj.fail_and_wait.s(600))
    until(lambda: job.tasks()[0].retries == 1, timeout=PATIENCE, what="the worker to have received the retry")
    until(lambda: job.tasks()[0].note, timeout=PATIENCE, what="the failure to be known")
    (task,) = job.tasks()
    assert (task.state, task.note) == (TaskState.SOFT_FAILED, "ValueError('not now')")
    assert job.state is JobState.ACTIVE


def test_a_retry_of_a_task_that_takes_an_input_takes_it_again(running: House) -> None:
    proj = running.proj
    job = running.jobs.submit(chain(proj.add.s(1, 2), proj.fail_times.s(2, running.path("input")), proj.add.s(4)))
    assert job.result(PATIENCE) == 7
    assert running.lines("input") == ["3", "3", "3"]


def test_a_retry_that_runs_at_once_elsewhere_does_not_lose_its_value(running: House) -> None:
    """One after the other, so that a process is always idle: the retry has often ended before RETRY would be stored."""
    retry = running.proj.fail_times
    job = running.jobs.submit(chain(retry.s("value", 1, running.path("first")),
                                    *(retry.s(1, running.path(f"later-{i}")) for i in range(15))))  # fmt: skip
    assert job.result(PATIENCE) == "value"


def test_a_task_whose_retries_are_used_up_fails(running: House) -> None:
    job = running.jobs.submit(running.proj.fail_times.s("value", 99, running.path("used-up")))
    assert job.wait(PATIENCE) is JobState.FAILED
    (attempts,) = running.ended_attempts(job)
    assert [one.outcome for one in attempts] == ["retried", "retried", "retried", "failed"]
    assert len(running.lines("used-up")) == 4
    assert job.tasks()[0].retries == 3


def test_a_task_that_kills_its_own_process_once_runs_again(running: House) -> None:
    proj = running.proj
    job = running.jobs.submit(chain(proj.identity.s("value"), proj.die_once.s(running.path("dead")), proj.identity.s()))
    assert job.result(PATIENCE) == "value"
    assert running.lines("dead") == ["value", "value"]
    assert [task.retries for task in job.tasks()] == [0, 1, 0]


# ----------------------------------------------------------------------------------------------- queues, time, revoke


def test_a_task_runs_on_its_own_queue(running: House) -> None:
    proj = running.proj
    job = running.jobs.submit(chain(proj.identity.s("value"), proj.on_its_own_queue.s(), proj.identity.s()))
    until(lambda: states(job)[:2] == ["completed", "queued"], timeout=PATIENCE, what="the task to be sent")
    assert job.tasks()[1].queue == "own"
    other = running.worker("other", queues="own")
    assert job.result(PATIENCE) == "value"
    assert [task.worker for task in job.tasks()] == ["worker@house", "other@house", "worker@house"]
    other.stop()


def test_a_countdown_counts_from_when_the_task_could_run(running: House) -> None:
    proj = running.proj
    job = running.jobs.submit(chain(proj.identity.s(1), proj.identity.s().set(countdown=1)))
    assert job.result(PATIENCE) == 1
    first, second = job.tasks()
    assert first.ended_at is not None
    assert second.started_at is not None
    assert second.started_at - first.ended_at >= timedelta(seconds=1)


def test_a_task_with_an_eta_does_not_start_before(running: House) -> None:
    eta = datetime.now(UTC) + timedelta(seconds=1)
    job = running.jobs.submit(running.proj.identity.s(1).set(eta=eta))
    assert job.result(PATIENCE) == 1
    assert job.tasks()[0].started_at >= eta


def test_a_task_that_expires_before_it_starts_is_canceled(running: House, gate: Gate) -> None:
    proj = running.proj
    holding = running.jobs.submit(group(proj.hold.s(i, str(gate)) for i in range(2)))
    gate.reached(2)
    moment = datetime.now(UTC) + timedelta(seconds=0.5)
    job = running.jobs.submit(chain(proj.identity.s(1).set(expires=moment), proj.identity.s()))
    until(lambda: datetime.now(UTC) > moment, what="the task to expire")
    gate.open()
    assert job.wait(PATIENCE) is JobState.CANCELED
    assert [(task.state, task.note) for task in job.tasks()] == [
        (TaskState.CANCELED, "expired"),
        (TaskState.CANCELED, "upstream: a task before it was canceled"),
    ]
    assert holding.wait(PATIENCE) is JobState.COMPLETED


def test_a_waiting_task_that_is_revoked_is_canceled_and_the_rest_goes_on(running: House, gate: Gate) -> None:
    proj = running.proj
    holding = running.jobs.submit(group(proj.hold.s(i, str(gate)) for i in range(2)))
    gate.reached(2)
    job = running.jobs.submit(group(proj.identity.s(1), chain(proj.identity.s(2), proj.identity.s())))
    until(lambda: job.state is JobState.QUEUED and job.tasks()[1].sent_at, timeout=PATIENCE, what="it to be sent")
    answer = running.app.control.revoke(job.tasks()[1].celery_id, reply=True, timeout=PATIENCE, limit=1)
    assert "ok" in next(iter(answer[0].values()))
    gate.open()
    assert job.wait(PATIENCE) is JobState.CANCELED
    assert states(job) == ["completed", "canceled", "canceled"]
    assert job.tasks()[1].note == "revoked"
    assert holding.wait(PATIENCE) is JobState.COMPLETED


# -------------------------------------------------------------------------------------------------------- the handle


def test_a_handle_tells_progress_tasks_and_state_while_the_job_runs(running: House, gate: Gate) -> None:
    proj = running.proj
    job = running.jobs.submit(chain(group(proj.identity.s(1), proj.hold.s(2, str(gate))), proj.total.s()))
    gate.reached()
    until(lambda: job.progress.done == 1 and "active" in states(job), timeout=PATIENCE, what="one of two to be done")
    assert job.progress.total == 3
    assert job.progress.counts == {TaskState.COMPLETED: 1, TaskState.ACTIVE: 1, TaskState.PENDING: 1}
    assert [(task.sequence, str(task.state)) for task in job.tasks()] == [
        (0, "completed"),
        (0, "active"),
        (1, "pending"),
    ]
    assert job.state is JobState.ACTIVE
    with pytest.raises(WaitTimeoutError, match=r"still active after 0\.1 s"):
        job.wait(0.1)
    with pytest.raises(WaitTimeoutError):
        job.result(0.1)
    gate.open()
    assert job.result(PATIENCE) == 3
    assert job.progress.done == job.progress.total == 3


def test_a_handle_made_anew_from_the_id_is_the_same_job(running: House) -> None:
    job = running.jobs.submit(running.proj.add.s(1, 2))
    assert running.jobs.get(job.id).result(PATIENCE) == 3


def test_the_handle_of_an_unknown_id_says_so_when_it_is_asked(running: House) -> None:
    with pytest.raises(NotFoundError, match="no job nobody"):
        running.jobs.get("nobody").wait(1)


# ------------------------------------------------------------------------------------------- Celery as everybody has it


def test_monitors_of_celery_still_see_every_event_of_a_job(running: House) -> None:
    add, fail = running.proj.add, running.proj.fail
    job, events = running.events_of(chain(add.s(1, 2), fail.s()), 8)
    types = {task.name: [event["type"] for event in events if event["uuid"] == task.id] for task in job.tasks()}
    for told in types.values():
        told.remove("task-sent")  # told by the tracker: it may come after what the worker tells
    assert types == {
        add.name: ["task-received", "task-started", "task-succeeded"],
        fail.name: ["task-received", "task-started", "task-failed"],
    }


def test_tasks_sent_without_a_job_run_as_ever_and_do_not_disturb_the_tracker(running: House) -> None:
    proj = running.proj
    bare = [proj.add.apply_async((i, i)) for i in range(20)]
    failing = proj.fail.apply_async(("as it should",))
    job = running.jobs.submit(chord([proj.identity.s(i) for i in range(20)], proj.total.s()))
    assert [one.get(timeout=PATIENCE) for one in bare] == [2 * i for i in range(20)]
    with pytest.raises(ValueError, match="as it should"):
        failing.get(timeout=PATIENCE)
    assert job.result(PATIENCE) == 190
    assert proj.fail_times.delay("value", 1, running.path("bare")).get(timeout=PATIENCE) == "value"
    assert running.tracker_holder() is not None
