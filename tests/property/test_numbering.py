"""Events of workers without jobrunner find the try that they are about, in whatever order Celery tells them."""

from collections.abc import Collection, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobrunner.records import Attempt
from tests.builders import attempt, event, moment, task
from tracker.fold import Event, fold, tell, weigh

_FINAL = ("succeeded", "failed", "revoked")

#: The try that an event is about, and the event; only `received` says so itself.
Told = tuple[int, Event]


def told(type_: str, number: int, at: int, process: str = "w1@host") -> Told:
    retries = number if type_ == "received" else None
    return number, event(type_, at=at, worker=process, source=None, retries=retries, fields={"current": 1, "total": 2})


def folded(events: Sequence[Event], cuts: Collection[int] | None = None) -> list[Attempt]:
    """Return the executions that come out if this is told, in batches that begin at these places, else one by one."""
    history: list[Attempt] = []
    starts = sorted({0, *(range(len(events)) if cuts is None else cuts)})
    for start, end in pairwise([*starts, len(events)]):
        history = tell(task(), history, events[start:end])
    return sorted(history, key=lambda a: (a.retries, a.process))


def wanted(events: Sequence[Told]) -> list[Attempt]:
    """Return the executions that come out if every event says which try it is about."""
    rows: dict[tuple[int, str], Attempt] = {}
    for number, one in events:
        key = number, one.process
        rows[key] = fold(rows.get(key, attempt(process=one.process, retries=number)), one)
    return sorted(weigh(list(rows.values())), key=lambda a: (a.retries, a.process))


@st.composite
def _histories(draw: st.DrawFn) -> list[Told]:
    """What workers tell of a task that is tried again and again, each try on one of two workers.

    Each worker tells in order that it receives tries, starts tries, and that tries are retried; but a retry may have
    been received before the start of the try before, and even ended before that is told to be retried.
    """
    last = draw(st.integers(0, 4))
    final = draw(st.sampled_from(_FINAL))
    queues: dict[str, list[list[tuple[str, int]]]] = {}
    for number in range(last + 1):
        process = draw(st.sampled_from(["w1@host", "w2@host"]))
        received, started, retried, ended = queues.setdefault(process, [[], [], [], []])
        received.append(("received", number))
        started.append(("started", number))
        (ended if number == last else retried).append((final if number == last else "retried", number))
    said: set[tuple[str, int]] = set()
    events: list[Told] = []
    while left := [(process, queue) for process, all_ in queues.items() for queue in all_ if queue]:
        sayable = [(process, queue) for process, queue in left if _before(*queue[0]) in {None, *said}]
        process, queue = draw(st.sampled_from(sayable))
        type_, number = queue.pop(0)
        said.add((type_, number))
        events.append(told(type_, number, len(events), process))
    return events


def _before(type_: str, number: int) -> tuple[str, int] | None:
    """Return what a worker has said of a try before it says this."""
    return {"received": None, "started": ("received", number)}.get(type_, ("started", number))


@given(_histories(), st.sets(st.integers(0, 14)) | st.none())
def test_every_event_is_folded_into_the_try_that_it_is_about(events: list[Told], cuts: set[int] | None) -> None:
    assert folded([one for _, one in events], cuts) == wanted(events)


@given(_histories(), st.data())
def test_what_is_told_again_changes_nothing(events: list[Told], data: st.DataObject) -> None:
    plain = [one for _, one in events]
    again = data.draw(st.lists(st.sampled_from(plain)))
    assert folded(plain + again) == folded(plain)


@given(st.lists(st.tuples(st.sampled_from(["received", "started", "retried", *_FINAL]), st.integers(0, 3))))
def test_whatever_is_missing_a_success_and_a_start_are_not_lost(said: list[tuple[str, int]]) -> None:
    found = folded([told(type_, number, at)[1] for at, (type_, number) in enumerate(said)])
    types = {type_ for type_, _ in said}
    assert ("succeeded" in types) == any(one.outcome == "succeeded" for one in found)
    assert ("started" in types) == any(one.started_at for one in found)


def test_an_end_that_is_told_before_the_retry_that_led_to_it_is_of_the_last_try() -> None:
    """As a worker of Celery 5.7 told it of a task that was tried again at once."""
    said = [
        ("received", 0), ("started", 0), ("received", 1), ("started", 1), ("received", 2), ("retried", 0),
        ("started", 2), ("succeeded", 2), ("retried", 1),
    ]  # fmt: skip
    found = folded([told(type_, number, at)[1] for at, (type_, number) in enumerate(said)])
    assert [one.outcome for one in found] == ["retried", "retried", "succeeded"]


@pytest.mark.parametrize("type_", ["started", *_FINAL])
def test_with_nothing_known_it_is_the_first_try(type_: str) -> None:
    (found,) = folded([told(type_, 0, 0)[1]])
    assert found.retries == 0


@pytest.mark.parametrize("type_", ["started", *_FINAL])
def test_after_a_retry_whose_receipt_nobody_heard_it_is_the_next_try(type_: str) -> None:
    found = folded([told(one, 0, at)[1] for at, one in enumerate(("received", "started", "retried", type_))])
    assert [one.retries for one in found] == [0, 1]


def test_a_report_of_progress_is_of_the_last_try() -> None:
    said = [("received", 0), ("started", 0), ("progress", 0), ("received", 1), ("retried", 0), ("started", 1)]
    first, second = folded([told(type_, number, at)[1] for at, (type_, number) in enumerate([*said, ("progress", 1)])])
    assert (first.touched_at, second.touched_at) == (moment(2), moment(6))
    (only,) = folded([told("progress", 0, 0)[1]])
    assert only.retries == 0


def test_a_second_start_of_the_same_try_is_no_further_try() -> None:
    (found,) = folded([told(one, 0, at)[1] for at, one in enumerate(("received", "started", "started"))])
    assert found.started_at == moment(2)
