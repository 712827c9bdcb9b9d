"""The thread that writes a worker's events, in a process of its own, on a real broker."""

import json
import subprocess
import sys
from typing import Any

from jobrunner.wire import EVENT_LOG
from tests.house import House, on_sqlite
from tests.process import ROOT

pytestmark = on_sqlite

#: A process with a flusher whose signs of life come quickly; the rest of the program says what it tells.
PROGRAM = """
from tests.integration.proj import app
from workers import flusher
flusher._BEAT = 0.05
writer = flusher.Flusher(app, "process-1", beats=True)
def say(number, **fields):
    writer.add({"type": "task-progress", "hostname": "w1@host", "number": number, **fields}, monitored=True)
"""


def run(house: House, program: str) -> list[dict[str, Any]]:
    """Run a program with a flusher to its end, and return what the event log then holds."""
    house.broker()
    subprocess.run(
        [sys.executable, "-c", PROGRAM + program], cwd=ROOT, env=house.environment, check=True, capture_output=True
    )
    with house.redis() as redis:
        entries: Any = [fields for _, fields in redis.xrange(EVENT_LOG)]
    return [entry | {"events": json.loads(entry["events"])} for entry in entries]


def numbers(entries: list[dict[str, Any]]) -> list[int]:
    return [event["number"] for entry in entries for event in entry["events"]]


def test_a_process_that_ends_has_written_its_events_in_order_and_who_wrote_them(house: House) -> None:
    entries = run(house, "for number in range(500): say(number)")
    assert numbers(entries) == list(range(500))
    assert {(entry["source"], entry["worker"]) for entry in entries} == {("process-1", "w1@host")}


def test_an_event_that_cannot_be_written_does_not_hold_up_the_others(house: House) -> None:
    entries = run(house, "say(1, files={'a', 'b'}); say(2, odd={(1, 2): 'a key that JSON does not have'}); say(3)")
    assert numbers(entries) == [1, 3]


def test_a_process_with_nothing_to_say_says_that_it_lives(house: House) -> None:
    wait = "from tests.waiting import until\nsay(1)\nuntil(lambda: app.connection().default_channel.client.xlen("
    entries = run(house, wait + f"{EVENT_LOG!r}) > 2, what='signs of life')")
    assert [entry["events"] for entry in entries[1:3]] == [[], []]
    assert {entry["worker"] for entry in entries} == {"w1@host"}


def test_monitors_that_cannot_be_told_hold_up_nothing_and_double_nothing(house: House) -> None:
    """Somebody has made their exchange in another way, or we lack the right to write to it."""
    broken = "flusher.Flusher._copy = lambda *_: 1 / 0\n"
    entries = run(house, broken + "for number in range(300): say(number)")
    assert numbers(entries) == list(range(300))
