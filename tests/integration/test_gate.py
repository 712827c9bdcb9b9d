"""Gates of real workers: what a snapshot holds does not start, and is told. Snapshots are stored by hand."""

import base64
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from jobrunner import ids
from jobrunner.embedded import broker
from jobrunner.snapshot import SNAPSHOT_KEY, SNAPSHOT_VERSION_KEY, Hold, Kind, Snapshot
from jobrunner.wire import HEADER, RUN_HEADER, SNAPSHOT_APPLIED, TASK_HELD
from tests.house import PATIENCE, PROJ, House, on_each_broker, on_sqlite
from tests.process import Process
from tests.servers.redis import Redis
from tests.waiting import until
from tracker.eventlog import open_log

PAUSED = Hold(held=Kind.PAUSED)
STARTED = "task-started"
#: Tasks that are sent while their job is paused and resumed again and again.
_LOAD = 4_000
ENDS = ("task-succeeded", "task-failed", "task-revoked", "task-retried", "task-rejected", "task-cancelled")


def worker(house: House, *options: str, pool: str = "prefork", ready: bool = True, **settings: str) -> Process:
    """Start a worker of two processes, or threads, and wait until it takes tasks."""
    argv = [sys.executable, "-m", "workers", "-A", PROJ, "-P", pool, "-c", "2", "-l", "INFO", "-n", "worker@house"]
    process = house.start("worker", [*argv, "--without-mingle", "--without-gossip", *options], **settings)
    if ready:
        process.says("worker@house ready.")
    return process


def store(house: House, version: int, jobs: dict[str, Hold] | None = None, *, at: Path | None = None) -> None:
    """Store a snapshot as the tracker does; `at` is the folder of another Redis than the house's."""
    with redis.Redis(unix_socket_path=str(broker.socket_path(at or house.home))) as client:
        client.set(SNAPSHOT_KEY, Snapshot(version=version, jobs=jobs or {}).dumps())
        client.set(SNAPSHOT_VERSION_KEY, version)


def send(task: Any, *args: Any, job: str, celery_id: str | None = None, run: int = 1) -> str:
    """Send a message as the tracker does, and return its Celery id."""
    celery_id = celery_id or ids.uuid7()
    header = {"v": 1, "task": celery_id, "run": run, "delivery": 1, "batch": "1", "first": 0}
    task.apply_async(args, task_id=celery_id, root_id=job, headers={HEADER: header})
    return celery_id


def told(house: House, *types: str) -> list[dict[str, Any]]:
    """Return the events of these types in the log, which nobody else reads, in their order."""
    log, position, found = open_log(house.app), None, []
    while (batch := log.read(position, 0.05)) is not None:
        found += [event for entry in batch.entries for event in entry.events if event["type"] in types]
        position = batch.position
    log.close()
    return found


def has_told(house: House, number: int, type_: str, **fields: Any) -> list[dict[str, Any]]:
    """Wait until so many events have been told, and return them."""

    def found() -> list[dict[str, Any]]:
        events = [one for one in told(house, type_) if fields.items() <= one.items()]
        return events if len(events) >= number else []

    return until(found, timeout=PATIENCE, what=f"{number} {type_} {fields}")


def acknowledged(house: House, version: int) -> dict[str, Any]:
    """Wait until the worker has acknowledged a version, and return how."""
    return has_told(house, 1, SNAPSHOT_APPLIED, version=version)[0]


def end_of(house: House, celery_id: str) -> str:
    """Wait for the end of what runs under an id, and return the event that tells it."""
    ended = lambda: [one["type"] for one in told(house, *ENDS) if one["uuid"] == celery_id]  # noqa: E731
    return until(ended, timeout=PATIENCE, what=f"the end of {celery_id}")[0]


def unacknowledged(house: House) -> int:
    """Return how many messages the broker has handed out and not been told of."""
    with house.redis() as client:
        return client.hlen("unacked")


# ---- what starts -------------------------------------------------------------------------------------------


