"""What the tracker writes down of workers, and what it says of a broker that it cannot reach."""

import json
import signal
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from celery import group

from jobrunner.handle import Job
from jobrunner.masking import MASK
from jobrunner.states import TaskState
from jobrunner.wire import EVENT_LOG, VERSION
from tests.house import PATIENCE, House
from tests.waiting import until

pytestmark = [pytest.mark.nodes, pytest.mark.house_on("postgresql-redis")]

W1, W2 = "one@house", "two@house"


def workers(house: House) -> dict[str, dict[str, Any]]:
    """Return what `jobrunner workers` says, by name."""
    return {one["name"]: one for one in house.ask("workers", "--json").json}


def told(house: House, what: str, condition: Callable[[dict[str, dict[str, Any]]], Any]) -> dict[str, dict[str, Any]]:
    """Wait until what `jobrunner workers` says fulfils a condition, and return it."""

    def fulfilled() -> dict[str, dict[str, Any]]:
        found = workers(house)
        return found if condition(found) else {}

    return until(fulfilled, timeout=PATIENCE, what=what)


def say(house: House, source: str, **event: Any) -> None:
    """Write into the event log what a worker process would write."""
    events = [{"hostname": W1, "timestamp": 1.0, "pid": 7, **event}]
    with house.redis() as redis:
        redis.xadd(EVENT_LOG, {"v": VERSION, "source": source, "worker": W1, "events": json.dumps(events)})


@pytest.mark.chaos  # half a minute of silence; with a shorter one: tests/nodes/test_failures.py
def test_a_killed_worker_is_lost_and_the_other_ones_work_is_told(house: House) -> None:
    """The other one has nothing to do: it is heard all the same."""
    house.broker()
    house.tracker()
    killed = house.worker("one")
    gate = house.gate("open")
    job = house.jobs.submit(group(house.proj.hold.s(number, str(gate)) for number in range(3)))
    gate.reached(2)
    busy = told(house, "both hands of the worker", lambda found: found[W1]["active"] == 2 and found[W1]["received"])
    assert (busy[W1]["state"], busy[W1]["received"], busy[W1]["pid"]) == ("online", 1, killed.pid)
    house.worker("two", queues="other")
    killed.kill()

    lost = told(house, "the worker to be lost", lambda found: found[W1]["state"] == "lost")
    assert (lost[W1]["active"], lost[W1]["received"]) == (0, 0)
    assert lost[W2]["state"] == "online"
    heard = {name: datetime.fromisoformat(one["seen_at"]) for name, one in lost.items()}
    assert heard[W2] - heard[W1] > timedelta(seconds=15)
    assert heard[W1] >= datetime.fromisoformat(busy[W1]["seen_at"])
    assert heard[W2] - datetime.fromisoformat(lost[W2]["online_at"]) > timedelta(seconds=15)
    assert job.progress.done == 0


def test_a_worker_that_says_goodbye_is_offline(house: House) -> None:
    house.broker()
    house.tracker()
    say(house, "first", type="worker-online")
    told(house, "the worker", lambda found: found.get(W1, {}).get("state") == "online")
    say(house, "first", type="worker-offline")
    told(house, "its goodbye", lambda found: found[W1]["state"] == "offline")


def test_the_late_goodbye_of_a_process_that_was_replaced_is_not_its_successors(house: House) -> None:
    house.broker()
    house.tracker()
    say(house, "first", type="worker-online")
    say(house, "second", type="worker-online", pid=8)
    say(house, "first", type="worker-offline")
    job = house.jobs.submit(house.proj.add.s(1, 2))
    say(house, "second", type="task-received", uuid=job.tasks()[0].id)
    found = told(house, "what was said last", lambda found: found.get(W1, {}).get("received"))
    assert (found[W1]["state"], found[W1]["pid"]) == ("online", 8)


def queued(house: House) -> Job:
    """Submit a task, and return its job once the broker has the message, which nobody takes."""
    job = house.jobs.submit(house.proj.add.s(1, 2))
    until(house.waiting, timeout=PATIENCE, what="the message")
    return job


def test_what_a_killed_worker_had_begun_is_sent_again_if_its_successor_is_heard_in_the_same_moment(
    house: House,
) -> None:
    """The tracker was away, or had much to read: begin, death and successor are one batch."""
    house.broker()
    tracker = house.tracker()
    job = queued(house)
    tracker.stop()
    say(house, "first", type="worker-online")
    say(house, "first", type="task-started", uuid=job.tasks()[0].id, retries=0)
    say(house, "second", type="worker-online", pid=8)
    house.tracker("next").says(f"Sending 1 tasks again of the worker {W1} before.")  # and not after a silence


