"""The thread that writes a worker's events, in a process of its own, on each broker."""

import subprocess
import sys
from collections import Counter

import pytest

from tests.house import House, on_each_broker, on_sqlite
from tests.process import ROOT, Process
from tests.waiting import PATIENCE
from tracker.eventlog import Entry, open_log

pytestmark = on_each_broker

#: A process with a flusher whose signs of life come quickly; the rest of the program says what it tells.
PROGRAM = """
import os, time
from jobrunner import errors
from tests.integration.proj import app
from tests.waiting import PATIENCE, until
from tracker.eventlog import open_log
from workers import flusher
flusher._BEAT = 0.05

def new(limit=20_000, beats=False):
    global writer
    writer = flusher.Flusher(app, "process-1", beats=beats, limit=limit)

def say(number, type="task-progress", **fields):
    writer.add({"type": type, "hostname": "w1@host", "number": number, **fields}, monitored=True)

def said(*numbers):
    for number in numbers:
        say(number)
        assert writer.drain(PATIENCE)

def tell(*numbers, timeout=PATIENCE, **fields):
    events = [{"type": "task-progress", "hostname": "w1@host", "number": number, **fields} for number in numbers]
    writer.tell(events, timeout)

def refuses(error, *numbers, timeout=0.5, **fields):
    try:
        tell(*numbers, timeout=timeout, **fields)
    except errors.JobrunnerError as refused:
        assert type(refused).__name__ == error, refused
        print(error, *numbers, flush=True)
    else:
        raise AssertionError("it was told")

def read_by_a_tracker(wanted):
    log, position, found = open_log(app), None, []
    def read():
        nonlocal position
        if (batch := log.read(position, 0.1)) is not None:
            found.extend(event["number"] for entry in batch.entries for event in entry.events)
            position = batch.position
            log.trim(position)
            if hasattr(log, "_redis"):  # which trims roughly, and now and then
                log._redis.xtrim("jobrunner:events", minid=position, approximate=False)
        return len(found) >= wanted
    until(read, timeout=PATIENCE, what=f"{wanted} events in the log")
    log.close()
    print(found)
"""