@on_sqlite
@pytest.mark.parametrize(
    "pool", ["prefork", "threads", *(pytest.param(one, marks=pytest.mark.chaos) for one in ("solo", "gevent"))]
)
def test_nothing_starts_after_a_worker_has_said_that_the_job_is_held(house: House, pool: str) -> None:
    """Also of what it has in its hands already: on threads all of it waits in the pool, behind the gate."""
    house.broker()
    store(house, 1)
    process = worker(house, "--prefetch-multiplier", "8", pool=pool)
    job, gate, number = ids.uuid7(), house.gate("open"), 1 if pool == "solo" else 2
    sent = {send(house.proj.hold, one, str(gate), job=job) for one in range(20)}
    gate.reached(number)
    store(house, 2, {job: PAUSED})
    assert acknowledged(house, 2)["left"] == []
    gate.open()
    plain = house.proj.add.delay(1, 2).id
    other = send(house.proj.add, 1, 2, job=ids.uuid7())
    held = has_told(house, 20 - number, TASK_HELD, reason="paused", root_id=job, retries=0)
    assert end_of(house, other) == end_of(house, plain) == "task-succeeded"
    started = [one["uuid"] for one in told(house, STARTED) if one["root_id"] == job]
    assert sorted([*started, *(one["uuid"] for one in held)]) == sorted(sent)
    assert len(gate.waiting()) == number
    assert not any("message" in one for one in held)  # which the tracker has
    until(lambda: not unacknowledged(house), timeout=PATIENCE, what="all messages to be acknowledged")
    assert {one["uuid"] for one in told(house, *ENDS)} == {*started, plain, other}
    assert not [one for one in held if house.app.backend.get(f"celery-task-meta-{one['uuid']}")]
    assert "Traceback" not in process.text


@on_sqlite
def test_a_worker_may_have_any_number_in_its_hands_that_it_must_not_start(house: House) -> None:
    """By itself Celery would go a few calls deeper for each, as far as Python lets it."""
    house.broker()
    store(house, 1)
    worker(house, "--prefetch-multiplier", "300")
    job, gate = ids.uuid7(), house.gate("open")
    for number in range(600):
        send(house.proj.hold, number, str(gate), job=job)
    gate.reached(2)
    has_told(house, 600, "task-received")
    store(house, 2, {job: PAUSED})
    acknowledged(house, 2)
    gate.open()
    assert len(has_told(house, 598, TASK_HELD)) == 598
    assert len(gate.waiting()) == 2


@on_sqlite
@pytest.mark.chaos
@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent"])
def test_nothing_starts_while_a_hold_is_acknowledged_however_much_comes(house: House, pool: str) -> None:
    house.broker()
    store(house, 1)
    worker(house, "--prefetch-multiplier", "8", pool=pool)
    job, folder, version = ids.uuid7(), house.home / "records", 1
    folder.mkdir()
    sending = threading.Thread(
        target=lambda: [send(house.proj.record, number, str(folder), job=job) for number in range(_LOAD)]
    )
    sending.start()
    while sending.is_alive():
        version += 1
        store(house, version, {job: PAUSED} if version % 2 else {})
        acknowledged(house, version)
    sending.join()
    until(lambda: len(told(house, STARTED, TASK_HELD)) == _LOAD, timeout=PATIENCE, what="all messages")
    events = told(house, STARTED, SNAPSHOT_APPLIED, TASK_HELD)
    version = 1
    for event in events:
        version = event.get("version", version)
        assert event["type"] != STARTED or version == 1 or version % 2 == 0
    assert len(list(folder.iterdir())) == len(told(house, STARTED))


@on_sqlite
def test_without_a_snapshot_plain_tasks_run_and_those_of_jobs_are_told_until_there_is_one(house: House) -> None:
    house.broker()
    worker(house)
    plain, early = house.proj.add.delay(1, 2), send(house.proj.add, 1, 2, job=ids.uuid7())
    assert end_of(house, plain) == "task-succeeded"
    has_told(house, 1, TASK_HELD, uuid=early, reason="uninformed")
    store(house, 1)
    acknowledged(house, 1)
    assert end_of(house, send(house.proj.add, 1, 2, job=ids.uuid7())) == "task-succeeded"
    assert {one["uuid"] for one in told(house, TASK_HELD)} == {early}


@on_sqlite
def test_a_worker_takes_nothing_before_it_can_read_what_is_held(house: House) -> None:
    """It can be stopped meanwhile; when it takes its first task it has said what it knows."""
    house.broker()
    elsewhere = house.home / "results"
    elsewhere.mkdir()
    results = Redis(elsewhere)
    job, gate = ids.uuid7(), house.gate("open")
    early = send(house.proj.hold, 1, str(gate), job=job)
    process = worker(house, ready=False, JOBRUNNER_RESULT_BACKEND=results.url)
    waits = "Orders cannot be read from the result backend, so this worker takes no tasks yet"
    process.says(waits)
    assert process.stop() == 0
    process.start()
    process.says(waits)
    results.start()
    try:
        store(house, 1, {job: PAUSED}, at=elsewhere)
        has_told(house, 1, TASK_HELD, uuid=early, reason="paused")
    finally:
        process.kill()
        results.kill()
    assert process.text.count("Orders cannot be read") == 1
    assert not gate.waiting()