def test_what_a_replaced_process_says_to_another_tracker_gives_nobody_up(house: House) -> None:
    """A process of a killed worker's pool goes on with its task, and tells how far it is."""
    house.broker()
    tracker = house.tracker()
    job = queued(house)
    (task,) = job.tasks()
    say(house, "first", type="worker-online")
    say(house, "second", type="worker-online", pid=8)
    say(house, "second", type="task-started", uuid=task.id, retries=0, pid=8)
    told(house, "the task to be the second one's", lambda found: found.get(W1, {}).get("active"))
    tracker.stop()
    say(house, "first", type="task-progress", uuid="any", progress=0.5)
    say(house, "second", type="task-succeeded", uuid=task.id, retries=0, result="3")
    house.tracker("next")
    job.wait(PATIENCE)
    assert (job.tasks()[0].delivery, workers(house)[W1]["pid"]) == (1, 8)
    assert [one.outcome for one in house.attempts(job)[task.id]] == ["succeeded"]


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.chaos)])
def test_a_worker_in_a_hurry_says_what_it_leaves_undone(house: House, number: signal.Signals) -> None:
    """The second signal; a worker that is just killed would be lost after half a minute of silence."""
    house.broker()
    house.tracker()
    worker, gate = house.worker(module="jobrunner"), house.gate("open")
    job = house.jobs.submit(house.proj.hold.s(1, str(gate)))
    gate.reached()
    until(lambda: job.tasks()[0].state is TaskState.ACTIVE, timeout=PATIENCE, what="its start to be known")
    worker.popen.send_signal(number)
    worker.says("Warm shutdown")
    worker.popen.send_signal(number)
    assert worker.popen.wait(PATIENCE) == (130 if number is signal.SIGINT else 0)
    task = until(
        lambda: (one := job.tasks()[0]).state is not TaskState.ACTIVE and one, timeout=PATIENCE, what="what it leaves"
    )
    assert task.note == "lost: its worker was shut down while it ran this task"
    assert "Traceback" not in worker.text


def test_what_workers_have_lost_is_told_once_and_shown_also_after_a_takeover(house: House) -> None:
    house.broker()
    first = house.tracker()
    number(house, 1)
    number(house, 4, dropped=7)
    lost = told(house, "the loss", lambda found: found.get(W1, {}).get("batches_missed"))
    assert (lost[W1]["batches_missed"], lost[W1]["events_dropped"]) == (2, 7)
    first.says("Batches 2 to 3 of worker 'one@house' never arrived (series series-1)")
    assert first.text.count("never arrived") == 1
    first.stop()
    number(house, 5, dropped=7)
    second = house.tracker("second")
    number(house, 5, dropped=7)
    number(house, 7, dropped=8)
    lost = told(house, "more of it", lambda found: found[W1]["batches_missed"] > 2)
    assert (lost[W1]["batches_missed"], lost[W1]["events_dropped"]) == (3, 8)
    second.says("Batches 6 to 6 of worker 'one@house'")
    assert "8 events, 3 batches" in house.ask("workers").out


def number(house: House, number: int, dropped: int = 0) -> None:
    """Write an empty batch with a number into the event log."""
    batch = {"v": VERSION, "source": "first", "worker": W1, "events": "[]"}
    with house.redis() as redis:
        redis.xadd(EVENT_LOG, {**batch, "series": "series-1", "number": number, "dropped": dropped})


@pytest.mark.parametrize(
    "url",
    [
        "redis://:secret@127.0.0.1:1/0",
        pytest.param("rediss://anna:secret@127.0.0.1:1/0", marks=pytest.mark.chaos),
        pytest.param("amqp://anna:secret@127.0.0.1:1//", marks=pytest.mark.chaos),
    ],
)
def test_a_tracker_that_cannot_reach_its_broker_tells_no_password(house: House, url: str) -> None:
    job = house.jobs.submit(house.proj.add.s(1, 2))
    argv = [sys.executable, "-m", "jobrunner.cli", "tracker", "-l", "DEBUG"]
    tracker = house.start("tracker", argv, JOBRUNNER_BROKER=url, JOBRUNNER_RESULT_BACKEND="redis://127.0.0.1:1/1")
    tracker.says("the broker cannot be reached")
    shown = until(
        lambda: "cannot be reached" in (text := house.ask("show", job.id).out) and text,
        timeout=PATIENCE,
        what="show to say why",
    )
    for text in (shown, tracker.text, house.ask("show", job.id, "--json").out, house.ask("workers").err):
        assert "secret" not in text
    assert tracker.stop() == 0
    assert "secret" not in tracker.text


def test_up_masks_the_password_of_an_apps_broker(house: House) -> None:
    """It also says where the rest is: nothing of it is a secret."""
    (house.home / "away.py").write_text(
        "from celery import Celery\nurl = 'redis://:secret@127.0.0.1:1/0'\n"
        "app = Celery('away', broker=url, backend=url, set_as_current=False)\n"
    )
    argv = [sys.executable, "-m", "jobrunner.cli", "up", "-A", "away"]
    up = house.start("printed", argv, PYTHONPATH=f"{house.home}:{house.environment.get('PYTHONPATH', '')}")
    up.says("Ready for jobs")
    assert f"broker    redis://:{MASK}@127.0.0.1:1/0" in up.text
    assert "The broker cannot be reached (" in up.text
    assert "jobs wait for it" in up.text
    log = house.home / "up.log"
    until(lambda: "cannot be reached" in log.read_text(), timeout=PATIENCE, what="the tracker to have tried")
    up.stop()
    assert "secret" not in up.text + log.read_text()
