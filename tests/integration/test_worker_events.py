"""The events of real workers: whatever is off for monitors, and whoever has gone meanwhile, the log has them."""

import sys
from contextlib import suppress
from typing import Any

import pytest
from celery import group

from jobrunner.states import TaskState
from tests.house import PROJ, House, on_each_broker, on_sqlite
from tests.process import Process
from tests.waiting import PATIENCE, until
from tracker.eventlog import open_log

pytestmark = pytest.mark.nodes


def worker(house: House, *options: str, app: str = PROJ, **settings: str) -> Process:
    """Start a worker with options of its own and wait until it takes tasks."""
    argv = [sys.executable, "-m", "workers", "-A", app, "-c", "2", "-l", "INFO", "-n", "worker@house", *options]
    process = house.start("worker", argv, **settings)
    process.says("worker@house ready.")
    return process


def types_in_log(house: House) -> set[str]:
    """Return the types of all events in the log, which nobody else reads."""
    log, position, types = open_log(house.app), None, set()
    while (batch := log.read(position, 0.1)) is not None:
        types |= {event["type"] for entry in batch.entries for event in entry.events}
        position = batch.position
    log.close()
    return types


def drain(connection: Any) -> None:
    """Take what has come, and what comes within a moment."""
    with suppress(TimeoutError):
        while True:
            connection.drain_events(timeout=0.2)


@on_each_broker
def test_tasks_that_run_while_the_broker_goes_and_comes_are_told_when_it_is_back(house: House) -> None:
    """They were reserved by a consumer that is gone."""
    broker = house.broker()
    house.tracker()
    process = worker(house, "--without-mingle", "--without-gossip")
    gate = house.gate("open")
    job = house.jobs.submit(group(house.proj.hold.s(number, str(gate)) for number in range(2)))
    gate.reached(2)
    # Acknowledged, too: while it holds messages, Celery's worker may end instead of reconnecting.
    until(lambda: job.view.counts.get(TaskState.ACTIVE) == 2, timeout=PATIENCE, what="both to be told as started")
    broker.kill()
    process.says("Connection to broker lost")
    house.broker()
    until(lambda: process.text.count("Connected to ") == 2, timeout=PATIENCE, what="the worker to be back")
    gate.open()
    assert job.result(PATIENCE) == [0, 1]
    house.check_completed_once(job)
    assert [(task.delivery, task.retries, task.worker) for task in job.tasks()] == [(1, 0, "worker@house")] * 2


@on_sqlite
def test_what_is_switched_off_for_monitors_is_tracked(house: House) -> None:
    """Neither task events nor heartbeats: Celery would send none at all."""
    (house.home / "quiet.py").write_text(
        f"from {PROJ} import app, jobs\napp.conf.worker_send_task_events = False\napp.conf.event_exchange = 'quiet'\n"
    )
    house.environment["PYTHONPATH"] = f"{house.home}:{house.environment.get('PYTHONPATH', '')}"
    house.broker()
    house.tracker()
    told: list[dict[str, Any]] = []
    house.app.conf.event_exchange = "quiet"
    receiver = house.app.events.Receiver(house.app.connection_for_read(), handlers={"*": told.append})
    with receiver.consumer_context(wakeup=False) as (connection, _channel, _consumers):
        drain(connection)  # subscribes
        for heard, options in ((True, []), (False, ["--without-heartbeat"])):
            process = worker(house, "--without-mingle", "--without-gossip", *options, app="quiet")
            job = house.jobs.submit(house.proj.add.s(1, 2))
            assert job.result(PATIENCE) == 3
            assert [task.last_event for task in job.tasks()] == ["task-succeeded"]
            process.stop()
            drain(connection)
            assert {event["type"].partition("-")[0] for event in told} == ({"worker"} if heard else set())
            told.clear()


@on_sqlite
def test_a_worker_without_heartbeats_is_known(house: House) -> None:
    """From its start, with nothing to do, on."""
    house.broker()
    house.tracker()
    worker(house, "--without-mingle", "--without-gossip", "--without-heartbeat")
    until(lambda: house.workers_online() == {"worker@house"}, timeout=PATIENCE, what="the worker to be online")


@on_sqlite
def test_what_is_left_in_a_worker_that_is_stopped_warmly_is_written(house: House) -> None:
    """The log is full, and nobody reads it."""
    house.broker()
    process = worker(house, "--without-mingle", "--without-gossip", JOBRUNNER_EVENT_LOG_LIMIT="1")
    gate = house.gate("open")
    house.proj.hold.apply_async(("held", str(gate)))
    gate.reached()
    gate.open()
    process.says("succeeded in")
    assert process.stop() == 0
    assert types_in_log(house) >= {"task-received", "task-started", "task-succeeded", "worker-offline"}
    assert "Start a tracker" in process.text


@on_sqlite
def test_what_a_pool_process_has_told_before_it_ended_is_written(house: House) -> None:
    """Its buffer ends with it, and pool processes end without much ado."""
    house.broker()
    options = ["--without-mingle", "--without-gossip", "--max-tasks-per-child", "1"]
    worker(house, *options, JOBRUNNER_EVENT_LOG_LIMIT="1")
    house.proj.tell.apply_async(("task-baked", 200))
    until(lambda: "task-baked" in types_in_log(house), timeout=PATIENCE, what="the event of the body")
