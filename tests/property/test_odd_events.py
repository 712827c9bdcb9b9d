"""Whatever is written into the event log: reading it does not fail, nothing disappears, and no neighbour is lost."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner.statements import LONGEST_ITEM, MOST_ERRORS, ItemCounts
from jobrunner.states import WELL
from jobrunner.text import EVENT, NAME, SENTENCE
from jobrunner.wire import VERSION
from tests.builders import attempt, entry, event, raw_event
from tracker.absorb import _culprits
from tracker.eventlog.entries import decode
from tracker.events import Told, read_events
from tracker.fold import Event, fold
from tracker.statements import errors_told, note_of, stated

_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=5)
_json = st.recursive(
    _scalars,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3),
    max_leaves=5,
)
_fields = [*raw_event(), "runtime", "result", "exception", "traceback", "expired", "terminated"]
_types = st.sampled_from(
    ["task-received", "task-started", "task-succeeded", "task-failed", "task-revoked", "worker-online"]
)
_errors = ["item", "label", "type", "message", "details"]
#: What a body states, of which any part may be anything.
_stated = st.builds(
    lambda odd: raw_event(type="task-stated") | odd,
    st.fixed_dictionaries(
        {},
        optional={
            "first": st.integers() | _json,
            "errors": st.lists(_json | st.fixed_dictionaries({}, optional=dict.fromkeys(_errors, _json)), max_size=3),
            "statement": st.fixed_dictionaries(
                {"state": st.sampled_from(sorted(WELL)) | _json},
                optional={
                    "counts": st.dictionaries(st.sampled_from(ItemCounts.__slots__), st.integers() | _json) | _json,
                    "branches": st.lists(_json, max_size=3) | _json,
                }
                | dict.fromkeys(["why", "errors", "skips"], _json),
            ),
        },
    ),
)
#: Any value, and events of which any field may be anything.
_odd = (
    _json
    | _stated
    | st.builds(
        lambda type_, odd: raw_event(type=type_) | odd,
        _types,
        st.fixed_dictionaries({}, optional=dict.fromkeys(_fields, _json)),
    )
)


def _number(told: Told) -> int:
    """How many events were read, rejected or counted."""
    return len(told.events) + told.rejects.counts.total() + told.unknown.total()


@settings(deadline=None)
@given(st.lists(_odd, max_size=4))
def test_any_value_as_an_event_is_read_rejected_or_counted_and_its_neighbours_are_read(odd: list[object]) -> None:
    written = [raw_event(uuid="first"), *odd, raw_event(uuid="last")]
    told = read_events([decode(VERSION, "process-1", "w1@host", json.dumps(written))])
    assert (told.events[0].uuid, told.events[-1].uuid) == ("first", "last")
    assert _number(told) == len(written)


@settings(deadline=None)
@given(_odd)
def test_what_was_read_can_be_folded_and_what_was_rejected_can_be_written_down(odd: object) -> None:
    told = read_events([entry(odd)])
    for one in told.events:
        folded = fold(attempt(), one)
        _fits(folded.worker, NAME), _fits(folded.result, SENTENCE), _fits(folded.exception, SENTENCE)
        assert folded.runtime is None or abs(folded.runtime) < float("inf")
    for row in told.rejects.rows:
        _fits(row.worker, NAME), _fits(row.type, NAME), _fits(row.uuid, NAME), _fits(row.event, EVENT)


@settings(deadline=None)
@given(_stated)
def test_of_what_is_stated_that_is_kept_which_a_database_can_hold(odd: object) -> None:
    (one,) = read_events([entry(odd)]).events
    statement = stated(fold(attempt(), one))
    if statement is not None:
        _fits(statement.why, SENTENCE), _fits(statement.skips, SENTENCE), _fits(note_of(statement), SENTENCE)
        counts = asdict(statement.counts or ItemCounts())
        assert all(0 <= number < 2**40 for number in (statement.errors, *counts.values()))
    for row in errors_told(one.fields, "task", (1, 0, "process")):
        _fits(row.label, NAME), _fits(row.type, NAME), _fits(row.message, SENTENCE)
        _fits(row.item, LONGEST_ITEM), _fits(row.details, LONGEST_ITEM)
        assert 0 <= row.number < MOST_ERRORS


def _fits(text: str | None, limit: int) -> None:
    assert text is None or (len(text) <= limit and "\x00" not in text and text.encode().decode() == text)


@settings(deadline=None)
@given(
    before=st.lists(_odd, max_size=2),
    broken=st.sampled_from(["[" * 100_000, "1" * 5_000, "nul", "{", '{"a": tru}', "[}"]),
)
def test_an_item_that_no_parser_takes_costs_none_of_those_before_it(before: list[object], broken: str) -> None:
    written = [raw_event(uuid="first"), *before]
    text = f"[{', '.join(map(json.dumps, written))}, {broken}]"
    told = read_events([decode(VERSION, "process-1", "w1@host", text)])
    assert told.events[0].uuid == "first"
    assert _number(told) > len(written)


@settings(deadline=None)
@given(*[_json | st.binary(max_size=8)] * 4)
def test_any_entry_at_all_is_read_or_rejected(version: Any, source: Any, worker: Any, events: Any) -> None:
    told = read_events([decode(version, source, worker, events)])
    assert _number(told) >= (events not in (b"[]", "[]", []))


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=40))
def test_halving_finds_every_culprit_and_lets_each_other_event_in_once(odd: list[bool]) -> None:
    events = [event("started", pid=number) for number in range(len(odd))]
    taken: list[int | None] = []

    def attempt_all(part: Sequence[Event]) -> None:
        if any(odd[one.pid or 0] for one in part):
            raise ValueError
        taken.extend(one.pid for one in part)

    found = [one.pid for one, _ in _culprits(events, attempt_all)]
    assert found == [number for number, is_odd in enumerate(odd) if is_odd]
    assert taken == [number for number, is_odd in enumerate(odd) if not is_odd]
