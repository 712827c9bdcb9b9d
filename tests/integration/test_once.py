"""No task starts twice, whatever the broker gives out again and whoever dies while sending; bare Celery beside it."""

import json
import sys
from collections import Counter

import pytest
from celery import Celery, group
from sqlalchemy import update

from jobrunner.handle import Job
from jobrunner.states import JobState, TaskState
from jobrunner.store.schema import lease
from tests.house import PATIENCE, House, on_sqlite
from tests.process import Process
from tests.waiting import until

pytestmark = pytest.mark.nodes

# ---- the visibility time-out of Redis ----------------------------------------------------------------------

#: Tasks, seconds that each takes, and seconds after which Redis gives what is not acknowledged to another worker.
_SHORT, _LONG = (10, 1.5, 1), (16, 3.0, 2)
_PREFETCH = ("--prefetch-multiplier", "4")
_VISIBLE = {"unacked_restore_interval": 1, "unacked_restore_throttle": 1}
#: A Celery application that has never heard of jobrunner.
_SHOP = "tests.integration.shop"


def transport(timeout: int) -> dict[str, str]:
    """Return the variable that has workers use such a broker."""
    return {"PROJ_TRANSPORT": json.dumps({"visibility_timeout": timeout, **_VISIBLE})}


@on_sqlite
@pytest.mark.parametrize(
    ("tasks", "seconds", "timeout"), [_SHORT, pytest.param(*_LONG, marks=pytest.mark.chaos)], ids=["short", "long"]
)
def test_what_redis_gives_to_two_workers_starts_once(
    house: House, tasks: int, seconds: float, timeout: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of them are of the plan; the others are sent by a task, and only the broker has their messages."""
    house.broker()
    house.tracker()
    workers = [house.worker(name, more=_PREFETCH, **transport(timeout)) for name in ("one", "two")]
    all_of_them = [house.proj.last.si(seconds, str(number), house.path("lines")) for number in range(tasks)]
    planned, called = all_of_them[::2], all_of_them[1::2]
    job = house.jobs.submit(group(house.proj.call.si(*called), *planned))
    assert job.wait(PATIENCE) is JobState.COMPLETED
    house.check_completed_once(job)
    refused = sum(one.text.count("is held: redelivered") for one in workers)
    with capsys.disabled():
        print(f"\n{tasks} tasks of {seconds} s, visible again after {timeout} s: {refused} refused")  # noqa: T201
    assert Counter(house.lines("lines")) == {str(number): 1 for number in range(tasks)}
    assert refused


@on_sqlite
@pytest.mark.chaos
def test_with_bare_celery_they_start_again_and_again(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    tasks, seconds, timeout = _LONG
    house.broker()
    for name in ("one", "two"):
        bare_worker(house, name, **transport(timeout))
    with Celery("shop", broker=house.app.conf.broker_url, set_as_current=False) as app:
        for number in range(tasks):
            app.send_task(f"{_SHOP}.last", (seconds, str(number), house.path("lines")))

    def done() -> bool:
        with house.redis() as client:
            return not client.llen("celery") and not client.hlen("unacked")

    started = lambda: Counter(house.lines("lines"))  # noqa: E731
    until(lambda: len(started()) == tasks and done(), timeout=PATIENCE, what="all messages to be acknowledged")
    times = Counter(started().values())
    with capsys.disabled():
        print(f"\nbare Celery, the same: {', '.join(f'{n} tasks {k} times' for k, n in sorted(times.items()))}")  # noqa: T201
    assert max(times) > 1


def bare_worker(house: House, name: str, **settings: str) -> Process:
    """Start a worker of Celery's own, and wait until it takes tasks."""
    options = ["--without-mingle", "--without-gossip", "-l", "INFO", "-c", "2", "-n", f"{name}@shop", *_PREFETCH]
    urls = {"CELERY_BROKER_URL": house.app.conf.broker_url, "CELERY_RESULT_BACKEND": house.app.conf.result_backend}
    argv = [sys.executable, "-m", "celery", "-A", _SHOP, "worker", *options]
    process = house.start(name, argv, **urls, **settings)
    process.says(f"{name}@shop ready.")
    return process


# ---- trackers that die while they publish ------------------------------------------------------------------

#: Tasks of each job; of many, a tracker sends less than all in one turn.
_FEW, _MANY = 120, 600


@pytest.mark.house_on("postgresql-redis", chaos=["sqlite-redis", "sqlite-rabbitmq", "postgresql-rabbitmq"])
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("kills", "tasks"), [(3, _FEW), pytest.param(20, _MANY, marks=pytest.mark.chaos)])
def test_no_task_starts_twice_if_trackers_are_killed_while_they_publish(
    house: House, kills: int, tasks: int, capsys: pytest.CaptureFixture[str]
) -> None:
    house.broker()
    house.worker()
    tracker = house.tracker()
    (house.home / "files").mkdir()
    record, jobs = house.proj.record, []
    for kill in range(kills):
        first = kill * tasks
        numbers = range(first, first + tasks)
        job = house.jobs.submit(group(record.s(number, house.path("files")) for number in numbers))
        until(lambda job=job: publishing(job), timeout=PATIENCE, what="the tracker to publish")
        tracker.kill()
        free_lease(house)
        tracker.start()
        jobs.append(job)
    for job in jobs:
        assert job.wait(PATIENCE * 5) is JobState.COMPLETED
        house.check_completed_once(job)
    again = sum(task.delivery > 1 for job in jobs for task in job.tasks())
    twice = [path.name for path in (house.home / "files").iterdir() if path.read_text().count("start") != 1]
    with capsys.disabled():
        print(f"\n{kills} trackers killed under {kills * tasks} tasks: {again} sent again, {len(twice)} ran twice")  # noqa: T201
    assert twice == []
    assert len(list((house.home / "files").iterdir())) == kills * tasks
    assert again or tasks == _FEW  # which may all have been sent, and noted


def publishing(job: Job) -> bool:
    """Whether the tracker has put tasks of a job into its outbox: from then on it sends them."""
    return not job.view.counts.keys() <= {TaskState.PENDING, TaskState.READY}


def free_lease(house: House) -> None:
    """Let the lease of a tracker that was killed run out at once: how long that takes is shown elsewhere."""
    with house.jobs.database.write() as connection:
        connection.execute(update(lease).values(expires_at=0))
