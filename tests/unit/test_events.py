"""The boundary where events of workers are checked: what is malformed is rejected, and nothing else with it."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from jobrunner.text import NAME
from tests.builders import MIDNIGHT, entry, raw_event
from tracker.eventlog import Entry
from tracker.events import Told, read_events
from tracker.fold import Event
from tracker.rejects import Reason


def read(entries: Iterable[Entry]) -> list[Event]:
    """Return the events of entries in which nothing is malformed."""
    told = read_events(entries)
    assert told.rejects.counts == {}
    return told.events


def _without(field: str) -> dict[str, Any]:
    return {name: value for name, value in raw_event().items() if name != field}


def test_an_event_is_read_with_all_that_the_fold_needs() -> None:
    raw = raw_event(type="task-succeeded", uuid="u", hostname="w1@host", pid=7, retries=2, runtime=1.5)
    assert read([entry(raw, source="process-1")]) == [
        Event(
            type="task-succeeded",
            uuid="u",
            worker="w1@host",
            at=MIDNIGHT,
            source="process-1",
            pid=7,
            retries=2,
            fields=raw,
        )
    ]


def test_times_are_aware_and_in_utc() -> None:
    (event,) = read([entry(raw_event(timestamp=MIDNIGHT.timestamp(), utcoffset=-9))])
    assert (event.at, event.at.tzname()) == (MIDNIGHT, "UTC")


def test_events_come_in_the_order_of_the_log() -> None:
    entries = [entry(raw_event(uuid="a"), raw_event(uuid="b")), entry(raw_event(uuid="c"))]
    assert [event.uuid for event in read(entries)] == ["a", "b", "c"]


def test_a_wake_up_holds_no_events() -> None:
    assert read_events([Entry()]) == Told()


@pytest.mark.parametrize(
    ("malformed", "reason"),
    [
        pytest.param(_without("type"), Reason.NO_EVENT, id="no type"),
        pytest.param(raw_event(type=["task-started"]), Reason.NO_EVENT, id="type is a list"),
        pytest.param(raw_event(type=""), Reason.NO_EVENT, id="type is empty"),
        pytest.param("task-started", Reason.NO_EVENT, id="text"),
        pytest.param(5, Reason.NO_EVENT, id="number"),
        pytest.param(None, Reason.NO_EVENT, id="null"),
        pytest.param([], Reason.NO_EVENT, id="empty list"),
        pytest.param(["type", "hostname"], Reason.NO_EVENT, id="list"),
        pytest.param({}, Reason.NO_EVENT, id="nothing"),
        pytest.param(_without("uuid"), Reason.NO_TASK, id="no task"),
        pytest.param(raw_event(uuid=""), Reason.NO_TASK, id="task is empty"),
        pytest.param(raw_event(uuid=["task"]), Reason.NO_TASK, id="task is a list"),
        pytest.param(_without("hostname"), Reason.NO_WORKER, id="no worker"),
        pytest.param(raw_event(hostname=5), Reason.NO_WORKER, id="worker is a number"),
        pytest.param(_without("timestamp"), Reason.NO_TIME, id="no time"),
        pytest.param(raw_event(timestamp=None), Reason.NO_TIME, id="time is null"),
        pytest.param(raw_event(timestamp="noon"), Reason.NO_TIME, id="time is text"),
        pytest.param(raw_event(timestamp="1.0"), Reason.NO_TIME, id="time is text of a number"),
        pytest.param(raw_event(timestamp=True), Reason.NO_TIME, id="time is true"),
        pytest.param(raw_event(timestamp=[1]), Reason.NO_TIME, id="time is a list"),
        pytest.param(raw_event(timestamp=float("nan")), Reason.NO_TIME, id="time is nan"),
        pytest.param(raw_event(timestamp=float("inf")), Reason.NO_TIME, id="time is infinite"),
        pytest.param(raw_event(timestamp=1e300), Reason.NO_TIME, id="time is out of range"),
        pytest.param(raw_event(timestamp=10**400), Reason.NO_TIME, id="time is no float"),
        pytest.param(raw_event(timestamp=253402300799.999999), Reason.NO_TIME, id="the last moment of 9999"),
        pytest.param(raw_event(timestamp=-62135596800), Reason.NO_TIME, id="the first moment of the year 1"),
        pytest.param(raw_event(type="task-logged", number=0), Reason.NO_LOG, id="log without text"),
        pytest.param(raw_event(type="task-logged", text="a"), Reason.NO_LOG, id="log without number"),
        pytest.param(raw_event(type="task-logged", text="a", number=-1), Reason.NO_LOG, id="log before the first"),
        pytest.param(raw_event(type="task-logged", text=["a"], number=0), Reason.NO_LOG, id="log is a list"),
    ],
)
def test_a_malformed_event_is_rejected_and_the_others_of_its_entry_are_read(malformed: object, reason: Reason) -> None:
    told = read_events([entry(raw_event(uuid="a"), malformed, raw_event(uuid="b")), entry(raw_event(uuid="c"))])
    assert [event.uuid for event in told.events] == ["a", "b", "c"]
    (rejected,) = told.rejects.rows
    assert (rejected.reason, rejected.source, rejected.worker or "w1@host") == (reason, "process-1", "w1@host")
    assert told.rejects.counts.total() == 1


@pytest.mark.parametrize("year", [2, 1960, 1970, 9998])
def test_an_event_of_a_clock_that_is_wrong_is_read(year: int) -> None:
    at = datetime(year, 1, 1, tzinfo=UTC)
    (event,) = read([entry(raw_event(timestamp=at.timestamp()))])
    assert event.at == at


@pytest.mark.parametrize("type_", ["task-unheard-of", "worker-", "my-own", "\x00\ud800", "x" * 300])
def test_an_event_of_unknown_type_is_counted_and_not_rejected_whatever_else_it_says(type_: str) -> None:
    told = read_events([entry({"type": type_, "timestamp": "noon"}, {"type": type_}, raw_event())])
    assert (list(told.unknown.values()), len(told.events), told.rejects.rows) == ([2], 1, [])
    assert all(len(one) <= NAME and one.encode() for one in told.unknown)


def test_what_an_entry_says_of_its_own_malformed_parts_is_rejected_with_it() -> None:
    told = read_events([replace(entry(raw_event()), malformed=[(Reason.NOT_JSON, b'{"no": ')])])
    assert len(told.events) == 1
    (rejected,) = told.rejects.rows
    assert (rejected.reason, rejected.event, rejected.worker) == (Reason.NOT_JSON, '{"no": ', "w1@host")


@pytest.mark.parametrize("field", ["pid", "retries"])
@pytest.mark.parametrize("value", [None, "3", 3.0, True, [3], 2**31, -1, -(2**31), 10**30])
def test_a_number_that_is_none_is_not_known(field: str, value: object) -> None:
    (event,) = read([entry(raw_event(**{field: value}))])
    assert getattr(event, field) is None


@pytest.mark.parametrize("value", [0, 3, 2**30 - 1])
def test_a_number_that_fits_is_kept(value: int) -> None:
    (event,) = read([entry(raw_event(pid=value, retries=value))])
    assert (event.pid, event.retries) == (value, value)


def test_an_event_of_a_worker_that_does_not_know_jobrunner_has_neither_source_nor_retries() -> None:
    (event,) = read([entry(_without("retries"), source=None)])
    assert (event.source, event.retries) == (None, None)


def test_retries_from_which_nobody_could_count_on_are_not_known() -> None:
    (event,) = read([entry(raw_event(pid=2**31 - 1, retries=2**31 - 1))])
    assert (event.pid, event.retries) == (2**31 - 1, None)


@pytest.mark.parametrize("uuid", [None, "", [["x"]]])
def test_an_event_about_a_worker_needs_no_task(uuid: object) -> None:
    (event,) = read([entry(raw_event(type="worker-heartbeat", uuid=uuid))])
    assert event.uuid == ""


def test_names_are_cut_and_cleaned() -> None:
    (event,) = read([entry(raw_event(uuid="\x00" + "u" * 300, hostname="\ud800" + "w" * 300))])
    assert (len(event.uuid), len(event.worker)) == (NAME, NAME)
    assert (event.uuid + event.worker).isprintable()
