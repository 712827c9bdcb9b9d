"""Which workers live: heard by what they write, silent by our own clock."""

from dataclasses import replace

import pytest

from tests.builders import entry, heartbeat, raw_event
from tracker.eventlog import Entry
from tracker.eventlog.entries import Numbered
from tracker.roster import SILENCE, Arrival, Roster

NOON = 1_000.0


def _names(arrivals: list[Arrival]) -> list[str]:
    return [one.name for one in arrivals]


def test_a_worker_that_speaks_for_the_first_time_arrives() -> None:
    arrivals = Roster().hear([heartbeat("w1@host", source="process-1", pid=7)], NOON)
    assert arrivals == [Arrival(name="w1@host", source="process-1", pid=7)]


def test_a_worker_that_speaks_again_does_not() -> None:
    roster = Roster()
    roster.hear([heartbeat()], NOON)
    assert roster.hear([heartbeat(), heartbeat()], NOON + 1) == []


def test_several_workers_arrive_each_for_itself() -> None:
    entries = [heartbeat("w1@host", source="process-1"), heartbeat("w2@host", source="process-2")]
    assert _names(Roster().hear(entries, NOON)) == ["w1@host", "w2@host"]


def test_another_process_under_a_known_name_arrives() -> None:
    roster = Roster()
    roster.hear([heartbeat(source="process-1")], NOON)
    arrivals = roster.hear([heartbeat(source="process-2", pid=8)], NOON + 1)
    assert arrivals == [Arrival(name="w1@host", source="process-2", pid=8)]


def test_a_process_that_was_replaced_does_not_arrive_again_by_what_it_wrote_late() -> None:
    roster = Roster()
    roster.hear([heartbeat(source="process-1"), heartbeat(source="process-2")], NOON)
    assert roster.hear([heartbeat(source="process-1")], NOON + 1) == []
    assert roster.hear([heartbeat(source="process-2")], NOON + 2) == []


def test_a_worker_that_the_last_tracker_knew_does_not_arrive() -> None:
    roster = Roster()
    roster.know({"w1@host": "process-1"}, NOON)
    assert roster.hear([heartbeat(source="process-1")], NOON + 1) == []
    assert _names(roster.hear([heartbeat(source="process-2")], NOON + 2)) == ["w1@host"]


def test_a_worker_that_the_last_tracker_knew_has_a_full_time_out_to_be_heard() -> None:
    roster = Roster()
    roster.know({"w1@host": "process-1"}, NOON)
    assert roster.silent(NOON + SILENCE) == []
    assert roster.silent(NOON + SILENCE + 0.1) == ["w1@host"]


#: What a process says that was replaced before this tracker listened.
OF_BEFORE = [
    pytest.param(entry(raw_event(type="task-progress"), source="process-1"), id="a process of a killed worker's pool"),
    pytest.param(entry(raw_event(type="worker-offline"), source="process-1"), id="goodbye"),
    pytest.param(
        replace(heartbeat(source="process-1"), numbered=Numbered(series="series-1", number=2, dropped=0)),
        id="heartbeat of who is about to end",
    ),
]


@pytest.mark.parametrize("said", OF_BEFORE)
def test_a_process_that_was_replaced_before_a_takeover_does_not_arrive_again(said: Entry) -> None:
    roster = Roster()
    roster.know({"w1@host": "process-2"}, NOON)
    assert roster.hear([said], NOON + 1) == []
    assert roster.replaced == {"process-1"}
    assert roster.hear([heartbeat(source="process-2")], NOON + SILENCE) == []
    assert roster.silent(NOON + 2 * SILENCE) == []


@pytest.mark.parametrize("said", OF_BEFORE)
def test_a_process_whose_first_words_were_lost_arrives_when_its_name_is_free(said: Entry) -> None:
    roster = Roster()
    roster.know({"w1@host": "process-2"}, NOON)
    roster.hear([said], NOON + 1)
    assert roster.silent(NOON + SILENCE + 1) == ["w1@host"]
    assert _names(roster.hear([said], NOON + SILENCE + 2)) == ["w1@host"]


