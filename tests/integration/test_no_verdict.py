"""Bodies that end without a verdict, in every way there is: worth another try, with a bound (A7)."""

from functools import partial

import pytest
from celery import chain, group
from sqlalchemy import select

from jobrunner.handle import Job
from jobrunner.retry_policy import MAX_ATTEMPTS
from jobrunner.states import FailureReason, JobState, TaskState
from jobrunner.store.reading import TaskView
from jobrunner.store.schema import history
from tests.house import PATIENCE, House
from tests.process import Process
from tests.waiting import until

pytestmark = [pytest.mark.nodes, pytest.mark.house_on("sqlite-redis", chaos=["postgresql-rabbitmq"])]

PROCESS_ENDS = ["sys.exit", "os._exit", "segfault", "memory"]
BODY_ENDS = ["ignore", "reject", "requeue"]


def neighbours(house: House) -> list[object]:
    return [house.proj.add.si(number, 1) for number in range(10)]


def split(job: Job, odd: int) -> tuple[list[TaskView], list[TaskView]]:
    """Wait until a job has failed, and return its first tasks, which are odd, and the others."""
    assert job.wait(PATIENCE) is JobState.FAILED
    tasks = job.tasks()
    return tasks[:odd], tasks[odd:]


def has_started(house: House, job: Job, retries: int) -> bool:
    """Whether it is known that the first task of a job has started for so many times, from 0."""
    attempts = house.attempts(job)[job.tasks()[0].id]
    return any(one.retries == retries and one.started_at for one in attempts)


def has_ended(process: Process) -> bool:
    return not process.running


@pytest.mark.parametrize(
    "policy",
    [
        "end_oddly",
        pytest.param("end_oddly_without_policy", marks=pytest.mark.chaos),  # one way of it: tests/seeds/test_arvados.py
    ],
)
def test_a_body_that_ends_without_a_verdict_is_tried_again_and_fails_when_no_retry_is_left(
    running: House, policy: str
) -> None:
    odd, path = getattr(running.proj, policy), running.path(policy)
    ends = group(*(odd.si(how, path) for how in PROCESS_ENDS + BODY_ENDS), *neighbours(running))
    job = running.jobs.submit(chain(odd.si("well", path), ends))  # so the worker is known not to be sick
    (_, *failed), others = split(job, 1 + len(PROCESS_ENDS + BODY_ENDS))
    assert {task.state for task in failed} == {TaskState.FAILED}
    assert {task.state for task in others} == {TaskState.COMPLETED}
    attempts = running.ended_attempts(job)[1:]
    assert [[one.outcome for one in ones] for ones in attempts[: len(failed)]] == [["retried", "failed"]] * len(failed)
    said = [one.exception or "" for ones in attempts[: len(PROCESS_ENDS)] for one in ones]
    assert [one for one in said if "WorkerLostError" not in one] == []
    assert [task.reason for task in failed] == [FailureReason.POISON] * len(PROCESS_ENDS) + [
        FailureReason.RETRIES
    ] * len(BODY_ENDS)
    assert "Ignore()" in (failed[len(PROCESS_ENDS)].note or "")
    assert sorted(running.lines(policy)) == sorted(["well", *(PROCESS_ENDS + BODY_ENDS) * 2])
    assert job.view.reason == FailureReason.POISON


def test_what_runs_into_its_time_limit_is_tried_again_and_fails_by_the_limit(running: House) -> None:
    proj = running.proj
    job = running.jobs.submit(group(proj.take_too_long_softly.s(), proj.take_too_long.s(), *neighbours(running)))
    (soft, hard), others = split(job, 2)
    assert {task.state for task in others} == {TaskState.COMPLETED}
    outcomes = [[one.outcome for one in ones] for ones in running.ended_attempts(job)[:2]]
    assert outcomes == [["retried", "failed"]] * 2
    assert (soft.reason, hard.reason) == (FailureReason.TIMEOUT, FailureReason.TIMEOUT)
    assert (soft.note or "").startswith("it ran into its soft time limit")
    assert (hard.note or "").startswith("it ran into its hard time limit of 1 s")


@pytest.mark.chaos  # in turns: tests/contract/test_untouched.py
def test_what_hangs_untouched_is_ended_and_tried_again_elsewhere_and_fails_when_no_retry_is_left(
    running: House,
) -> None:
    hang = running.proj.hang
    job = running.jobs.submit(group(hang.s(1), hang.s(2), *neighbours(running)))
    (well, failed), others = split(job, 2)
    assert {task.state for task in others} == {TaskState.COMPLETED}
    assert (well.state, failed.state) == (TaskState.COMPLETED, TaskState.FAILED)
    assert (failed.reason, job.view.reason) == (FailureReason.TIMEOUT, FailureReason.TIMEOUT)
    outcomes = [[(one.retries, one.outcome) for one in ones] for ones in running.ended_attempts(job)[:2]]
    assert outcomes == [[(0, "lost"), (1, "succeeded")], [(0, "lost"), (1, "lost")]]


def test_a_task_that_may_be_retried_for_ever_is_not(running: House) -> None:
    job = running.jobs.submit(running.proj.retry_for_ever.s(running.path("for-ever")))
    ((task,), _) = split(job, 1)
    assert running.lines("for-ever") == [str(number) for number in range(MAX_ATTEMPTS)]
    assert (task.reason, task.retries) == (FailureReason.RETRIES, MAX_ATTEMPTS - 1)


@pytest.mark.chaos  # in turns: tests/contract/test_recover.py
@pytest.mark.parametrize(("how", "reason"), [("SIGKILL", FailureReason.POISON), ("SIGQUIT", FailureReason.LOST)])
def test_a_body_that_ends_its_worker_is_tried_again_and_fails_when_no_retry_is_left(
    running: House, how: str, reason: FailureReason
) -> None:
    """Another worker is started after each; the one of the others knows nothing of that."""
    gate = running.path(how)
    canvas = running.proj.end_the_worker.s(how, gate).set(queue="sick")
    job = running.jobs.submit(group(canvas, *neighbours(running)))
    sick = running.worker("sick", queues="sick")
    for retries in range(2):
        until(partial(has_started, running, job, retries), timeout=PATIENCE, what=f"attempt {retries} to start")
        running.gate(f"{how}{retries}").open()
        until(partial(has_ended, sick), timeout=PATIENCE, what="the worker to end")
        sick = running.worker("sick", queues="sick")
    (odd,), others = split(job, 1)
    sick.stop()
    assert {task.state for task in others} == {TaskState.COMPLETED}
    ended = [(one.retries, one.outcome) for one in running.ended_attempts(job)[0]]
    assert [one for one in ended if one[1] != "held"] == [(0, "lost"), (1, "lost")]  # a broker may give it once more
    assert odd.reason == job.view.reason == reason
    assert "lost: " in (odd.note or "")
    with running.jobs.database.read() as connection:
        told = connection.execute(select(history).where(history.c.task_id == odd.id)).all()
    assert [(one.line, one.trigger) for one in told] == [(f"{odd.id} failed ({reason}): {odd.note}", "no retry left")]
