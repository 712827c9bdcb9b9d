"""What was rejected: bounded rows of it, all of it counted, and told once per reason and worker."""

import logging

import pytest

from jobrunner.text import EVENT
from tests.builders import raw_event
from tracker.rejects import _NAMES, _QUIET, _ROWS, Reason, Rejects, Tally

NOON = 43_200.0


def rejects(number: int = 1, *, reason: Reason = Reason.NO_TIME, worker: str = "w1@host") -> Rejects:
    made = Rejects()
    for _ in range(number):
        made.add(reason, raw_event(hostname=worker), source="process-1", worker=worker)
    return made


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was told since this was asked last."""
    found = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return found


@pytest.fixture(autouse=True)
def _listening(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="tracker.rejects")


def test_a_row_says_what_the_event_says_of_itself() -> None:
    made = Rejects()
    made.add(Reason.NO_TIME, raw_event(type="task-x", uuid="u", hostname="w2@host"), source="s", worker="w1@host")
    (row,) = made.rows
    assert (row.type, row.uuid, row.source, row.worker) == ("task-x", "u", "s", "w2@host")
    assert '"uuid": "u"' in row.event


def test_an_events_text_is_cut_and_clean() -> None:
    made = Rejects()
    for odd in ({"x": "\x00\ud800" + "x" * 10_000_000}, b"\xff\x00" * 100_000, "\udfff"):
        made.add(Reason.NO_EVENT, odd, source=None, worker=None)
    assert [len(row.event) for row in made.rows] == [EVENT, EVENT, 3]
    assert all("\x00" not in row.event and row.event.encode() for row in made.rows)


def test_an_event_nested_too_deep_to_be_written_keeps_its_other_fields() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    made = Rejects()
    made.add(Reason.NO_FOLD, {"uuid": "u", "result": deep}, source=None, worker=None)
    made.add(Reason.NO_EVENT, deep, source=None, worker=None)
    assert [row.event for row in made.rows] == ['{"uuid": "u", "…": "nested too deep"}', '{"…": "nested too deep"}']


def test_a_flood_in_one_batch_makes_so_many_rows_and_is_counted_whole() -> None:
    made = rejects(_ROWS + 10)
    assert (len(made.rows), made.counts.total()) == (_ROWS, _ROWS + 10)


def test_a_flood_in_many_batches_makes_a_row_a_second() -> None:
    tally = Tally()
    tally.note(rejects(_ROWS + 10), {}, NOON)
    assert (tally.room(NOON), tally.room(NOON + 7), tally.room(NOON + 10 * _ROWS)) == (0, 7, _ROWS)
    assert (tally.unwritten, tally.rejected.total()) == (10, _ROWS + 10)


def test_a_reason_is_told_once_per_worker_and_again_after_a_while(caplog: pytest.LogCaptureFixture) -> None:
    tally = Tally()
    tally.note(rejects(3), {}, NOON)
    assert [Reason.NO_TIME in one and "Rejected 3 from worker 'w1@host'" in one for one in told(caplog)] == [True]
    tally.note(rejects(), {}, NOON + _QUIET - 1)
    assert told(caplog) == []
    tally.note(rejects(worker="w2@host"), {}, NOON + _QUIET - 1)
    tally.note(rejects(reason=Reason.NO_TASK), {}, NOON + _QUIET - 1)
    assert len(told(caplog)) == 2
    tally.note(rejects(), {}, NOON + _QUIET)
    assert ["(6 of this kind until now" in one for one in told(caplog)] == [True]
    assert tally.rejected == {Reason.NO_TIME: 6, Reason.NO_TASK: 1}


def test_any_number_of_names_makes_so_many_lines(caplog: pytest.LogCaptureFixture) -> None:
    tally = Tally()
    for number in range(2 * _NAMES):
        tally.note(rejects(worker=f"w{number}@host"), {f"type-{number}": 1}, NOON)
    assert len(told(caplog)) <= 2 * (_NAMES + 1)
    assert tally.unknown.total() == 2 * _NAMES
    assert len(tally.unknown) == _NAMES + 1


def test_an_unknown_type_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    tally = Tally()
    for _ in range(3):
        tally.note(Rejects(), {"task-new": 2}, NOON)
    assert told(caplog) == ["Events of type 'task-new' are counted, and nothing else."]
    assert tally.unknown == {"task-new": 6}