def run(house: House, program: str) -> "subprocess.CompletedProcess[str]":
    """Run a program with a flusher to its end."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM + program],
        cwd=ROOT, env=house.environment, check=True, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip


def entries(house: House) -> list[Entry]:
    """Return what the event log holds."""
    log, position, found = open_log(house.app), None, []
    while (batch := log.read(position, 0.1)) is not None:
        found += batch.entries
        position = batch.position
    log.close()
    return found


def numbers(found: list[Entry]) -> list[int]:
    return [event["number"] for entry in found for event in entry.events]


def places(found: list[Entry]) -> list[int]:
    return [entry.numbered.number for entry in found if entry.numbered]


def series(found: list[Entry]) -> list[str]:
    return [entry.numbered.series for entry in found if entry.numbered]


def dropped(found: list[Entry]) -> list[int]:
    return [entry.numbered.dropped for entry in found if entry.numbered]


# ---- what is written ---------------------------------------------------------------------------------------


def test_a_process_that_ends_has_written_its_events_in_order_and_who_wrote_them(house: House) -> None:
    house.broker()
    run(house, "new()\nfor number in range(500): say(number)")
    found = entries(house)
    assert numbers(found) == list(range(500))
    assert {(entry.source, entry.worker) for entry in found} == {("process-1", "w1@host")}


@on_sqlite
def test_batches_are_numbered_from_1_in_a_series_for_each_process(house: House) -> None:
    house.broker()
    program = "import os\nnew()\nsaid(1, 2)\nif os.fork():\n    said(3)\n    os.wait()\nelse:\n    new(); said(4)"
    run(house, program)
    found = entries(house)
    assert sorted(Counter(series(found)).values()) == [1, 3]
    assert sorted(places(found)) == [1, 1, 2, 3]
    assert {entry.source for entry in found} == {"process-1"}


@on_sqlite
def test_a_process_that_was_silent_for_long_begins_another_series(house: House) -> None:
    house.broker()
    run(house, "new()\nsaid(1, 2)\nfrom workers import batches\nbatches.SERIES_PAUSE = 0.0\nsaid(3)")
    first, second, third = entries(house)
    assert places([first, second, third]) == [1, 2, 1]
    assert series([first]) == series([second]) != series([third])


@on_sqlite
def test_an_event_that_cannot_be_written_is_counted_and_does_not_hold_up_the_others(house: House) -> None:
    house.broker()
    run(house, "new()\nsay(1, files={'a', 'b'}); say(2, odd={(1, 2): 'a key that JSON does not have'}); say(3)")
    found = entries(house)
    assert numbers(found) == [1, 3]
    assert dropped(found)[-1] == 1


@on_sqlite
def test_an_event_that_no_broker_takes_is_counted_and_long_ones_share_no_batch(house: House) -> None:
    house.broker()
    done = run(
        house,
        "new()\nsay(0, text='x' * 16_000_000)\nsay(1)\nfor number in range(2, 6): say(number, text='x' * 150_000)",
    )
    found = entries(house)
    assert numbers(found) == [1, 2, 3, 4, 5]
    assert max(len(entry.events) for entry in found) == 2
    assert dropped(found)[-1] == 1
    assert "more than 15000000" in done.stderr


@on_sqlite
def test_a_process_with_nothing_to_say_says_that_it_lives(house: House) -> None:
    house.broker()
    run(house, "new(beats=True)\nsaid(1)\nuntil(lambda: writer._series._number > 2, timeout=PATIENCE, what='beats')")
    found = entries(house)
    assert [entry.events for entry in found[1:3]] == [[], []]
    assert {entry.worker for entry in found} == {"w1@host"}
    assert places(found) == list(range(1, len(found) + 1))


# ---- monitors ----------------------------------------------------------------------------------------------


@on_sqlite
def test_monitors_that_cannot_be_told_hold_up_nothing_and_double_nothing(house: House) -> None:
    """Somebody has made their exchange in another way, or we lack the right to write to it."""
    house.broker()
    run(house, "flusher.Monitors._copy = lambda *_: 1 / 0\nnew()\nfor number in range(300): say(number)")
    assert numbers(entries(house)) == list(range(300))


#: Prints what a monitor is told, which must listen before anything is said.
MONITOR = """
told = []
def hears(number):
    def enough():
        try:
            connection.drain_events(timeout=0.1)
        except TimeoutError:
            pass
        return len(told) >= number
    until(enough, timeout=PATIENCE, what=f"{number} events")
    print([(event["type"], event["number"], event["hostname"]) for event in told])
receiver = app.events.Receiver(app.connection_for_read(), handlers={"*": told.append})
context = receiver.consumer_context(wakeup=False)
connection, _, _ = context.__enter__()
hears(0)
"""
TOLD = "say(1, timestamp=1, clock=1, utcoffset=0)\nsay(2, 'worker-heartbeat', timestamp=1, clock=1, utcoffset=0)\n"
HEARD = [("task-progress", 1, "w1@host"), ("worker-heartbeat", 2, "w1@host")]


def test_monitors_are_told_what_the_log_is_told(house: House) -> None:
    house.broker()
    heard = run(house, f"{MONITOR}\nnew()\n{TOLD}hears(2)").stdout
    assert heard.splitlines()[-1] == str(HEARD)
    assert numbers(entries(house)) == [1, 2]


@on_sqlite
def test_monitors_are_told_in_the_apps_own_format(house: House) -> None:
    house.broker()
    own = "app.conf.event_serializer = 'pickle'\napp.conf.accept_content = ['pickle']\n"
    heard = run(house, f"{own}{MONITOR}\nnew()\n{TOLD}hears(2)").stdout
    assert heard.splitlines()[-1] == str(HEARD)
    assert numbers(entries(house)) == [1, 2]


@on_sqlite
def test_what_monitors_are_not_to_see_is_in_the_log_alone(house: House) -> None:
    house.broker()
    unseen = "writer.add({'type': 'task-progress', 'hostname': 'w1@host', 'number': 0}, monitored=False)\n"
    heard = run(house, f"{MONITOR}\nnew()\n{unseen}{TOLD}hears(2)").stdout
    assert heard.splitlines()[-1] == str(HEARD)
    assert numbers(entries(house)) == [0, 1, 2]


# ---- a broker that is away ---------------------------------------------------------------------------------


def start(house: House, program: str) -> Process:
    """Start a program with a flusher."""
    return house.start("flusher", [sys.executable, "-c", PROGRAM + program])


def test_what_is_told_while_the_broker_is_away_is_written_when_it_is_back(house: House) -> None:
    server, gone = house.broker(), house.gate("gone")
    with house.redis() as redis:  # else one whose disk is slow loses up to two seconds when it is killed
        redis.config_set("appendfsync", "always")
    process = start(
        house,
        f"""
