"""`jobrunner events`: the live stream, on each broker, of one job or of everything."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, chain

from jobrunner.states import ENDED_JOB
from tests.house import PATIENCE, House, Process, on_each_broker, on_sqlite
from tests.waiting import until

#: What a command says once it will miss nothing.
LISTENING = "Listening; Ctrl-C ends it."


@pytest.fixture
def listen(running: House) -> Iterator[Callable[..., Process]]:
    """Start `jobrunner events`, far from the clock's zone of the workers; ended like by a user."""
    started: list[Process] = []

    def start(*arguments: str) -> Process:
        argv = [sys.executable, "-m", "jobrunner.cli", "events", *arguments]
        process = running.start(f"events-{len(started)}", argv, TZ="Asia/Kolkata")
        started.append(process)
        process.says(LISTENING)
        return process

    yield start
    for process in started:
        process.kill()


def lines(process: Process) -> list[str]:
    """Return what it has printed, without what it said."""
    return [line for line in process.text.splitlines() if line != LISTENING]


def told(process: Process) -> list[dict[str, Any]]:
    """Return the events that it has printed as JSON, but for a line that is still being written."""
    return [json.loads(line) for line in lines(process) if line.endswith("}")]


def ended(house: House, canvas: Any) -> str:
    """Submit a canvas, and return the id of its job once that has ended."""
    job = house.jobs.submit(canvas)
    until(lambda: job.state in ENDED_JOB, timeout=PATIENCE, what="the job to end")
    return job.id


@on_each_broker
def test_every_event_of_a_job_is_printed_with_its_task_job_and_worker(
    running: House, listen: Callable[..., Process]
) -> None:
    process = listen("--json")
    job_id = ended(running, chain(running.proj.add.s(1, 2), running.proj.fail.s()))
    types = ["task-sent", "task-received", "task-started"]
    until(lambda: len(of(process, job_id)) >= 8, timeout=PATIENCE, what="eight events")
    found = of(process, job_id)
    names = {task.celery_id: task.name for task in running.jobs.get(job_id).tasks()}
    assert {event["uuid"]: event["name"] for event in found} == names
    first, second = names
    # The tracker and a worker tell each for itself, so that `sent` may come later than `received`.
    assert sorted(event["type"] for event in found if event["uuid"] == first) == sorted([*types, "task-succeeded"])
    assert sorted(event["type"] for event in found if event["uuid"] == second) == sorted([*types, "task-failed"])
    assert all(abs(event["timestamp"] - event["local_received"]) < PATIENCE for event in found)
    assert {event["hostname"] for event in found if event["type"] != "task-sent"} == {"worker@house"}


def of(process: Process, job_id: str) -> list[dict[str, Any]]:
    return [event for event in told(process) if event.get("root_id") == job_id]


@on_each_broker
def test_with_a_job_nothing_else_is_printed(running: House, listen: Callable[..., Process]) -> None:
    gate = running.gate("one-job")
    job = running.jobs.submit(running.proj.hold.s("ours", str(gate)))
    gate.reached()
    process = listen(job.id)
    ended(running, running.proj.identity.s("another"))
    gate.open()
    until(lambda: "task-succeeded" in process.text, timeout=PATIENCE, what="the end of the job's task")
    (line,) = lines(process)
    task = job.tasks()[0]
    words = line.split()
    assert words[1:6] == ["task-succeeded", f"{task.name}[{task.id[-8:]}]", "job", job.id[-8:], "worker@house"]
    assert "result='ours'" in line
    assert words[6].startswith("runtime=")


@on_each_broker
@pytest.mark.usefixtures("running")
def test_workers_are_heard_and_ctrl_c_exits_with_130(listen: Callable[..., Process]) -> None:
    process = listen()
    until(lambda: "worker-heartbeat" in process.text, timeout=PATIENCE, what="a heartbeat")
    process.popen.send_signal(signal.SIGINT)
    assert process.popen.wait(PATIENCE) == 130
    assert "Traceback" not in process.text


