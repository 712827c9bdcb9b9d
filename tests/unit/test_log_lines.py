"""The lines of a task's log: written and read again, and kept within bounds."""

from datetime import UTC, datetime

import pytest

from jobrunner.log_lines import FULL_PART, LONGEST_LINE, LONGEST_PART, LogLine, read_part, write_line
from tests.builders import MIDNIGHT
from workers.lines import Lines

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Log:
    """A log whose time stands still unless a test moves it, and whose parts a test can refuse."""

    def __init__(self, *, limit: int = 1_000_000, rate: int = 1_000) -> None:
        self.now = NOON.timestamp()
        self.parts: list[str] = []
        self.numbers: list[int] = []
        self.takes = True
        self.awaited = 0
        self.lines = Lines(self._tell, limit=limit, rate=rate, awaits=self._await, clock=lambda: self.now)

    def _tell(self, number: int, _at: float, text: str) -> bool:
        if self.takes:
            self.parts.append(text)
            self.numbers.append(number)
        return self.takes

    def _await(self) -> None:
        self.awaited += 1

    @property
    def kept(self) -> list[LogLine]:
        return [line for part in self.parts for line in read_part(part, MIDNIGHT)]

    @property
    def texts(self) -> list[str]:
        return [line.text for line in self.kept]

    @property
    def notices(self) -> list[str]:
        return [line.text for line in self.kept if line.level == "NOTICE"]


# ---- a line ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", " ", "  indented", "1.000 INFO like another", "größe 🎈", "a\tb"])
def test_a_line_is_read_as_it_was_written(text: str) -> None:
    (line,) = read_part(write_line(NOON.timestamp() + 0.25, "INFO", text), MIDNIGHT)
    assert line == LogLine(at=NOON.replace(microsecond=250_000), level="INFO", text=text)


def test_a_level_is_one_bounded_word() -> None:
    assert next(read_part(write_line(0, "Level 7", "x"), MIDNIGHT)).level == "Level_7"
    assert next(read_part(write_line(0, "", "x"), MIDNIGHT)).level == "NOTICE"
    assert len(next(read_part(write_line(0, "L" * 99, "x"), MIDNIGHT)).level) == 20


@pytest.mark.parametrize("text", ["", "no time", "99999999999.000 INFO x", "1.0 INFO x"])
def test_what_is_no_line_of_ours_counts_as_printed_at_the_time_of_its_part(text: str) -> None:
    assert list(read_part(text, MIDNIGHT)) == [LogLine(at=MIDNIGHT, level="OUTPUT", text=text)]


# ---- what is added -----------------------------------------------------------------------------------------


def test_a_message_of_several_lines_is_several_lines() -> None:
    log = Log()
    log.lines.add("first\n  second\r\nthird", "ERROR")
    log.lines.tell()
    assert log.texts == ["first", "  second", "third"]
    assert {line.level for line in log.kept} == {"ERROR"}


def test_what_is_printed_is_a_line_when_that_has_ended_or_at_the_end() -> None:
    log = Log()
    out, err = object(), object()
    for stream, text in ((out, "a"), (err, "x\ny"), (out, " b\nc"), (out, " d")):
        log.lines.write(stream, text)
    log.lines.tell()
    assert log.texts == ["x", "a b"]
    log.lines.close()
    assert log.texts == ["x", "a b", "y", "c d"]


def test_a_line_that_never_ends_is_bounded() -> None:
    log = Log()
    for _ in range(3):
        log.lines.write(log, "x" * 3_000)
    log.lines.close()
    assert [len(text) for text in log.texts] == [LONGEST_LINE, 3_000]
    assert log.texts[0].endswith("x…")


def test_passwords_are_masked() -> None:
    log = Log()
    log.lines.add("to redis://:secret@host/0 with password=secret")
    log.lines.close()
    assert log.texts == ["to redis://:***@host/0 with password=***"]


def test_it_is_awaited_when_there_is_something_to_tell() -> None:
    log = Log()
    log.lines.tell()
    assert (log.awaited, log.parts) == (0, [])
    log.lines.add("x")
    assert log.awaited == 1