from pathlib import Path
new()
said(0, 1, 2)
print("written", flush=True)
until(Path({str(gone)!r}).exists, timeout=PATIENCE, what="the broker to be gone")
for number in range(3, 600): say(number)
until(lambda: writer._away, timeout=PATIENCE, what="the flusher to know")
assert not writer.drain(10 * PATIENCE)
print("waiting", flush=True)
until(lambda: writer.drain(1), timeout=PATIENCE, what="the events to be written")
""",
    )
    process.says("written")
    server.kill()
    gone.open()
    process.says("waiting")
    house.broker()
    assert process.popen.wait(PATIENCE) == 0
    found = entries(house)
    assert sorted(set(numbers(found))) == list(range(600))
    assert sorted(set(places(found))) == list(range(1, places(found)[-1] + 1))
    assert dropped(found)[-1] == 0


@on_sqlite
def test_what_the_buffer_cannot_hold_is_dropped_and_counted_without_waiting(house: House) -> None:
    house.broker().kill()
    process = start(
        house,
        """
flusher._CAPACITY = 50
new()
began = time.monotonic()
for number in range(80): say(number)
print(f"{writer.dropped} dropped", flush=True)
assert time.monotonic() - began < 5
until(lambda: writer.drain(1), timeout=PATIENCE, what="the rest to be written")
said(80)
""",
    )
    process.says("30 dropped")
    house.broker()
    assert process.popen.wait(PATIENCE) == 0
    found = entries(house)
    assert sorted(set(numbers(found))) == [*range(50), 80]
    assert dropped(found)[-1] == 30
    assert process.text.count("what comes on top is dropped") == 1


# ---- a log that nobody reads -------------------------------------------------------------------------------


def test_a_full_log_holds_back_what_must_not_be_lost_until_it_is_read(house: House) -> None:
    house.broker()
    program = (
        "new(limit=10)\nsaid(*range(10))\n"
        "for number in range(10, 15): say(number)\n"
        "until(lambda: writer._backlog.is_stuck, timeout=PATIENCE, what='events to wait')\n"
        "assert not writer.drain(PATIENCE)\n"
        "read_by_a_tracker(15)"
    )
    done = run(house, program)
    assert done.stdout.split("\n")[0] == str(list(range(15)))
    assert done.stderr.count("The event log is full (10 entries)") == 1
    assert "jobrunner tracker" in done.stderr


def test_heartbeats_and_logs_leave_half_of_the_log_to_events_that_must_not_be_lost(house: House) -> None:
    house.broker()
    program = (
        "new(limit=10, beats=True)\n"
        "beat = lambda: (say(0, 'worker-heartbeat'), writer.drain(PATIENCE)) and writer._backlog.is_long\n"
        "until(beat, timeout=PATIENCE, what='half of the log')\n"
        "for _ in range(20): beat(), say(0, 'task-logged')\n"
        "said(1, 2, 3)"
    )
    done = run(house, program)
    found = entries(house)
    assert len(found) == 8
    assert numbers(found)[-3:] == [1, 2, 3]
    assert places(found) == list(range(1, 9))
    assert done.stderr.count("heartbeats are left out") == 1


@on_sqlite
def test_of_what_tasks_log_little_waits_for_a_broker_that_is_away(house: House) -> None:
    program = (
        "new()\n"
        "part = {'type': 'task-logged', 'hostname': 'w1@host', 'text': 'x' * 1_000_000}\n"
        "taken = [writer.offer(part) for _ in range(50)]\n"
        "assert 10 < sum(taken) <= 30 and not taken[-1], taken\n"  # what is being written does not count
        "os._exit(0)"
    )
    run(house, program)


def test_monitors_see_everything_while_the_log_is_full(house: House) -> None:
    house.broker()
    done = run(house, f"{MONITOR}\nnew(limit=1)\nsaid(0)\nhears(1)\ntold.clear()\n{TOLD}hears(2)")
    assert done.stdout.splitlines()[-1] == str(HEARD)


@on_sqlite
def test_a_process_that_ends_writes_what_waits_into_a_full_log(house: House) -> None:
    """Nobody else has it; and it is no more than a buffer holds."""
    house.broker()
    run(house, "new(limit=2)\nsaid(0, 1)\nfor number in range(2, 300): say(number)")
    assert numbers(entries(house)) == list(range(300))


# ---- what somebody waits for -------------------------------------------------------------------------------


def test_what_was_told_is_in_the_log_when_the_call_returns_behind_all_that_came_before(house: House) -> None:
    house.broker()
    run(house, "new()\nfor number in range(450): say(number)\ntell(450, 451)\ntell(452)\nsay(453)\nos._exit(0)")
    found = entries(house)
    assert numbers(found) == list(range(453))
    assert [event["number"] for event in found[-2].events] == [450, 451]  # by itself: it could have been withdrawn
    assert places(found) == list(range(1, len(found) + 1))


@on_sqlite
def test_a_process_of_a_pool_tells_with_a_series_of_its_own(house: House) -> None:
    house.broker()
    program = """