@on_sqlite
def test_what_a_stock_worker_or_anybody_else_tells_is_printed_too(
    running: House, listen: Callable[..., Process]
) -> None:
    """Its events name the task and the job once; what is no event at all is passed over."""
    process = listen("--json")
    stock = Celery("stock", broker=running.app.conf.broker_url, set_as_current=False)
    with stock.events.default_dispatcher(hostname="stock@host") as dispatcher:
        dispatcher.send("task-received", uuid="t", name="stock.add", root_id="j")
        dispatcher.send("task-started", uuid="t")
        for nothing in ("nothing", [1, {}]):
            dispatcher.producer.publish(nothing, routing_key="task.multi", serializer="json")
        dispatcher.send("task-succeeded", uuid="t", result="3")
    stock.close()
    until(lambda: len(of(process, "j")) == 3, timeout=PATIENCE, what="three events")
    assert [(event["type"], event["name"]) for event in of(process, "j")] == [
        (type_, "stock.add") for type_ in ("task-received", "task-started", "task-succeeded")
    ]


@on_sqlite
def test_an_event_of_the_users_own_is_printed_with_its_fields(running: House, listen: Callable[..., Process]) -> None:
    process = listen()
    job_id = ended(running, running.proj.tell.s("task-baked", 200))
    until(lambda: "task-baked" in process.text, timeout=PATIENCE, what="the event of the body")
    (line,) = [line for line in lines(process) if "task-baked" in line]
    (task,) = running.jobs.get(job_id).tasks()
    assert line.split()[1:] == [
        "task-baked", f"{task.name}[{task.id[-8:]}]", "job", job_id[-8:], "worker@house", "degrees=200",
    ]  # fmt: skip


@on_sqlite
@pytest.mark.parametrize("url", ["redis://:secret@127.0.0.1:1/0", "amqp://anna:secret@127.0.0.1:1//"])
def test_a_broker_that_is_away_is_told_with_5(house: House, url: str) -> None:
    failed = house.cli("events", "-b", url)
    assert (failed.returncode, failed.stdout) == (5, "")
    assert failed.stderr.startswith("error: The broker ")
    assert "hint: " in failed.stderr
    assert "secret" not in failed.stderr


@pytest.mark.nodes
@on_sqlite
def test_a_broker_that_goes_is_waited_for(house: House) -> None:
    server = house.broker()
    process = house.start("events", [sys.executable, "-m", "jobrunner.cli", "events"])
    process.says(LISTENING)
    server.kill()
    process.says("The broker has gone (")
    house.broker()
    process.says("The broker is back.")
    house.worker()
    process.says("worker-online")
    assert process.text.count("The broker has gone (") == 1


@on_sqlite
def test_a_job_that_nobody_knows_is_told_with_3(house: House) -> None:
    house.broker()
    failed = house.cli("events", "nowhere")
    assert (failed.returncode, failed.stdout) == (3, "")


@on_sqlite
def test_events_are_watched_without_any_database(house: House) -> None:
    house.broker()
    argv = [sys.executable, "-m", "jobrunner.cli", "events"]
    process = house.start("events", argv, JOBRUNNER_DATABASE=f"sqlite:///{house.home}/nothing.db")
    process.says(LISTENING)
    assert not (house.home / "nothing.db").exists()


@on_sqlite
def test_monitors_are_told_the_same_zone_by_tracker_and_workers(house: House) -> None:
    """Celery's own receiver moves times by it: those of a tracker that named another zone would be hours off."""
    house.environment["TZ"] = "Asia/Kolkata"
    house.broker()
    house.tracker()
    house.worker()
    process = house.start("events", [sys.executable, "-m", "jobrunner.cli", "events", "--json"])
    process.says(LISTENING)
    job_id = ended(house, house.proj.add.s(1, 2))
    until(lambda: len(of(process, job_id)) == 4, timeout=PATIENCE, what="four events")
    assert {(event["type"], event["utcoffset"]) for event in of(process, job_id)} == {
        (f"task-{word}", -5.5) for word in ("sent", "received", "started", "succeeded")
    }
