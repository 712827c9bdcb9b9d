"""What never arrived, by the numbers of batches; and what the database keeps of them for trackers that take over."""

import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from jobrunner import JobRunner
from jobrunner.records import Loss, Series
from jobrunner.store import reading, tracking
from jobrunner.wire import SERIES_FORGOTTEN, SERIES_PAUSE
from tests.apps import new_runner
from tests.builders import MIDNIGHT, entry, numbered
from tracker.eventlog import Entry
from tracker.series import Numbering
from tracker.turn import Turn

NOON = 1_000.0


def known(number: int, *, dropped: int = 0) -> Numbering:
    """A tracker's knowledge of a series that was read up to this number."""
    made = Numbering()
    made.know({"series-1": Series(id="series-1", worker="w1@host", number=number, dropped=dropped)}, NOON)
    return made


def lost(numbering: Numbering, *entries: Entry) -> list[tuple[list[int], int]]:
    """Return the numbers that are missed and the events that are dropped, loss by loss."""
    _, losses = numbering.follow(entries)
    return [(list(one.missed), one.events) for one in losses]


# ---- gaps --------------------------------------------------------------------------------------------------


def test_batches_that_follow_each_other_leave_no_gap() -> None:
    assert lost(known(4), numbered(5), numbered(6), numbered(7)) == []


def test_what_lies_between_two_numbers_is_missed() -> None:
    numbering = known(4)
    assert lost(numbering, numbered(5), numbered(8)) == [([6, 7], 0)]
    assert lost(numbering, numbered(9)) == []


def test_a_batch_that_comes_again_is_no_gap_and_takes_nothing_back() -> None:
    numbering = known(4)
    assert lost(numbering, numbered(5), numbered(5), numbered(4), numbered(6)) == []
    assert numbering.known["series-1"].number == 6


def test_series_are_told_apart() -> None:
    entries = [numbered(1, series="a"), numbered(1, series="b"), numbered(2, series="a"), numbered(3, series="b")]
    assert lost(known(4), *entries) == [([2], 0)]


def test_the_first_batches_of_a_new_process_can_be_missed_too() -> None:
    assert lost(known(4), numbered(3, series="new")) == [([1, 2], 0)]


def test_a_tracker_whose_database_knows_no_series_takes_each_up_where_it_is() -> None:
    numbering = Numbering()
    numbering.know({}, NOON)
    assert lost(numbering, numbered(30), numbered(50, series="other"), numbered(31)) == []
    assert lost(numbering, numbered(33)) == [([32], 0)]


def test_entries_without_a_number_are_passed_over() -> None:
    assert lost(known(4), entry(), Entry(), numbered(5)) == []


def test_dropped_events_are_counted_once_by_what_the_process_says_in_all() -> None:
    numbering = known(4, dropped=10)
    assert lost(numbering, numbered(5, dropped=10), numbered(6, dropped=12), numbered(7, dropped=12)) == [([], 2)]


# ---- in the database ---------------------------------------------------------------------------------------


@pytest.fixture
def runner(tmp_path: Path, database_url: str) -> Iterator[JobRunner]:
    made = new_runner(tmp_path, database=database_url)
    yield made
    made.database.close()


def note(runner: JobRunner, numbering: Numbering, *entries: Entry, after: float = 0.0) -> list[Loss]:
    """Note what a batch holds in a transaction of its own."""
    with runner.database.write() as connection:
        for worker in {one.worker for one in entries if one.worker}:
            tracking.save_worker(connection, worker, "process-1", 7, online=True, now=MIDNIGHT)
        turn = Turn(connection, MIDNIGHT + timedelta(seconds=after))
        losses = numbering.note(turn, entries)
        numbering.forget(turn, NOON + after)
        return losses


def of_a_new_tracker(runner: JobRunner) -> Numbering:
    numbering = Numbering()
    with runner.database.read() as connection:
        numbering.know(tracking.known_series(connection), NOON)
    return numbering


def test_a_tracker_that_takes_over_goes_on_where_the_one_before_was(runner: JobRunner) -> None:
    note(runner, of_a_new_tracker(runner), numbered(1), numbered(2), numbered(1, series="b"))
    note(runner, of_a_new_tracker(runner), numbered(2), numbered(3))
    assert lost(of_a_new_tracker(runner), numbered(3), numbered(4), numbered(2, series="b")) == []
    assert lost(of_a_new_tracker(runner), numbered(6), numbered(4, series="b")) == [([4, 5], 0), ([2, 3], 0)]


def test_losses_add_up_for_each_worker_and_are_shown(runner: JobRunner) -> None:
    numbering = of_a_new_tracker(runner)
    note(runner, numbering, numbered(1), numbered(3, dropped=5), numbered(9, series="b", worker="w2@host"))
    note(runner, numbering, numbered(6, dropped=6))
    with runner.database.read() as connection:
        views = reading.list_workers(connection, None)
    assert [(view.name, view.events_dropped, view.batches_missed) for view in views] == [
        ("w1@host", 6, 3),
        ("w2@host", 0, 0),
    ]


def test_a_series_is_forgotten_when_its_process_would_long_have_begun_another(runner: JobRunner) -> None:
    numbering = of_a_new_tracker(runner)
    note(runner, numbering, numbered(1, series="ended"), numbered(1, series="speaks"))
    note(runner, numbering, numbered(2, series="speaks"), after=SERIES_FORGOTTEN - SERIES_PAUSE)
    assert numbering.known.keys() == {"ended", "speaks"}
    note(runner, numbering, numbered(3, series="speaks"), after=SERIES_FORGOTTEN + 1)
    assert numbering.known.keys() == of_a_new_tracker(runner).known.keys() == {"speaks"}


# ---- in the log --------------------------------------------------------------------------------------------


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was told since this was asked last."""
    lines = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return lines


def test_what_is_lost_is_told_once_with_worker_and_numbers(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    numbering = known(4)
    for number in (8, 10):
        numbering.tell(numbering.follow([numbered(number, dropped=number)])[1], NOON)
    missed, dropped = told(caplog)
    assert missed.startswith("Batches 5 to 7 of worker 'w1@host' never arrived (series series-1)")
    assert dropped.startswith("Worker 'w1@host' has dropped 8 events")
    numbering.tell(numbering.follow([numbered(12, worker="w2@host")])[1], NOON)
    assert "Batches 11 to 11 of worker 'w2@host'" in told(caplog)[0]
    numbering.tell(numbering.follow([numbered(14)])[1], NOON + 300)
    assert "Batches 13 to 13 of worker 'w1@host'" in told(caplog)[0]
