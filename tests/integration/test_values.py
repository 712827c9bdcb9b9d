"""Values lie in the result backend as long as their job can use them; what happens to one that is lost all the same."""

from collections import Counter

import pytest
from celery import chain, group
from sqlalchemy import select

from jobrunner.errors import JobFailedError, ValueLostError
from jobrunner.handle import Job
from jobrunner.states import JobState
from jobrunner.store.schema import history
from tests.house import PATIENCE, PROJ, House, on_sqlite
from tests.waiting import until

pytestmark = on_sqlite

#: Celery's own expiry in these houses, in seconds.
EXPIRES = "3"
#: More than a message's header names.
MANY = 110


@pytest.fixture
def brief(house: House) -> House:
    """A house in which results expire soon."""
    house.environment |= {"PROJ_RESULT_EXPIRES": EXPIRES, "JOBRUNNER_APP": PROJ}
    house.broker()
    house.tracker()
    return house


def key(celery_id: str) -> str:
    return f"celery-task-meta-{celery_id}"


def lives(house: House, *keys: str) -> set[int]:
    """Return for how many seconds these keys live: -1 for ever, -2 not any more."""
    with house.redis() as redis:
        return {redis.ttl(one) for one in keys}


def lose(house: House, *task_ids: str) -> None:
    with house.redis() as redis:
        assert redis.delete(*map(key, task_ids)) == len(task_ids)


def reason(job: Job) -> tuple[JobState, str | None]:
    return job.view.state, job.view.reason


def told(house: House, job: Job) -> list[str]:
    with house.jobs.database.read() as connection:
        return list(
            connection.execute(
                select(history.c.line).where(history.c.job_id == job.id, history.c.new.is_(None))
            ).scalars()
        )


def test_a_job_that_is_held_up_beyond_the_expiry_of_results_goes_on_and_runs_nothing_again(brief: House) -> None:
    proj = brief.proj
    worker = brief.worker()
    header = [proj.step.s(number, str(number), brief.path("lines")) for number in range(MANY)]
    job = brief.jobs.submit(group(header) | proj.total.s().set(queue="own"))
    until(lambda: job.tasks()[-1].sent_at, timeout=PATIENCE, what="all of the header to end")
    outside = brief.app.send_task(f"{PROJ}.add", (1, 2))
    until(lambda: 0 <= min(lives(brief, key(outside.id))) <= int(EXPIRES), what="a result outside of jobs to expire")
    worker.stop()
    tasks = job.tasks()
    values = [key(task.id) for task in tasks[:-1]]
    inputs = f"jobrunner-inputs-{tasks[-1].id}"
    until(lambda: lives(brief, key(outside.id)) == {-2}, what="a result outside of jobs to be gone")
    assert lives(brief, *values, inputs) == {-1}

    brief.worker(queues="celery,own")
    assert job.result(PATIENCE) == sum(range(1, MANY + 1))
    assert set(Counter(brief.lines("lines")).values()) == {1}
    brief.check_completed_once(job)
    until(lambda: lives(brief, *values, inputs, key(tasks[-1].id)) == {-2}, what="the values of the job to be gone")
    with pytest.raises(ValueLostError, match=r"tests.integration.proj.total \[.*result_expires"):
        job.result()


def test_a_lost_value_fails_its_consumer_which_names_the_producer(brief: House) -> None:
    proj = brief.proj
    brief.worker()
    job = brief.jobs.submit(group(proj.identity.s(1), proj.hold.s(2, str(gate := brief.gate("gate")))) | proj.total.s())
    gate.reached()
    producer, _, consumer = until(lambda: job.progress.done == 1 and job.tasks(), timeout=PATIENCE, what="a value")
    lose(brief, producer.id)
    gate.open()
    with pytest.raises(JobFailedError):
        job.result(PATIENCE)
    assert reason(job) == (JobState.FAILED, "input-lost")
    assert job.view.note == (
        f"{consumer.name} [{consumer.id}] failed: the value of {producer.name} [{producer.id}] is no longer in the"
        f" result backend, and that task is not replayable. `jobrunner requeue --all {job.id}` makes it anew; a task"
        " declared with @jobs.task(replayable=True) is run again by the tracker."
    )
    assert [task.delivery for task in job.tasks()] == [1, 1, 1]


def test_replayable_producers_of_lost_values_run_again_and_the_job_ends_right(brief: House) -> None:
    proj, path = brief.proj, brief.path("lines")
    brief.worker()
    gate = brief.gate("gate")
    first = chain(proj.again.s(1, path), proj.again.s(path))
    job = brief.jobs.submit(group(first, proj.hold.s(2, str(gate)), proj.again.s(3, path)) | proj.total.s())
    gate.reached()
    one, two, held, three, _ = until(lambda: job.progress.done == 3 and job.tasks(), timeout=PATIENCE, what="values")
    lose(brief, one.id, two.id, three.id)  # of the first nobody is told before its successor runs again
    gate.open()
    assert job.result(PATIENCE) == 6
    assert {task.id: task.delivery for task in job.tasks()} == {
        one.id: 2, two.id: 3, held.id: 1, three.id: 2, job.tasks()[-1].id: 2
    }  # fmt: skip
    brief.check_completed_once(job)
    assert Counter(brief.lines("lines")) == {"1": 4, "3": 2}
    assert [line.split(":")[0] for line in told(brief, job)] == ["ran again"] * 3
    assert brief.ask("db", "check").code == 0