def test_what_replaced_processes_say_late_is_told_once_with_who_bears_the_name() -> None:
    roster = Roster()
    roster.hear([heartbeat(source="process-1"), heartbeat(source="process-2")], NOON)
    assert roster.heard_late() == {}
    roster.hear([entry(raw_event(), source="process-1")], NOON + 1)
    assert roster.heard_late() == {"w1@host": "process-2"}
    assert roster.heard_late() == {}
    roster.silent(NOON + SILENCE + 1)
    roster.hear([entry(raw_event(), source="process-1")], NOON + SILENCE + 1)
    assert roster.heard_late() == {"w1@host": None}


def test_a_new_beginning_forgets_who_was_known_before() -> None:
    roster = Roster()
    roster.hear([heartbeat("w1@host")], NOON)
    roster.know({"w2@host": "process-2"}, NOON)
    assert roster.silent(NOON + SILENCE + 1) == ["w2@host"]


def test_what_is_known_is_a_copy() -> None:
    online = {"w1@host": "process-1"}
    roster = Roster()
    roster.know(online, NOON)
    roster.silent(NOON + SILENCE + 1)
    assert online == {"w1@host": "process-1"}


def test_any_event_is_a_sign_of_life() -> None:
    roster = Roster()
    roster.hear([heartbeat()], NOON)
    roster.hear([entry(raw_event(type="task-started"))], NOON + SILENCE)
    assert roster.silent(NOON + SILENCE + 1) == []


def test_a_silent_worker_is_told_once_and_the_others_are_not() -> None:
    roster = Roster()
    roster.hear([heartbeat("w1@host", source="process-1"), heartbeat("w2@host", source="process-2")], NOON)
    roster.hear([heartbeat("w2@host", source="process-2")], NOON + SILENCE)
    assert roster.silent(NOON + SILENCE + 1) == ["w1@host"]
    assert roster.silent(NOON + SILENCE + 1) == []


def test_a_worker_that_was_taken_for_lost_and_speaks_again_arrives() -> None:
    roster = Roster()
    roster.hear([heartbeat()], NOON)
    roster.silent(NOON + SILENCE + 1)
    assert _names(roster.hear([heartbeat()], NOON + SILENCE + 2)) == ["w1@host"]


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(Entry(), id="wake-up"),
        pytest.param(entry(raw_event(), source=None), id="a worker that does not know jobrunner"),
        pytest.param(entry(raw_event(), worker=""), id="no name"),
    ],
)
def test_an_entry_that_does_not_say_who_wrote_it_is_passed_over(said: Entry) -> None:
    roster = Roster()
    assert roster.hear([said], NOON) == []
    assert roster.silent(NOON + SILENCE + 1) == []


@pytest.mark.parametrize("events", [(), ("text",), ({"type": "worker-heartbeat"},)])
def test_whatever_the_events_an_entry_is_a_sign_of_life(events: tuple[object, ...]) -> None:
    (arrival,) = Roster().hear([entry(*events)], NOON)
    assert (arrival.name, arrival.pid) == ("w1@host", None)


@pytest.mark.parametrize("pid", ["seven", 2**40, True, [7]])
def test_a_pid_that_fits_no_database_is_not_known(pid: object) -> None:
    (arrival,) = Roster().hear([heartbeat(pid=pid)], NOON)
    assert arrival.pid is None


def test_nobody_is_lost_for_a_silence_in_which_nobody_could_be_heard() -> None:
    roster = Roster()
    roster.hear([heartbeat()], NOON)
    roster.excuse(NOON + 10 * SILENCE)
    assert roster.silent(NOON + 11 * SILENCE) == []
    assert roster.silent(NOON + 11 * SILENCE + 1) == ["w1@host"]


def test_who_has_spoken_is_told_once() -> None:
    roster = Roster()
    roster.know({"w1@host": "process-1", "w2@host": "process-2"}, NOON)
    assert roster.newly_heard() == set()
    roster.hear([heartbeat("w1@host"), heartbeat("w3@host", source="process-3")], NOON)
    assert roster.newly_heard() == {"w1@host", "w3@host"}
    assert roster.newly_heard() == set()