@on_sqlite
def test_what_the_broker_gives_again_is_refused_if_it_is_of_a_job(house: House) -> None:
    """Here because a worker that has reserved it is stopped."""
    house.broker()
    store(house, 1)
    first, gate = worker(house, "-c", "1"), house.gate("open")
    job = ids.uuid7()
    send(house.proj.hold, 1, str(gate), job=job)
    gate.reached()
    again, plain = send(house.proj.add, 1, 2, job=job), house.proj.add.delay(1, 2).id
    house.proj.add.apply_async((1, 2), root_id=job, task_id="subtask")
    until(lambda: unacknowledged(house) == 3, timeout=PATIENCE, what="the worker to reserve them")
    first.popen.terminate()
    first.says("Warm shutdown")
    gate.open()
    first.popen.wait(PATIENCE)
    first.kill()
    worker(house)
    subtask, planned = sorted(has_told(house, 2, TASK_HELD, reason="redelivered"), key=len, reverse=True)
    assert (planned["uuid"], subtask["uuid"]) == (again, "subtask")
    assert "redelivered" not in json.dumps(subtask["message"])
    assert end_of(house, plain) == "task-succeeded"


# ---- what is told ------------------------------------------------------------------------------------------


@on_each_broker
def test_what_nobody_else_has_is_told_whole_and_can_be_sent_again_as_it_was(house: House) -> None:
    house.broker()
    job, long = ids.uuid7(), "x" * 200_000
    store(house, 1, {job: PAUSED})
    worker(house)
    options = {"priority": 3, "headers": {"mark": "é"}, "compression": "zlib"}
    house.proj.identity.apply_async((long,), root_id=job, task_id="sub", **options)
    (first,) = has_told(house, 1, TASK_HELD, uuid="sub")
    message = first["message"]
    assert message["queue"] == "celery"
    assert json.loads(base64.b64decode(message["body"]))[0] == [long]
    assert (message["headers"]["mark"], message["properties"]["priority"]) == ("é", 3)
    forward(house, message)
    assert has_told(house, 2, TASK_HELD, uuid="sub")[1]["message"] == message
    store(house, 2)
    acknowledged(house, 2)
    forward(house, message)
    assert end_of(house, "sub") == "task-succeeded"
    assert house.app.AsyncResult("sub").get(timeout=PATIENCE) == long


def forward(house: House, message: dict[str, Any]) -> None:
    """Send a message that was told, as it was."""
    with house.app.producer_or_acquire() as producer:
        producer.publish(
            base64.b64decode(message["body"]),
            headers=message["headers"],
            content_type=message["content_type"],
            content_encoding=message["content_encoding"],
            **message["properties"],
        )


@on_sqlite
def test_the_retry_of_a_subtask_is_told_when_it_is_due_and_says_of_which_run_it_is(house: House) -> None:
    """It waits in the worker until then; a retry of what the tracker has sent is told whole as well."""
    house.broker()
    store(house, 1)
    worker(house)
    job = ids.uuid7()
    planned = send(house.proj.second_try, 1, 1.0, job=job, run=3)
    send(house.proj.call, house.proj.second_try.si("x" * 200_000, 1.0), job=job, run=3)
    has_told(house, 2, "task-retried", root_id=job)
    store(house, 2, {job: PAUSED})
    held = {one["uuid"]: one for one in has_told(house, 2, TASK_HELD, root_id=job, retries=1, reason="paused")}
    retry = held.pop(planned)
    assert retry["message"]["headers"][HEADER]["run"] == 3
    (subtask,) = held.values()
    assert subtask["message"]["headers"][RUN_HEADER] == 3
    assert json.loads(base64.b64decode(subtask["message"]["body"]))[0] == ["x" * 200_000, 1.0]
    store(house, 3, {job: Hold(run=4)})
    acknowledged(house, 3)
    forward(house, subtask["message"] | {"headers": subtask["message"]["headers"] | {"eta": None}})
    (void,) = has_told(house, 1, TASK_HELD, uuid=subtask["uuid"], reason="void")
    assert "message" not in void  # which nobody wants


