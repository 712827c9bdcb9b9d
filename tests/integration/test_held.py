"""What tasks of a paused job have sent: handed back by real workers, and forwarded as it was once the job goes on.

Jobs are held by hand, as an order holds them.
"""

from datetime import UTC, datetime

from jobrunner.handle import Job
from jobrunner.snapshot import Kind
from jobrunner.states import JobState, TaskState
from jobrunner.store import tracking
from jobrunner.store.schema import job as jobs
from tests.apps import read_rows
from tests.house import PATIENCE, House, on_each_broker
from tests.waiting import until

pytestmark = on_each_broker

#: As long as no message of a broker should be, in characters.
_LONG = 200_000
#: Seconds until a retry, within which everybody is told that its job is paused.
_LATER = 6


def hold(house: House, job: Job, *, paused: bool) -> None:
    """Pause a job or let it go on, and wait until all workers know."""
    with house.jobs.database.write() as connection:
        version = tracking.next_version(connection)
        if paused:
            tracking.add_entries(connection, Kind.PAUSED, [(job.id, "", None)], version, datetime.now(UTC))
        else:
            tracking.remove_entries(connection, job.id, [Kind.PAUSED])
        connection.execute(jobs.update().where(jobs.c.id == job.id).values(held=paused))

    def known() -> bool:
        with house.jobs.database.read() as connection:
            return not tracking.unacknowledged(connection, version)

    until(known, timeout=PATIENCE, what=f"all workers to know version {version}")


def held(house: House, number: int) -> None:
    """Wait until so many messages are held."""
    until(
        lambda: len(read_rows(house.jobs.database, "held_message")) == number,
        timeout=PATIENCE,
        what=f"{number} messages to be held",
    )


def test_what_a_task_has_sent_starts_once_when_its_job_goes_on_also_if_everybody_was_away(house: House) -> None:
    house.broker()
    tracker, worker = house.tracker(), house.worker(queues="first")
    append, lines = house.proj.append, house.path("lines")
    canvas = [append.si(str(number), lines).set(queue="second") for number in range(20)]
    long = house.proj.identity.si("x" * _LONG).set(queue="second")
    job = house.jobs.submit(house.proj.call.si(*canvas, long).set(queue="first"))
    until(lambda: job.view.counts.get(TaskState.COMPLETED), timeout=PATIENCE, what="the task that sends to end")
    hold(house, job, paused=True)
    second = house.worker("second", queues="second")
    held(house, 21)
    assert job.view.counts == {TaskState.COMPLETED: 1, TaskState.QUEUED: 21}
    for process in (tracker, worker, second):
        process.kill()
    house.tracker("tracker2")
    house.worker("third", queues="first,second")
    hold(house, job, paused=False)
    assert job.wait(PATIENCE) is JobState.COMPLETED
    assert sorted(house.lines("lines"), key=int) == [str(number) for number in range(20)]
    held(house, 0)
    (last,) = [task.id for task in job.tasks() if task.name == long.task]
    assert house.app.AsyncResult(last).get() == "x" * _LONG


def test_a_retry_is_held_and_is_the_same_attempt_when_its_job_goes_on(house: House) -> None:
    house.broker()
    house.tracker()
    house.worker()
    job = house.jobs.submit(house.proj.second_try.s("value", _LATER))
    until(lambda: job.view.counts.get(TaskState.SOFT_FAILED), timeout=PATIENCE, what="the task to fail")
    hold(house, job, paused=True)
    held(house, 1)
    hold(house, job, paused=False)
    assert job.result(PATIENCE) == "value"
    (task,) = job.tasks()
    assert (task.delivery, task.retries) == (1, 1)
