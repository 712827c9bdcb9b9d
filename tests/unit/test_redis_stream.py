"""What is read from the event log: foreign data, checked and bounded before anything depends on it."""

import json

import pytest

from jobrunner.text import NAME, SOURCE
from jobrunner.wire import VERSION
from tracker.eventlog import Entry
from tracker.eventlog.redis_stream import _entry


def written(**fields: object) -> dict[bytes, bytes]:
    """An entry of the stream as a worker writes it."""
    batch = {"v": VERSION, "source": "process-1", "worker": "w1@host", "events": "[]", **fields}
    return {name.encode(): str(value).encode() for name, value in batch.items()}


def test_a_batch_says_who_wrote_it_and_what() -> None:
    events = [{"type": "worker-heartbeat"}]
    assert _entry(written(events=json.dumps(events))) == Entry(source="process-1", worker="w1@host", events=events)


def test_an_empty_entry_is_a_wake_up() -> None:
    assert _entry({b"wake": b"1"}) == Entry()


@pytest.mark.parametrize(
    "fields",
    [{"v": "one"}, {"v": VERSION + 1}, {"events": "no json"}, {"events": "[" * 100_000}],
    ids=["version", "newer", "text", "nesting"],
)
def test_what_is_malformed_or_newer_is_left_out(fields: dict[str, object]) -> None:
    assert _entry(written(**fields)) == Entry()


def test_names_are_cut_to_what_columns_hold() -> None:
    entry = _entry(written(source="s" * 300, worker="w" * 300))
    assert len(entry.source or "") == SOURCE
    assert len(entry.worker or "") == NAME
