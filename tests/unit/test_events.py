"""The boundary where events of workers are checked: what is malformed is left out, and nothing else with it."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner.text import NAME
from tests.builders import MIDNIGHT, entry, raw_event
from tracker.eventlog import Entry
from tracker.events import read_events
from tracker.fold import Event


def _without(field: str) -> dict[str, Any]:
    return {name: value for name, value in raw_event().items() if name != field}


def test_an_event_is_read_with_all_that_the_fold_needs() -> None:
    raw = raw_event(type="task-succeeded", uuid="u", hostname="w1@host", pid=7, retries=2, runtime=1.5)
    assert list(read_events([entry(raw, source="process-1")])) == [
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
    (event,) = read_events([entry(raw_event(timestamp=MIDNIGHT.timestamp(), utcoffset=-9))])
    assert (event.at, event.at.tzname()) == (MIDNIGHT, "UTC")


def test_events_come_in_the_order_of_the_log() -> None:
    entries = [entry(raw_event(uuid="a"), raw_event(uuid="b")), entry(raw_event(uuid="c"))]
    assert [event.uuid for event in read_events(entries)] == ["a", "b", "c"]


def test_a_wake_up_holds_no_events() -> None:
    assert list(read_events([Entry()])) == []


@pytest.mark.parametrize(
    "malformed",
    [
        pytest.param(_without("type"), id="no type"),
        pytest.param(_without("hostname"), id="no worker"),
        pytest.param(_without("timestamp"), id="no time"),
        pytest.param(raw_event(timestamp=None), id="time is null"),
        pytest.param(raw_event(timestamp="noon"), id="time is text"),
        pytest.param(raw_event(timestamp=[1]), id="time is a list"),
        pytest.param(raw_event(timestamp=float("nan")), id="time is nan"),
        pytest.param(raw_event(timestamp=float("inf")), id="time is infinite"),
        pytest.param(raw_event(timestamp=1e300), id="time is out of range"),
        pytest.param(raw_event(timestamp=10**400), id="time is no float"),
        pytest.param("task-started", id="text"),
        pytest.param(5, id="number"),
        pytest.param(None, id="null"),
        pytest.param([], id="empty list"),
        pytest.param(["type", "hostname"], id="list"),
        pytest.param({}, id="nothing"),
    ],
)
def test_a_malformed_event_is_left_out_and_the_others_of_its_entry_survive(malformed: object) -> None:
    read = read_events([entry(raw_event(uuid="a"), malformed, raw_event(uuid="b")), entry(raw_event(uuid="c"))])
    assert [event.uuid for event in read] == ["a", "b", "c"]


@pytest.mark.parametrize("field", ["pid", "retries"])
@pytest.mark.parametrize("value", [None, "3", 3.0, True, [3], 2**31, -(2**31), 10**30])
def test_a_number_that_is_none_is_not_known(field: str, value: object) -> None:
    (event,) = read_events([entry(raw_event(**{field: value}))])
    assert getattr(event, field) is None


@pytest.mark.parametrize("value", [0, 3, 2**31 - 1])
def test_a_number_that_fits_is_kept(value: int) -> None:
    (event,) = read_events([entry(raw_event(pid=value, retries=value))])
    assert (event.pid, event.retries) == (value, value)


def test_an_event_of_a_worker_that_does_not_know_jobrunner_has_neither_source_nor_retries() -> None:
    (event,) = read_events([entry(_without("retries"), source=None)])
    assert (event.source, event.retries) == (None, None)


@pytest.mark.parametrize("uuid", [None, ""])
def test_an_event_about_no_task_has_an_empty_uuid(uuid: object) -> None:
    assert [event.uuid for event in read_events([entry(raw_event(uuid=uuid), _without("uuid"))])] == ["", ""]


def test_names_are_cut_and_cleaned() -> None:
    (event,) = read_events([entry(raw_event(uuid="\x00" + "u" * 300, hostname="\ud800" + "w" * 300))])
    assert (len(event.uuid), len(event.worker)) == (NAME, NAME)
    assert (event.uuid + event.worker).isprintable()


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(st.lists(_json | st.fixed_dictionaries({}, optional=dict.fromkeys(sorted(raw_event()), _json)), max_size=4))
def test_whatever_a_worker_writes_reading_does_not_fail(odd: list[object]) -> None:
    written = json.loads(json.dumps([raw_event(uuid="first"), *odd, raw_event(uuid="last")]))
    read = [event.uuid for event in read_events([entry(*written)])]
    assert (read[0], read[-1]) == ("first", "last")
