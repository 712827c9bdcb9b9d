"""Odd events in the log of a tracker at work: each is folded or in `rejected_event`, and everything else goes on."""

import json
import time
from typing import Any

import pytest
from celery import group

from jobrunner.event_log import WrittenBatch, open_writer
from jobrunner.handle import Job
from jobrunner.states import JobState, TaskState
from jobrunner.wire import VERSION
from tests.apps import read_rows
from tests.builders import raw_event
from tests.house import House, on_each_broker
from tests.refusing import POISON, refuse_poison
from tests.waiting import PATIENCE, until
from tracker.rejects import Reason

pytestmark = [on_each_broker]

SOURCE, WORKER = "of-the-odd-worker", "odd@house"


def rejects(uuid: str, other: str) -> list[tuple[object, Reason]]:
    """Odd events about two tasks, and why each is rejected."""
    event = raw_event(type="task-received", uuid=uuid, timestamp=time.time())
    return [
        ("text", Reason.NO_EVENT),
        (None, Reason.NO_EVENT),
        ({}, Reason.NO_EVENT),
        (event | {"type": ["task-received"]}, Reason.NO_EVENT),
        (event | {"uuid": [uuid]}, Reason.NO_TASK),
        ({name: value for name, value in event.items() if name != "uuid"}, Reason.NO_TASK),
        (event | {"hostname": {}}, Reason.NO_WORKER),
        (event | {"timestamp": "\x00\ud800"}, Reason.NO_TIME),
        (event | {"timestamp": float("nan")}, Reason.NO_TIME),
        (event | {"timestamp": 1e300, "padding": "x" * 10_000_000}, Reason.NO_TIME),
        (event | {"uuid": other, "type": "task-started", "hostname": POISON}, Reason.NO_FOLD),
        (event | {"uuid": other, "type": "task-started", "hostname": POISON, "pid": 2}, Reason.NO_FOLD),
    ]


def folds(uuid: str) -> list[dict[str, Any]]:
    """Events that are as odd, and tell something all the same, or whose type nobody knows."""
    event = raw_event(type="task-retried", uuid=uuid, timestamp=time.time())
    long = "\x00\ud800" + "x" * 10_000_000
    return [
        event | {"exception": long, "traceback": long},
        event | {"timestamp": -1e9, "pid": 1.5, "retries": 0},
        event | {"type": "task-received", "timestamp": 253370764800.0, "hostname": "\x00w" * 1_000},
        event | {"uuid": "\x00\ud800" * 500, "runtime": float("inf")},
        {"type": "task-unheard-of"},
    ]


def neighbour(number: int) -> dict[str, Any]:
    return raw_event(type="worker-online", hostname=f"neighbour-{number:02}@house", timestamp=time.time())


def texts(uuid: str, other: str) -> list[tuple[str, list[Reason]]]:
    """Entries of the log as they are written, each event with a neighbour; and what is rejected of each entry."""
    odd = [*rejects(uuid, other), *((event, None) for event in folds(uuid))]
    together = json.dumps([one for number, (event, _) in enumerate(odd) for one in (event, neighbour(number))])
    deep = f"[{json.dumps(neighbour(len(odd)))}, {'[' * 100_000}]"
    return [
        (together, [reason for _, reason in odd if reason]),
        (deep, [Reason.NOT_JSON]),
        ("no json", [Reason.NO_LIST]),
        ('{"no": "list"}', [Reason.NO_LIST]),
    ]


NEIGHBOURS = len(rejects("", "")) + len(folds("")) + 1


def two_active(job: Job) -> list[str]:
    active = [task.id for task in job.tasks() if task.state is TaskState.ACTIVE]
    return active if len(active) == 2 else []


def rejected(house: House) -> list[str]:
    """Return the reasons of all that was rejected."""
    return sorted(row["reason"] for row in read_rows(house.jobs.database, "rejected_event"))


def test_no_odd_event_stops_the_tracker_or_takes_others_with_it(house: House) -> None:
    refuse_poison(house.jobs.database)
    house.broker()
    tracker = house.tracker()
    house.worker()
    gate = house.gate("open")
    job = house.jobs.submit(group(house.proj.hold.s(number, str(gate)) for number in range(4)))
    gate.reached(2)

    written = texts(*until(lambda: two_active(job), timeout=PATIENCE, what="two active tasks"))
    expected = sorted([reason for _, reasons in written for reason in reasons] + [Reason.NEWER])
    with house.app.connection_for_write() as connection:
        log = open_writer(connection)
        for text, _ in written:
            log.append(WrittenBatch(v=VERSION, source=SOURCE, worker=WORKER, events=text))
        log.append(WrittenBatch(v=VERSION + 1, source=SOURCE, worker=WORKER, events="[]"))
    until(lambda: len(rejected(house)) >= len(expected), timeout=PATIENCE, what="all rejected events")
    gate.open()

    assert job.wait(timeout=PATIENCE) is JobState.COMPLETED
    house.check_completed_once(job)
    assert rejected(house) == expected
    known = sorted(row["name"] for row in read_rows(house.jobs.database, "worker"))
    neighbours = [name for name in known if name.startswith("neighbour")]
    assert neighbours == [f"neighbour-{number:02}@house" for number in range(NEIGHBOURS)]

    assert tracker.running
    assert tracker.text.count("its events are folded apart") == 1
    assert tracker.text.count(Reason.NO_TIME) == 1  # of three
    house.jobs.submit(house.proj.add.s(1, 2)).wait(timeout=PATIENCE)
    assert rejected(house) == expected


@pytest.mark.house_on("postgresql-redis")
def test_a_database_that_is_not_as_it_should_be_is_no_fault_of_events(house: House) -> None:
    """The tracker waits, and goes on when that is mended: nothing was rejected, and nothing lost."""
    house.broker()
    tracker = house.tracker()
    house.worker()
    with house.jobs.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE attempt RENAME TO elsewhere")
    job = house.jobs.submit(house.proj.add.s(1, 2))
    tracker.says("cannot be used")
    with house.jobs.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO attempt")
    assert job.wait(timeout=PATIENCE) is JobState.COMPLETED
    assert rejected(house) == []
