"""Reports of progress: what is one, and how often a worker tells of them."""

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from jobrunner import current
from jobrunner.errors import InvalidParametersError
from jobrunner.reports import Report, read_report, report_of, report_told
from workers.reports import Reports


@pytest.mark.parametrize(
    ("done", "total", "share"),
    [(3, 4, 0.75), (0, 4, 0.0), (4, 4, 1.0), (5, 4, 1.0), (0, 0, 1.0), (0.5, None, 0.5), (1, None, 1.0),
     (1.5, 3.0, 0.5), (10**300, 10**301, 0.1), (Fraction(1, 4), None, 0.25)],
)  # fmt: skip
def test_a_report_is_a_share(done: float, total: float | None, share: float) -> None:
    assert report_of(done, total).share == share


@pytest.mark.parametrize(
    ("done", "total"),
    [(-1, 4), (1, -4), (math.nan, 4), (1, math.nan), (math.inf, None), (True, 4), ("1", 4), (1, "4"), (None, 4),
     (Decimal(1), 4), (10**400, 4)],
)  # fmt: skip
def test_what_is_no_report_is_refused_wherever_it_is_made(done: Any, total: Any) -> None:
    with pytest.raises(InvalidParametersError, match=r"is none\. Give two numbers from 0 up, or one from 0 to 1"):
        current.progress(done, total)


def test_a_share_above_one_is_refused_because_it_lacks_its_total() -> None:
    with pytest.raises(InvalidParametersError, match="Give the total as well"):
        current.progress(50)


def test_where_no_worker_runs_a_task_a_report_does_nothing() -> None:
    current.progress(1, 2, "anywhere")


def test_a_message_is_bounded_text() -> None:
    assert report_of(1, 2, "x\x00" + "y" * 2_000).message == "x\N{REPLACEMENT CHARACTER}" + "y" * 997 + "…"
    assert report_of(1, 2, 7).message == "7"


@pytest.mark.parametrize(
    "told",
    [{"current": 1, "total": 4, "status": "m"}, {"done": 1, "total": 4, "message": "m"},
     {"progress": 0.25, "description": "m"}, {"done": 0.25, "message": "m", "more": object()}],
)  # fmt: skip
def test_the_ways_of_existing_code_are_read(told: dict[str, Any]) -> None:
    report = read_report(told)
    assert report is not None
    assert (report.share, report.message) == (0.25, "m")


@pytest.mark.parametrize("told", [{}, {"percent": 25}, {"current": "a"}, {"total": 4}, {"degrees": 1}])
def test_what_says_nothing_of_progress_is_no_report(told: dict[str, Any]) -> None:
    assert read_report(told) is None
    assert report_told(told) is None


@pytest.mark.parametrize("odd", [True, "1", 2.0, -0.5, math.nan, 10**400, [1]])
def test_an_odd_share_in_an_event_is_unknown(odd: object) -> None:
    assert report_told({"progress": odd}) is None


def test_of_what_our_workers_tell_the_share_counts() -> None:
    told = report_told({"progress": 1.0, "done": 9, "total": 10, "message": "m"})
    assert told == report_of(1.0, None, "m")
    assert report_told({"current": 1, "total": 4, "status": "m"}) == report_of(1, 4, "m")


# ---- how often -----------------------------------------------------------------------------------------


class Clockwork:
    """A clock that a test sets, and timers that go off by it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.daemon = False
        self._due: float | None = None
        self._ring: Callable[[], None] = lambda: None

    def timer(self, seconds: float, ring: Callable[[], None]) -> Any:
        self._due, self._ring = self.now + seconds, ring
        return self

    def start(self) -> None:
        assert self.daemon  # else a worker would wait for it at its end

    def cancel(self) -> None:
        self._due = None

    def advance(self, seconds: float) -> None:
        self.now += seconds
        if self._due is not None and self.now >= self._due:
            self._ring()


def made() -> tuple[Reports, Clockwork, list[dict[str, Any]]]:
    told: list[dict[str, Any]] = []
    clockwork = Clockwork()
    reports = Reports(lambda one: told.append(dict(one)), clock=lambda: clockwork.now, timer=clockwork.timer)
    return reports, clockwork, told


def share(value: float, message: str | None = None) -> Report:
    return report_of(value, None, message)


def test_of_10_000_reports_in_a_second_three_events_are_told_and_the_last_has_the_last_value() -> None:
    reports, clockwork, told = made()
    for number in range(10_000):
        reports.add(report_of(number + 1, 10_000, f"item {number}"))
        clockwork.advance(0.000_1)
    reports.end()
    assert [round(one["done"] / 5_000) for one in told] == [0, 1, 2]
    assert (told[-1]["progress"], told[-1]["done"], told[-1]["message"]) == (1.0, 10_000, "item 9999")


def test_the_first_report_is_told_at_once() -> None:
    reports, _, told = made()
    reports.add(share(0.1))
    assert [one["progress"] for one in told] == [0.1]


def test_a_body_that_falls_silent_is_shown_where_it_is() -> None:
    reports, clockwork, told = made()
    for value in (0.1, 0.2, 0.3):
        reports.add(share(value))
    clockwork.advance(0.5)
    assert [one["progress"] for one in told] == [0.1, 0.3]
    clockwork.advance(60)
    reports.end()
    assert len(told) == 2


def test_what_is_told_never_goes_back_and_says_what_was_said_last() -> None:
    reports, clockwork, told = made()
    for value, message in ((0.9, "nearly"), (0.2, "once more"), (0.5, None)):
        reports.add(share(value, message))
        clockwork.advance(1)
    assert [(one["progress"], one["done"], one["message"]) for one in told] == [
        (0.9, 0.9, "nearly"), (0.9, 0.2, "once more"), (0.9, 0.5, None),
    ]  # fmt: skip
    assert reports.last == share(0.5)


def test_fields_of_the_bodys_own_go_along() -> None:
    reports, _, told = made()
    reports.add(share(0.5), {"degrees": 200, "progress": 7})
    assert (told[0]["degrees"], told[0]["progress"]) == (200, 0.5)