@on_sqlite
@pytest.mark.chaos
def test_what_the_log_does_not_take_goes_back_to_the_broker(house: House) -> None:
    """A worker whose log is full starts all the same, and says what that means."""
    house.broker()
    job = ids.uuid7()
    store(house, 1, {job: PAUSED})
    process = worker(house, JOBRUNNER_EVENT_LOG_LIMIT="1")
    process.says("The tracker will know late which orders hold here")
    house.proj.add.apply_async((1, 2), root_id=job, task_id="sub")
    again = lambda: process.text.count("goes back to the broker") >= 2  # noqa: E731
    until(again, timeout=PATIENCE, what="it to come, and go, once more")


# ---- what runs ---------------------------------------------------------------------------------------------


@on_sqlite
def test_what_runs_of_a_canceled_job_is_gone_within_the_grace_and_its_id_can_run_again(house: House) -> None:
    """One ignores TERM; one is of a job that is only observed."""
    house.broker()
    store(house, 1)
    process = worker(house, "-c", "3")
    job, gate = ids.uuid7(), house.gate("open")
    stubborn = send(house.proj.hold_stubbornly, 1, str(gate), job=job)
    observed = house.proj.hold.delay(2, str(gate)).id
    bystander = house.proj.hold.delay(3, str(gate)).id
    gate.reached(3)
    canceled = {job: Hold(held=Kind.CANCELED, grace=1.0), observed: Hold(held=Kind.CANCELED, grace=20.0)}
    store(house, 2, canceled)
    assert acknowledged(house, 2)["left"] == []
    assert end_of(house, stubborn) == end_of(house, observed) == "task-revoked"
    ended = {one["uuid"]: (one["terminated"], one["signum"]) for one in told(house, "task-revoked")}
    assert ended == {stubborn: (True, 9), observed: (True, 15)}
    late = send(house.proj.add, 1, 2, job=job)
    has_told(house, 1, TASK_HELD, uuid=late, reason="canceled")

    store(house, 3, {job: Hold(run=2)})
    acknowledged(house, 3)
    gate.open()
    send(house.proj.hold_stubbornly, 1, str(gate), job=job, celery_id=stubborn, run=2)
    has_told(house, 1, "task-succeeded", uuid=stubborn)
    assert end_of(house, bystander) == "task-succeeded"
    assert len(gate.waiting()) == 4
    assert not unacknowledged(house)
    assert not told(house, "task-retried", "task-failed")
    assert "Traceback" not in process.text


@on_sqlite
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_body_learns_that_it_was_canceled(house: House, pool: str) -> None:
    """Where it cannot be ended, and where it may finish."""
    house.broker()
    store(house, 1)
    worker(house, pool=pool)
    job, gate = ids.uuid7(), house.gate("never")
    celery_id = send(house.proj.hold_until_canceled, str(gate), job=job)
    gate.reached()
    store(house, 2, {job: Hold(held=Kind.CANCELED, grace=None if pool == "prefork" else 0.0)})
    left = acknowledged(house, 2)["left"]
    assert left == ([] if pool == "prefork" else [celery_id])
    assert end_of(house, celery_id) == "task-succeeded"
    assert house.app.AsyncResult(celery_id).get(timeout=PATIENCE) == "gave up"


@on_sqlite
def test_what_a_worker_refuses_for_its_own_sake_is_told_at_once_and_stays_in_its_hands_for_a_second(
    house: House,
) -> None:
    house.broker()
    job, name = ids.uuid7(), house.proj.identity.name
    with house.redis() as client:
        client.set(SNAPSHOT_KEY, Snapshot(version=1, blocked={job: {name: ["worker@house"]}}).dumps())
        client.set(SNAPSHOT_VERSION_KEY, 1)
        worker(house)
        send(house.proj.identity, 1, job=job)
        (held,) = has_told(house, 1, TASK_HELD, reason="blocked")
        until(lambda: not client.hlen("unacked"), timeout=PATIENCE, what="the message to be acknowledged")
        assert time.time() - held["timestamp"] > 0.9
        send(house.proj.add, 1, 2, job=job)
        has_told(house, 1, "task-succeeded")
    assert len(told(house, TASK_HELD)) == 1