def test_a_part_is_told_when_it_is_full_and_parts_are_numbered() -> None:
    log = Log(rate=10**9)
    log.lines.add("\n".join("x" * 1_000 for _ in range(100)))
    log.lines.close()
    assert log.numbers == list(range(len(log.parts)))
    assert len(log.parts) == 4
    assert all(FULL_PART <= len(part) < FULL_PART + LONGEST_LINE for part in log.parts[:-1])


# ---- what is left out --------------------------------------------------------------------------------------


def test_of_100_000_lines_in_a_second_a_thousand_are_kept_and_the_number_of_the_others() -> None:
    """The first ones and the last ones: what has gone wrong is said at the end."""
    log = Log()
    for number in range(100_000):
        log.lines.add(f"line {number}")
    log.lines.tell()
    assert len(log.texts) == 900
    log.lines.close()
    assert log.texts == [
        *(f"line {number}" for number in range(900)),
        "99,000 lines are left out: there were more than 1,000 in a second.",
        *(f"line {number}" for number in range(99_900, 100_000)),
    ]


def test_the_next_second_begins_with_the_last_lines_of_the_one_before_and_what_was_left_out() -> None:
    log = Log(rate=10)
    log.lines.add("\n".join("abcdefghijkl"))
    log.now += 1
    log.lines.add("m")
    log.lines.close()
    assert log.texts == [*"abcdefghi", "2 lines are left out: there were more than 10 in a second.", *"lm"]
    assert [line.at.second for line in log.kept] == [0] * 11 + [1]


def test_the_last_lines_of_a_second_are_told_when_it_is_over() -> None:
    log = Log(rate=10)
    log.lines.add("\n".join("abcdefghij"))
    log.lines.tell()
    awaited = log.awaited
    log.lines.tell()
    assert log.texts == [*"abcdefghi"]
    assert log.awaited > awaited  # it is asked again
    log.now += 1
    log.lines.tell()
    assert log.texts == [*"abcdefghij"]
    log.lines.close()
    assert log.texts == [*"abcdefghij"]


def test_what_was_left_out_is_said_as_well_if_nothing_follows_for_long() -> None:
    log = Log(rate=1)
    log.lines.add("a")
    log.lines.tell()
    awaited = log.awaited
    log.lines.add("b")
    assert log.awaited > awaited
    log.lines.tell()
    assert log.notices == ["1 line is left out: there were more than 1 in a second."]


def test_a_clock_that_is_put_back_lets_lines_through() -> None:
    log = Log(rate=1)
    log.lines.add("a\nb")
    log.now -= 3_600
    log.lines.add("c")
    log.lines.close()
    assert [text for text in log.texts if text not in log.notices] == ["a", "c"]


def test_a_log_that_is_full_says_so_at_once_and_keeps_its_last_lines() -> None:
    log = Log(limit=10_000, rate=10**9)
    for number in range(1_000):
        log.lines.add(f"line {number}")
    log.lines.tell()
    first = len(log.kept) - 1
    assert log.notices == ["The log is full, with 9,996 characters: of the rest, the last lines are kept."]
    log.lines.close()
    assert log.notices[1:] == [f"{1_000 - first - 100:,} lines are left out here."]
    assert log.texts[-100:] == [f"line {number}" for number in range(900, 1_000)]
    assert sum(map(len, log.parts)) < 10_000 + 101 * 50


def test_long_last_lines_fit_into_a_part() -> None:
    log = Log(limit=1, rate=10**9)
    for number in range(200):
        log.lines.add(f"{number:03} " + "x" * LONGEST_LINE)
    log.lines.close()
    assert all(len(part) <= LONGEST_PART for part in log.parts)
    assert log.notices[-1] == "193 lines are left out here."
    assert [text[:3] for text in log.texts[-7:]] == [f"{number}" for number in range(193, 200)]


def test_what_nobody_takes_is_left_out_and_said_later() -> None:
    log = Log()
    log.takes = False
    log.lines.add("a\nb")
    log.lines.tell()
    log.takes = True
    log.lines.add("c")
    log.lines.close()
    assert log.numbers == [0]  # no number is missing
    assert log.texts == ["c", "2 lines are left out: too much of what tasks log waits for the broker."]
