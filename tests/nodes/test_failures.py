"""Every node of a house is killed, stopped or restarted while a job runs; the job ends right."""

from pathlib import Path

import pytest
from celery import Celery, Signature, chain, chord
from pytest_celery import (
    CELERY_RABBITMQ_BROKER,
    CELERY_REDIS_BROKER,
    CeleryTestSetup,
    CeleryTestWorker,
    CeleryWorkerCluster,
    CeleryWorkerContainer,
)

from jobrunner import JobRunner
from jobrunner.handle import Job
from jobrunner.states import JobState, TaskState
from tests.house import Gate
from tests.nodes import tasks
from tests.servers.postgres import Postgres
from tests.servers.server import Program
from tests.waiting import PATIENCE, until

pytestmark = [pytest.mark.nodes, pytest.mark.usefixtures("bound_workers")]

on_redis = pytest.mark.parametrize("celery_broker", [CELERY_REDIS_BROKER], indirect=True)
on_rabbitmq = pytest.mark.parametrize("celery_broker", [CELERY_RABBITMQ_BROKER], indirect=True)

TASKS = 20
#: What a tracker runs first that takes a worker for lost sooner: the shortest time in which a sound one is heard.
IMPATIENT = "from tracker import roster\nroster.SILENCE = 8.0"


def lines_at(gate: Gate) -> Path:
    return gate.path.with_name("lines")


def held(gate: Gate) -> Signature:
    """Return tasks that wait at a gate, each followed by one that leaves a line, and a join."""
    path = lines_at(gate)
    return chord(
        [chain(tasks.hold.s(number, str(gate)), tasks.note.s(str(path))) for number in range(TASKS)], tasks.total.s()
    )


def check_completed(job: Job, gate: Gate) -> None:
    assert job.result(PATIENCE) == sum(range(TASKS))
    assert job.progress.counts == {TaskState.COMPLETED: 2 * TASKS + 1}
    assert set(lines_at(gate).read_text().split()) == {str(number) for number in range(TASKS)}


def until_active(job: Job, number: int = 2) -> None:
    until(lambda: job.progress.counts.get(TaskState.ACTIVE) == number, timeout=PATIENCE, what=f"{number} tasks to run")


def test_a_worker_killed_in_a_task_and_restarted_runs_it_again(
    celery_setup: CeleryTestSetup, jobs: JobRunner, tracker: Program, gate: Gate
) -> None:
    job = jobs.submit(held(gate))
    gate.reached(2)
    until_active(job)
    celery_setup.worker.kill()
    assert celery_setup.worker.container.status == "exited"
    gate.open()
    celery_setup.worker.restart()
    check_completed(job, gate)
    assert tracker.running
    assert any(task.delivery == 2 for task in job.tasks())


@on_redis
def test_a_worker_stopped_warmly_ends_its_tasks_and_gives_back_the_rest(
    celery_setup: CeleryTestSetup, jobs: JobRunner, tracker: Program, gate: Gate
) -> None:
    job = jobs.submit(held(gate))
    gate.reached(2)
    until_active(job)
    celery_setup.worker.kill("SIGTERM")
    celery_setup.worker.assert_log_exists("Warm shutdown")
    gate.open()
    process = celery_setup.worker.container.service.process
    until(lambda: not process.running, timeout=PATIENCE, what="the worker to end")
    assert process.popen.returncode == 0
    celery_setup.worker.restart()
    check_completed(job, gate)
    assert tracker.running
    assert all(task.retries == 0 for task in job.tasks())


def test_a_job_submitted_while_the_broker_is_dead_runs_when_it_is_back(
    celery_setup: CeleryTestSetup, jobs: JobRunner, tracker: Program, gate: Gate
) -> None:
    assert jobs.submit(tasks.total.s([1, 2])).result(PATIENCE) == 3
    celery_setup.broker.kill()
    gate.open()
    job = jobs.submit(held(gate))
    assert job.state is JobState.QUEUED
    celery_setup.broker.restart()
    check_completed(job, gate)
    assert tracker.running
    assert celery_setup.worker.container.status == "running"


@on_redis
def test_a_standby_takes_over_when_the_tracker_is_killed(
    jobs: JobRunner, tracker: Program, standby: Program, gate: Gate
) -> None:
    job = jobs.submit(held(gate))
    gate.reached(2)
    tracker.kill()
    gate.open()
    standby.process.says("Tracking;")
    check_completed(job, gate)


@on_rabbitmq
def test_a_tracker_restarted_in_the_middle_of_a_job_sends_nothing_twice(
    jobs: JobRunner, tracker: Program, gate: Gate
) -> None:
    job = jobs.submit(held(gate))
    gate.reached(2)
    tracker.restart()
    gate.open()
    check_completed(job, gate)
    assert all(task.delivery == 1 for task in job.tasks())
    assert len(lines_at(gate).read_text().split()) == TASKS


@on_rabbitmq
def test_a_database_stopped_and_restarted_under_a_job_loses_nothing(
    celery_setup: CeleryTestSetup, jobs: JobRunner, tracker: Program, postgres: Postgres, gate: Gate
) -> None:
    job = jobs.submit(held(gate))
    gate.reached(2)
    postgres.stop()
    gate.open()
    until(lambda: "succeeded" in celery_setup.worker.logs(), timeout=PATIENCE, what="tasks to end meanwhile")
    postgres.start()
    check_completed(job, gate)
    assert tracker.running


class TestTwoWorkers:
    """A house with two workers, one of which is killed and does not come back."""

    @pytest.fixture
    def celery_worker_cluster(
        self,
        celery_worker: CeleryTestWorker,
        default_worker_cls: type[CeleryTestWorker],
        other_worker_container: CeleryWorkerContainer,
        default_worker_app: Celery,
    ) -> CeleryWorkerCluster:
        other = default_worker_cls(container=other_worker_container, app=default_worker_app)
        return CeleryWorkerCluster(celery_worker, other)

    @on_rabbitmq
    @pytest.mark.parametrize("tracker", [IMPATIENT], ids=["impatient"], indirect=True)
    def test_the_other_worker_finishes_what_the_killed_one_had(
        self, celery_setup: CeleryTestSetup, jobs: JobRunner, tracker: Program, gate: Gate
    ) -> None:
        job = jobs.submit(held(gate))
        gate.reached(4)
        until_active(job, 4)
        killed, other = celery_setup.worker_cluster
        killed.kill()
        gate.open()
        check_completed(job, gate)
        assert tracker.running
        assert {task.worker for task in job.tasks()} == {other.hostname()}