def event(number):
    return {"type": "task-progress", "hostname": "w1@host", "number": number}
app.events.flusher.tell([event(1)], PATIENCE)
if not os.fork():
    app.events.flusher.tell([event(2)], PATIENCE)
    os._exit(0)
os.wait()
app.events.flusher.tell([event(3)], PATIENCE)
"""
    run(house, program)
    found = [entry for entry in entries(house) if entry.events]  # without those that only say that it lives
    main, child, again = series(found)
    assert (numbers(found), main == again, main == child) == ([1, 2, 3], True, False)
    assert len({entry.source for entry in found}) == 1


def test_what_a_task_of_a_job_has_sent_is_in_the_log_when_its_process_tells_its_end(house: House) -> None:
    """Nothing else is: neither what others send, nor the retry with which a task sends itself."""
    house.broker()
    program = """
from celery import signals
from celery._state import _task_stack
from jobrunner.ids import uuid7
from tests.integration.proj import add
app.events.follow_sent("w1@host")
if not os.fork():
    add.apply_async((1, 2))
    _task_stack.push(add)
    add.push_request(id="itself", root_id=uuid7(), called_directly=False)
    add.apply_async((1, 2), task_id="itself")
    for number in range(300): add.apply_async((number, 2), task_id=f"child {number}")
    signals.task_postrun.send(sender=add)
    os._exit(0)
