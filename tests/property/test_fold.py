"""Whatever order events arrive in, however often, and in whatever batches: the rows come out the same, and right."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from itertools import pairwise
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from jobrunner.records import Attempt, Standing
from jobrunner.states import WELL, TaskState
from tests.builders import attempt, event, task
from tests.property.histories import ENDS, History, anything, stories, told
from tracker import fold as tested
from tracker.fold import FOLDED, OUTCOMES, Event, fold
from tracker.statements import stated, text_told

T = TypeVar("T")

histories = stories().map(lambda history: history.events) | anything()

# ---- the tracker's part, in memory ---------------------------------------------------------------------


def rows_after(batches: Iterable[Sequence[Event]], *, delivery: int = 3) -> list[Attempt]:
    """Fold batch after batch; in between, nothing is kept but rows."""
    rows: list[dict[str, Any]] = []
    for batch in batches:
        executions = [Attempt(**row) for row in rows]
        rows = [asdict(one) for one in tested.tell(task(delivery=delivery), executions, batch)]
    return sorted((Attempt(**row) for row in rows), key=lambda one: (one.delivery, one.retries, one.process))


def state_of(executions: Iterable[Attempt], delivery: int) -> TaskState | None:
    """Return the state of the task, which follows its present delivery."""
    present = [one for one in executions if one.delivery == delivery]
    decider = tested.deciding(present)
    return None if decider is None else tested.state_after(task(delivery=delivery), decider, present)


def cut(history: Sequence[T], cuts: Iterable[int]) -> list[Sequence[T]]:
    """Return a history in batches that end at these places."""
    places = sorted({min(one, len(history)) for one in cuts} | {0, len(history)})
    return [history[start:end] for start, end in pairwise(places)]


def disturbed(data: st.DataObject, history: Sequence[T]) -> list[Sequence[T]]:
    """Return the same events shuffled, some of them doubled, in other batches."""
    doubles = data.draw(st.lists(st.sampled_from(history), max_size=5) if history else st.just([]), label="doubles")
    shuffled = data.draw(st.permutations([*history, *doubles]), label="shuffled")
    return cut(shuffled, data.draw(st.lists(st.integers(0, len(shuffled)), max_size=4), label="cuts"))


# ---- what holds for every history ----------------------------------------------------------------------


def check_any_order(data: st.DataObject) -> None:
    history = data.draw(histories, label="history")
    forward, other = rows_after([history]), rows_after(disturbed(data, history))
    assert other == forward
    assert state_of(other, 3) == state_of(forward, 3)


def check_truth(data: st.DataObject) -> None:
    history = data.draw(stories(), label="history")
    assert state_of(rows_after(disturbed(data, history.events)), history.delivery) is history.state


@settings(deadline=None)
@given(st.data())
def test_shuffled_doubled_and_cut_into_other_batches_a_history_gives_the_same_rows(data: st.DataObject) -> None:
    check_any_order(data)


@settings(deadline=None)
@given(st.data())
def test_a_task_ends_up_where_its_history_has_led_it_in_whatever_order_that_is_told(data: st.DataObject) -> None:
    check_truth(data)


@settings(deadline=None)
@given(history=histories)
def test_a_history_told_again_from_its_beginning_changes_nothing(history: list[Event]) -> None:
    assert rows_after([history, history]) == rows_after([history])


@settings(deadline=None)
@given(data=st.data(), at=st.integers(0, 4))
def test_a_late_retry_never_undoes_a_success(data: st.DataObject, at: int) -> None:
    success = told("succeeded", delivery=3, retries=data.draw(st.integers(0, 2)), at=at)
    history = [*data.draw(histories), told("started", delivery=3, retries=success.retries or 0, at=at), success]
    late = replace(told("retried", delivery=3, at=at + 1), retries=success.retries)
    assert state_of(rows_after([history, [late]]), 3) is state_of(rows_after([history]), 3)
    assert state_of(rows_after([history]), 3) in WELL


@settings(deadline=None)
@given(data=st.data())
def test_of_all_ends_of_an_execution_the_strongest_stands(data: st.DataObject) -> None:
    ends = data.draw(st.lists(st.sampled_from(ENDS), min_size=1, max_size=4))
    events = [told(end, at=data.draw(st.integers(0, 4))) for end in ends]
    folded = fold(attempt(), *events)
    assert folded.outcome == max(ends, key=lambda end: OUTCOMES[end])
    assert folded.last_event == f"task-{folded.outcome}"
    assert folded.ended_at == min(one.at for one in events if one.type == folded.last_event)


@settings(max_examples=40, deadline=None)
@given(history=histories, type_=st.text().filter(lambda type_: type_ not in FOLDED))
def test_an_event_of_unknown_type_tells_nothing(history: list[Event], type_: str) -> None:
    for known in (attempt(), *rows_after([history])):
        before = replace(known)
        assert fold(known, replace(event("started"), type=type_)) is known
        assert known == before


@settings(deadline=None)
@given(history=histories)
def test_events_folded_together_give_what_they_give_one_by_one(history: list[Event]) -> None:
    assert rows_after([history]) == rows_after([[one] for one in history])


@settings(deadline=None)
@given(history=histories)
def test_folding_leaves_the_execution_that_it_was_given_alone(history: list[Event]) -> None:
    known = attempt()
    before = replace(known)
    fold(known, *history)
    assert known == before


@settings(deadline=None)
@given(history=histories)
def test_a_report_is_foreign_only_if_another_process_runs_the_task_and_moves_nothing(history: list[Event]) -> None:
    rows = rows_after([history])
    for one in filter(tested.is_foreign, rows):
        others = [other for other in rows if (other.delivery, other.retries) == (one.delivery, one.retries)]
        assert any(other.started_at for other in others)
        assert (one.received_at, one.started_at) == (None, None)
        assert state_of(rows, one.delivery) == state_of([other for other in rows if other is not one], one.delivery)


@settings(deadline=None)
@given(history=histories)
def test_a_report_moves_nothing_and_of_several_of_a_process_the_greatest_stands(history: list[Event]) -> None:
    silent = rows_after([[one for one in history if one.type != "task-progress"]])
    rows = rows_after([history])
    told = [replace(one, progress=None, said=None, touched_at=None) for one in rows]
    assert [one for one in told if one.last_event] == [one for one in silent if one.last_event]
    for one in rows:
        shares = [
            event.fields["progress"]
            for event in history
            if event.type == "task-progress"
            and (event.uuid, event.retries, event.process) == (one.celery_id, one.retries, one.process)
        ]
        assert one.progress == max(shares, default=None)


@settings(deadline=None)
@given(history=histories)
def test_the_last_statement_of_a_process_stands_and_counts_only_if_that_process_has_succeeded(
    history: list[Event],
) -> None:
    silent = rows_after([[one for one in history if one.type != "task-stated"]])
    rows = rows_after([history])
    assert [replace(one, statement=None) for one in rows if one.last_event] == [one for one in silent if one.last_event]
    for one in rows:
        spoken = [
            event
            for event in history
            if event.type == "task-stated"
            and (event.uuid, event.retries, event.process) == (one.celery_id, one.retries, one.process)
        ]
        last = max(spoken, key=lambda event: event.at, default=None)
        known = stated(one)
        assert (known and known.why) == (last and last.fields["statement"]["why"])
        if one.outcome != "succeeded":
            assert tested.state_after(task(delivery=3), one) not in WELL - {TaskState.COMPLETED}


# ---- that the histories are worth anything -------------------------------------------------------------


def test_each_kind_of_trouble_is_in_a_tenth_of_the_histories_at_least() -> None:
    kinds: Counter[str] = Counter()
    number = 0

    @settings(max_examples=500, derandomize=True, deadline=None, phases=[Phase.generate])
    @given(stories())
    def count(history: History) -> None:
        nonlocal number
        number += 1
        kinds.update(history.kinds)

    count()
    print({kind: f"{share / number:.0%}" for kind, share in kinds.most_common()})  # noqa: T201  the figures are asked for
    assert set(kinds) == {"retry", "redelivery", "requeue", "foreign", "revokes", "held", "progress", "statement"}
    assert min(kinds.values()) >= number / 10


def _latest_told(known: datetime | None, at: datetime) -> datetime:  # noqa: ARG001
    return at


def _last_end_stands(folded: Attempt, outcome: str, one: Event) -> None:
    folded.outcome, folded.ended_at = outcome, one.at


def _first_end_stands(folded: Attempt, outcome: str, one: Event) -> None:
    if folded.outcome is None:
        _last_end_stands(folded, outcome, one)


def _last_report_stands(folded: Attempt, one: Event) -> None:
    folded.progress, folded.said = one.fields["progress"], one.fields["message"]
    folded.touched_at = one.at


def _told_last_stands(folded: Attempt, one: Event) -> None:
    folded.statement = text_told(one.fields, one.at)


_standing = tested._standing


def _report_is_start(one: Attempt) -> Standing:
    return Standing.STARTED if one.touched_at and not one.outcome else _standing(one)


#: A fault each: what it breaks, and what is put in its place.
FAULTS: dict[str, tuple[str, object]] = {
    "the end told last stands": ("_end", _last_end_stands),
    "the end told first stands": ("_end", _first_end_stands),
    "the time told last is kept": ("_latest", _latest_told),
    "the report told last stands": ("_report", _last_report_stands),
    "the statement told last stands": ("_state", _told_last_stands),
    "no statement counts": ("stated", lambda _: None),
    "a report is a start": ("_standing", _report_is_start),
    "what was handed back is never received again": (
        "_standing",
        lambda one: OUTCOMES[one.outcome] if one.outcome else Standing.STARTED if one.started_at else Standing.RECEIVED,
    ),
    "a receipt is a start": ("_standing", lambda one: OUTCOMES[one.outcome] if one.outcome else Standing.STARTED),
    "reports of processes without the task move it": ("weigh", lambda executions: executions),
    "an end without a start counts for nothing": (
        "_standing",
        lambda one: OUTCOMES[one.outcome] if one.outcome and one.started_at else Standing.NONE,
    ),
    "the first attempt decides": (
        "_weight",
        lambda one: (one.standing == Standing.SUCCEEDED, -one.retries, one.standing),
    ),
    "deliveries are not told apart": ("delivery_of", lambda *_: 1),
    "a failure beats a running execution": (
        "_weight",
        lambda one: (one.standing >= Standing.FAILED and one.outcome is not None, one.retries, one.standing),
    ),
    "a retry that waits in a worker is queued": ("state_after", lambda *_: TaskState.QUEUED),
    "handing back is an end like any other": ("PASSING", frozenset()),
    "a copy that a gate refuses is one that it has": ("was_held", lambda _: False),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_fold_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tested, *FAULTS[fault])
    careful = settings(
        max_examples=1_000,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.function_scoped_fixture],
        report_multiple_bugs=False,
    )

    @careful
    @given(st.data())
    def check(data: st.DataObject) -> None:
        check_any_order(data)
        check_truth(data)

    with pytest.raises(AssertionError):
        check()
