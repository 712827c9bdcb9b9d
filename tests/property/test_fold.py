"""Whatever order events arrive in, however often, and in whatever batches: the rows come out the same."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner.ids import celery_id
from jobrunner.records import Attempt
from jobrunner.states import TaskState
from tests.builders import attempt, event, task
from tracker.fold import OUTCOMES, RANKS, Event, deciding, fold, state_after

_ENDS = ("succeeded", "failed", "revoked", "retried")
_TYPES = ("received", "started", *_ENDS)

Key = tuple[int, int]
Told = tuple[Key, Event]


# ---- histories -----------------------------------------------------------------------------------------


def _told(key: Key, type_: str, *, at: int, worker: str, pid: int = 1) -> Told:
    """An event whose text follows from who says what and when, as one process says one thing at one moment."""
    delivery, retries = key
    said = f"{type_} by {worker} ({pid}) at {at}"
    fields = {
        "succeeded": {"result": said, "runtime": float(at)},
        "failed": {"exception": said, "traceback": said},
        "retried": {"exception": said, "traceback": said},
        "revoked": {"terminated": at % 2 == 0, "expired": False},
    }.get(type_, {})
    known = {"uuid": celery_id("task", delivery), "retries": retries, "pid": pid, "source": f"{worker}/{pid}"}
    return key, event(type_, at=at, worker=worker, fields=fields, **known)


_keys = st.tuples(st.integers(1, 3), st.integers(0, 3))
_workers = st.sampled_from(["w1@host", "w2@host"])
#: Few, so that they collide: clocks are skewed, coarse and of no use as an order.
_moments = st.integers(0, 4)


@st.composite
def _anything(draw: st.DrawFn) -> list[Told]:
    """Any events at all about the deliveries and retries of one task."""
    one = st.builds(_told, _keys, st.sampled_from(_TYPES), at=_moments, worker=_workers, pid=st.integers(1, 2))
    return draw(st.lists(one, max_size=12))


@st.composite
def _deliveries(draw: st.DrawFn) -> list[Told]:
    """What workers really tell: received, started, ended; a retry follows under the next number, or a new delivery.

    Any of it may be missing, because a worker died or its events were lost, and an attempt may be executed twice.
    """
    told = []
    for delivery in range(1, draw(st.integers(1, 3)) + 1):
        for retries in range(draw(st.integers(1, 3))):
            for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):
                worker, end = draw(_workers), draw(st.sampled_from(_ENDS))
                kept = draw(st.sets(st.sampled_from(["received", "started", end]), min_size=1))
                told += [_told((delivery, retries), type_, at=draw(_moments), worker=worker) for type_ in sorted(kept)]
    return told


histories = _deliveries() | _anything()


# ---- the tracker's part, in memory ---------------------------------------------------------------------


def _fold_all(batches: Iterable[Sequence[Told]]) -> dict[Key, Attempt]:
    """Fold batch after batch; in between, nothing is kept but rows."""
    rows: dict[Key, dict[str, object]] = {}
    for batch in batches:
        attempts = {key: Attempt(**row) for key, row in rows.items()}  # type: ignore[arg-type]
        for key, one in batch:
            delivery, retries = key
            known = attempts.get(key) or attempt(delivery=delivery, retries=retries, celery_id=one.uuid)
            attempts[key] = fold(known, one)
        rows = {key: asdict(one) for key, one in attempts.items()}
    return {key: Attempt(**row) for key, row in rows.items()}  # type: ignore[arg-type]


def _state(attempts: dict[Key, Attempt]) -> TaskState | None:
    """The state of the task, which follows its latest delivery."""
    latest = max((delivery for delivery, _ in attempts), default=0)
    decider = deciding(one for (delivery, _), one in attempts.items() if delivery == latest)
    return None if decider is None else state_after(task(delivery=latest), decider)


def _cut(history: Sequence[Told], cuts: Iterable[int]) -> list[Sequence[Told]]:
    """The history in batches that end at these places."""
    places = sorted({min(one, len(history)) for one in cuts} | {0, len(history)})
    return [history[start:end] for start, end in pairwise(places)]


# ---- properties ----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.data())
def test_shuffled_doubled_and_cut_into_other_batches_a_history_gives_the_same_rows(data: st.DataObject) -> None:
    history = data.draw(histories, label="history")
    doubles = data.draw(st.lists(st.sampled_from(history), max_size=5) if history else st.just([]), label="doubles")
    shuffled = data.draw(st.permutations(history + doubles), label="shuffled")
    cuts = data.draw(st.lists(st.integers(0, len(shuffled)), max_size=4), label="cuts")
    forward, other = _fold_all([history]), _fold_all(_cut(shuffled, cuts))
    assert other == forward
    assert _state(other) == _state(forward)


@settings(deadline=None)
@given(history=histories)
def test_a_history_told_again_from_its_beginning_changes_nothing(history: list[Told]) -> None:
    assert _fold_all([history, history]) == _fold_all([history])


@settings(deadline=None)
@given(data=st.data(), at=_moments)
def test_a_late_retry_never_undoes_a_success(data: st.DataObject, at: int) -> None:
    key = (1, data.draw(st.integers(0, 2)))
    history = [*data.draw(histories), _told(key, "succeeded", at=at, worker="w1@host")]
    late = _told(key, "retried", at=at + 1, worker="w1@host")
    before, after = _fold_all([history]), _fold_all([[*history, late]])
    assert after[key] == before[key]
    assert after[key].outcome == "succeeded"
    assert _state(after) == _state(before)


@settings(deadline=None)
@given(data=st.data(), key=_keys)
def test_of_all_ends_of_an_attempt_the_strongest_stands(data: st.DataObject, key: Key) -> None:
    ends = data.draw(st.lists(st.sampled_from(_ENDS), min_size=1, max_size=4))
    told = [_told(key, end, at=data.draw(_moments), worker=data.draw(_workers)) for end in ends]
    (folded,) = _fold_all([told]).values()
    assert folded.outcome == max(ends, key=OUTCOMES.index)
    assert folded.last_event == f"task-{folded.outcome}"
    assert (folded.ended_at, folded.worker) in [
        (one.at, one.worker) for _, one in told if one.type == folded.last_event
    ]


@settings(max_examples=40, deadline=None)
@given(history=histories, type_=st.text().filter(lambda type_: type_ not in RANKS), at=_moments)
def test_an_event_of_unknown_type_tells_nothing(history: list[Told], type_: str, at: int) -> None:
    for known in (attempt(), *_fold_all([history]).values()):
        before = replace(known)
        assert fold(known, replace(event("started", at=at), type=type_)) is known
        assert known == before


@settings(deadline=None)
@given(history=histories)
def test_events_folded_together_give_what_they_give_one_by_one(history: list[Told]) -> None:
    known = one_by_one = attempt()
    for _, one in history:
        one_by_one = fold(one_by_one, one)
    together = fold(known, *(one for _, one in history))
    assert together == one_by_one
    assert fold(together, *(one for _, one in history)) is together


@settings(deadline=None)
@given(history=histories)
def test_folding_leaves_the_attempt_that_it_was_given_alone(history: list[Told]) -> None:
    known = attempt()
    before = replace(known)
    for _, one in history:
        fold(known, one)
    assert known == before


@settings(deadline=None)
@given(history=histories)
def test_the_state_is_one_that_the_latest_delivery_can_have(history: list[Told]) -> None:
    attempts = _fold_all([history])
    latest = max((delivery for delivery, _ in attempts), default=0)
    outcomes = {one.outcome for (delivery, _), one in attempts.items() if delivery == latest}
    if "succeeded" in outcomes:
        assert _state(attempts) is TaskState.COMPLETED
    elif "failed" in outcomes:
        assert _state(attempts) is TaskState.FAILED
    else:
        assert _state(attempts) not in {TaskState.COMPLETED, TaskState.FAILED}
