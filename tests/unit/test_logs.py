"""What a process collects of what the bodies of tasks log and print."""

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import StringIO

import pytest
from celery.app.log import LoggingProxy

from jobrunner.log_lines import read_part
from tests.waiting import PATIENCE, until
from workers import logs
from workers.lines import Lines
from workers.logs import Collector, keep, keeper

logger = logging.getLogger(__name__)


class Kept:
    """A log, and what was told of it."""

    def __init__(self, collector: Collector) -> None:
        self.parts: list[str] = []
        self.lines = Lines(self._tell, limit=1_000_000, rate=1_000, awaits=collector.await_lines)

    def _tell(self, _number: int, _at: float, text: str) -> bool:
        self.parts.append(text)
        return True

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(line.level, line.text) for part in self.parts for line in read_part(part, datetime.now(UTC))]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Return one of its own, which hears nothing after the test; streams are those of pytest, new for each test."""
    made = Collector()
    monkeypatch.setattr(logs, "collector", made)
    yield made
    every = [one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    for one in (logging.root, *every):
        one.removeHandler(made._handler)


@contextmanager
def collecting(collector: Collector, lines: Lines, *, alone: bool = False) -> Iterator[None]:
    """Do what a worker does around a body."""
    collector.open(lines, alone=alone)
    try:
        yield
    finally:
        collector.close(lines)


def test_what_is_logged_under_any_logger_is_kept_while_a_task_runs(collector: Collector) -> None:
    alone = logging.getLogger(f"{__name__}.alone")
    alone.propagate = False
    kept = Kept(collector)
    logger.error("before")
    with collecting(collector, kept.lines):
        logger.warning("%d of %s", 1, "two")
        logging.getLogger().error("root")
        alone.critical("alone")
        try:
            raise ValueError("why")  # noqa: EM101, TRY301  a body's own
        except ValueError:
            logger.exception("failed")
    logger.error("after")
    assert kept.told[:4] == [("WARNING", "1 of two"), ("ERROR", "root"), ("CRITICAL", "alone"), ("ERROR", "failed")]
    assert kept.told[4] == ("ERROR", "Traceback (most recent call last):")
    assert kept.told[-1] == ("ERROR", "ValueError: why")


def test_a_logging_that_a_body_configures_anew_is_heard_by_the_next_task(collector: Collector) -> None:
    first, second = Kept(collector), Kept(collector)
    before = logging.root.handlers[:]
    with collecting(collector, first.lines):
        logging.root.handlers.clear()
    logging.root.handlers[:] = before
    logging.root.removeHandler(collector._handler)
    with collecting(collector, second.lines):
        logger.error("heard")
    assert second.told == [("ERROR", "heard")]


def test_what_cannot_be_made_a_text_raises_nothing(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    for handler in logging.root.handlers:  # pytest's raise
        monkeypatch.setattr(handler, "emit", lambda _: None)
    kept = Kept(collector)
    with collecting(collector, kept.lines):
        logger.error("%d", "no number")
        logger.error("next")
    assert kept.told == [("ERROR", "next")]


def test_what_is_printed_is_kept_and_goes_where_it_went(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = StringIO(), StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    kept = Kept(collector)
    with collecting(collector, kept.lines):
        print("a", 1)  # noqa: T201  what is tested
        print("b", file=sys.stderr)  # noqa: T201
        sys.stdout.writelines(["c\n", "d"])
    assert kept.told == [("OUTPUT", "a 1"), ("OUTPUT", "b"), ("OUTPUT", "c"), ("OUTPUT", "d")]
    assert (out.getvalue(), err.getvalue()) == ("a 1\nc\nd", "b\n")


@pytest.mark.parametrize("level", [logging.WARNING, logging.DEBUG])
def test_what_celery_lets_go_to_its_log_is_kept_once_as_printed(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, level: int
) -> None:
    """Also below the level of that log; where Celery has a record for each word, there is one line."""
    monkeypatch.setattr(sys, "stdout", LoggingProxy(logging.getLogger("celery.redirected"), level))
    kept = Kept(collector)
    with collecting(collector, kept.lines):
        print("a", "b")  # noqa: T201  what is tested
        sys.stdout.write(b"bytes, which Celery takes as well")  # type: ignore[arg-type]
    assert kept.told == [("OUTPUT", "a b")]


def test_every_thread_has_a_log_of_its_own(collector: Collector) -> None:
    kept = [Kept(collector) for _ in range(3)]
    ready = threading.Barrier(3)

    def work(number: int) -> None:
        with collecting(collector, kept[number].lines):
            ready.wait(PATIENCE)
            logger.error("%d", number)
            ready.wait(PATIENCE)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.told for one in kept] == [[("ERROR", str(number))] for number in range(3)]


def _log_in_a_thread(name: str) -> None:
    thread = threading.Thread(target=logger.error, args=("from a thread",), name=name)
    thread.start()
    thread.join()


def test_threads_that_a_task_starts_belong_to_it_where_one_runs_at_a_time(collector: Collector) -> None:
    alone, one_of_many = Kept(collector), Kept(collector)
    with collecting(collector, alone.lines, alone=True):
        _log_in_a_thread("theirs")
        _log_in_a_thread("jobrunner-flusher")
    with collecting(collector, one_of_many.lines):
        _log_in_a_thread("theirs")
    assert (alone.told, one_of_many.told) == ([("ERROR", "from a thread")], [])


def test_lines_can_be_kept_from_any_thread_that_was_told_whose(collector: Collector) -> None:
    keep("nobody's")
    keeper()("nobody's")
    kept = Kept(collector)
    with collecting(collector, kept.lines):
        keep("mine")
        thread = threading.Thread(target=keeper(), args=("for me\nas well",))
        thread.start()
        thread.join()
    assert kept.told == [("OUTPUT", "mine"), ("OUTPUT", "for me"), ("OUTPUT", "as well")]


def test_lines_are_told_in_a_moment_while_the_task_goes_on(collector: Collector) -> None:
    kept = Kept(collector)
    with collecting(collector, kept.lines):
        for number in range(2):
            logger.error("line")
            until(lambda number=number: len(kept.told) > number, timeout=PATIENCE, what="a line to be told")  # type: ignore[misc]
    assert len(kept.parts) == 2


def test_a_task_that_logs_nothing_starts_no_thread_and_tells_nothing(collector: Collector) -> None:
    kept = Kept(collector)
    with collecting(collector, kept.lines):
        pass
    assert (kept.parts, collector._teller) == ([], None)


def test_what_a_process_logs_that_a_body_has_forked_is_not_told_twice(collector: Collector) -> None:
    kept = Kept(collector)
    with collecting(collector, kept.lines, alone=True):
        kept.lines.pid = os.getpid() + 1  # as it looks from there
        logger.error("from another process")
    assert kept.told == []