os.wait()
"""
    run(house, program)
    found = [event for entry in entries(house) for event in entry.events]
    assert [event["uuid"] for event in found] == [f"child {number}" for number in range(300)]
    assert {(event["type"], event["parent_id"], event["hostname"]) for event in found} == {
        ("task-sent", "itself", "w1@host"),
    }  # fmt: skip


@on_sqlite
@pytest.mark.parametrize("patch", ["", "from gevent import monkey; monkey.patch_all()\n"], ids=["threads", "gevent"])
def test_many_may_tell_at_once(house: House, patch: str) -> None:
    house.broker()
    program = f"""{patch}{PROGRAM}
import threading
new()
telling = [threading.Thread(target=tell, args=(number,)) for number in range(30)]
for one in telling: one.start()
for one in telling: one.join()
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=house.environment, check=True, timeout=PATIENCE)
    found = entries(house)
    assert sorted(numbers(found)) == list(range(30))
    assert places(found) == list(range(1, len(found) + 1))


def test_what_a_full_log_had_no_room_for_is_refused_and_not_written_later(house: House) -> None:
    house.broker()
    program = """
new(limit=5)
said(*range(5))
refuses("EventLogFullError", 100)
say(5)
refuses("EventLogFullError", 101, 102)
read_by_a_tracker(6)
until(lambda: writer.drain(1), timeout=PATIENCE, what="the rest to be written")
tell(6)
os._exit(0)
"""
    done = run(house, program)
    assert done.stdout.splitlines()[-1] == str(list(range(6)))
    found = entries(house)
    assert [number for number in numbers(found) if number > 5] == [6]
    assert places(found) == list(range(places(found)[0], places(found)[-1] + 1))


def test_what_the_broker_did_not_take_in_time_is_refused_and_not_written_later(house: House) -> None:
    server, gone, back = house.broker(), house.gate("gone"), house.gate("back")
    process = start(
        house,
        f"""
from pathlib import Path
new()
said(0)
print("written", flush=True)
until(Path({str(gone)!r}).exists, timeout=PATIENCE, what="the broker to be gone")
refuses("UnreachableError", 100)
say(1)
refuses("UnreachableError", 101)
until(Path({str(back)!r}).exists, timeout=PATIENCE, what="the broker to be back")
tell(2)
print("told", flush=True)
os._exit(0)
""",
    )
    process.says("written")
    server.kill()
    gone.open()
    process.says("UnreachableError 101")
    house.broker()
    back.open()
    process.says("told")
    found = entries(house)
    assert sorted(set(numbers(found))) == [0, 1, 2]
    assert sorted(set(places(found))) == list(range(1, places(found)[-1] + 1))


@on_sqlite
def test_a_broken_connection_is_no_reason_to_refuse(house: House) -> None:
    """One that was idle for long may be broken before anybody has noticed."""
    house.broker()
    run(
        house,
        "new()\nsaid(0)\nwriter._connection.default_channel.client.connection_pool.disconnect()\n"
        "writer._log._channel.client = None\ntell(1)\nos._exit(0)",
    )
    assert sorted(set(numbers(entries(house)))) == [0, 1]


@on_sqlite
def test_what_no_batch_can_hold_is_refused_whole(house: House) -> None:
    house.broker()
    program = """
new()
refuses("RefusedError", 1, 2, text="x" * 8_000_000)
refuses("RefusedError", 3, odd={(1, 2): "a key that JSON does not have"})
tell(4)
"""
    run(house, program)
    assert numbers(entries(house)) == [4]


@on_sqlite
def test_who_is_interrupted_while_waiting_has_told_nothing(house: House) -> None:
    """As by a soft time limit."""
    house.broker()
    program = """
import signal
def interrupt(*_):
    raise InterruptedError
signal.signal(signal.SIGALRM, interrupt)
new(limit=3)
said(0, 1, 2)
signal.setitimer(signal.ITIMER_REAL, 0.3)
try:
    tell(100)
except InterruptedError:
    print("interrupted")
read_by_a_tracker(3)
tell(3)
os._exit(0)
"""
    assert "interrupted" in run(house, program).stdout
    assert [number for number in numbers(entries(house)) if number > 2] == [3]
