"""The plain receiver, message by message: what it passes over, what it keeps, and how much."""

import json
import logging
import threading
from typing import Any

import pytest
from celery import Celery
from kombu.message import Message

from jobrunner.wire import COPY, VERSION
from tests.builders import raw_event
from tracker import plain
from tracker.plain import PlainReceiver
from tracker.rejects import Reason


@pytest.fixture
def receiver() -> PlainReceiver:
    return PlainReceiver(Celery("nobody", broker="memory://", set_as_current=False))


def message(body: Any, content_type: str = "application/json", **headers: Any) -> Message:
    return Message(body, content_type=content_type, content_encoding="utf-8", headers=headers, accept=["json"])


def heard(receiver: PlainReceiver, *messages: Message) -> list[Any]:
    for one in messages:
        receiver._receive(one)
    return [event for entry in receiver.take(1_000) for event in entry.events]


def test_an_event_and_a_list_of_events_are_heard_without_a_source(receiver: PlainReceiver) -> None:
    one, two = raw_event(uuid="1"), raw_event(uuid="2")
    receiver._receive(message(json.dumps(one)))
    receiver._receive(message(json.dumps([one, two]).encode()))
    entries = receiver.take(1_000)
    assert [event for entry in entries for event in entry.events] == [one, one, two]
    assert {entry.source for entry in entries} == {None}


def test_a_copy_of_what_is_in_the_event_log_is_passed_over_unread(receiver: PlainReceiver) -> None:
    assert heard(receiver, message("not even JSON", **{COPY: VERSION})) == []


def test_what_is_no_json_is_rejected_and_takes_nothing_with_it(receiver: PlainReceiver) -> None:
    receiver._receive(message(f'[{json.dumps(raw_event())}, {{"type": ]'))
    receiver._receive(message(json.dumps([{"type": ["list"], "hostname": "w1@host"}])))
    receiver._receive(message(b"\x80pickled", content_type="application/x-python-serialize"))
    first, odd, second = receiver.take(1_000)
    assert first.events == [raw_event()]
    assert odd.events == [{"type": ["list"], "hostname": "w1@host"}]
    assert [reason for entry in (first, second) for reason, _ in entry.malformed] == [Reason.NOT_JSON] * 2


def test_it_gives_away_about_as_many_events_as_asked_for(receiver: PlainReceiver) -> None:
    for _ in range(3):
        receiver._receive(message(json.dumps([raw_event(), raw_event()])))
    assert [len(receiver.take(3)) for _ in range(3)] == [2, 1, 0]


def test_more_than_its_buffer_holds_is_dropped_counted_and_told(
    receiver: PlainReceiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="tracker.plain")
    monkeypatch.setattr(plain, "_CAPACITY", 3)
    two = message(json.dumps([raw_event(), raw_event()]))
    assert len(heard(receiver, two, two, message(json.dumps(raw_event())))) == 3
    assert receiver.dropped == 2
    assert "2 events of workers without jobrunner were dropped" in caplog.text
    assert len(heard(receiver, two)) == 2


def test_a_worker_is_asked_for_its_events_at_its_first_heartbeats_and_again_when_it_comes_again(
    receiver: PlainReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(receiver, "_broadcast", lambda _, destination: asked.append(destination))
    beat = message(json.dumps(raw_event(type="worker-heartbeat", hostname="w1@host")))
    online = message(json.dumps(raw_event(type="worker-online", hostname="w1@host")))
    for one in [online, *[beat] * 10]:
        receiver._receive(one)
        receiver._ask()
    assert asked == [["w1@host"]] * plain._ASKS
    for one in [online, beat, message(json.dumps(raw_event(type="worker-heartbeat")), **{COPY: VERSION})]:
        receiver._receive(one)
        receiver._ask()
    assert asked == [["w1@host"]] * (plain._ASKS + 1)


def test_while_the_broker_is_away_it_goes_on_trying_says_so_once_and_can_be_stopped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(plain, "_RETRY", 0.01)
    tries = threading.Semaphore(0)
    receiver = PlainReceiver(Celery("nobody", broker="redis://:secret@127.0.0.1:1/0", set_as_current=False))
    listen = receiver._listen
    monkeypatch.setattr(receiver, "_listen", lambda stop: (tries.release(), listen(stop)))
    receiver.start()
    assert all(tries.acquire(timeout=30) for _ in range(3))
    receiver.stop()
    told = [record.getMessage() for record in caplog.records if record.name == "tracker.plain"]
    assert len([one for one in told if one.startswith("Plain events are missed")]) == 1
    assert "secret" not in caplog.text
