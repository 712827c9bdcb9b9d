"""The snapshot as text, and what it lets start."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobrunner.errors import JobrunnerError
from jobrunner.snapshot import Hold, Kind, Refusal, Sent, Snapshot

seconds = st.none() | st.floats(min_value=0, max_value=1e6)
held = st.none() | st.sampled_from([Kind.PAUSED, Kind.CANCELED])
holds = st.builds(Hold, held=held, grace=seconds, run=st.integers(min_value=1, max_value=2**31))
snapshots = st.builds(
    Snapshot,
    version=st.integers(min_value=0, max_value=2**63),
    jobs=st.dictionaries(st.text(), holds),
    void=st.dictionaries(st.text(), seconds),
)


def sent(root_id: str | None = "job", celery_id: str = "id", **said: object) -> Sent:
    return Sent(root_id=root_id, celery_id=celery_id, **said)  # type: ignore[arg-type]


def snapshot(hold: Hold | None = None, **void: float | None) -> Snapshot:
    return Snapshot(version=7, jobs={"job": hold} if hold else {}, void=void)


@given(snapshots)
def test_what_is_stored_is_read_again(one: Snapshot) -> None:
    assert Snapshot.loads(one.dumps()) == one
    assert Snapshot.loads(one.dumps().encode()) == one


def test_one_that_a_newer_jobrunner_has_stored_is_refused_with_the_remedy() -> None:
    newer = {**json.loads(snapshot().dumps()), "v": 99}
    with pytest.raises(JobrunnerError, match="Upgrade jobrunner on the workers"):
        Snapshot.loads(json.dumps(newer))


@pytest.mark.parametrize(
    ("hold", "refusal"),
    [
        (None, None),
        (Hold(), None),
        (Hold(run=2), Refusal.VOID),
        (Hold(held=Kind.PAUSED), Refusal.PAUSED),
        (Hold(held=Kind.CANCELED, grace=5.0), Refusal.CANCELED),
        (Hold(held=Kind.PAUSED, run=2), Refusal.VOID),
    ],
)
def test_a_job_is_held_as_its_entry_says(hold: Hold | None, refusal: Refusal | None) -> None:
    assert snapshot(hold).refusal(sent(run=1)) is refusal
    assert snapshot(hold).refusal(sent("other", run=1)) is None


def test_a_message_that_does_not_say_its_run_is_of_the_present_one() -> None:
    assert snapshot(Hold(run=2)).refusal(sent()) is None
    assert snapshot(Hold(run=2)).refusal(sent(run=2)) is None


def test_one_delivery_or_a_whole_batch_is_void() -> None:
    assert snapshot(id=None).refusal(sent()) is Refusal.VOID
    assert snapshot(batch=None).refusal(sent(batch="batch")) is Refusal.VOID
    assert snapshot(id=None, batch=None).refusal(sent(celery_id="other", batch="next")) is None


def test_what_the_broker_gives_again_is_refused_in_any_case() -> None:
    assert snapshot().refusal(sent(redelivered=True)) is Refusal.REDELIVERED
    assert snapshot(Hold(held=Kind.PAUSED)).refusal(sent(redelivered=True)) is Refusal.PAUSED


def test_only_what_was_canceled_is_ended_and_after_its_own_grace() -> None:
    assert snapshot(Hold(held=Kind.CANCELED, grace=5.0)).grace(sent()) == 5.0
    assert snapshot(Hold(held=Kind.CANCELED)).grace(sent()) is None
    assert snapshot(Hold(held=Kind.PAUSED, grace=5.0)).grace(sent()) is None
    assert snapshot(Hold(held=Kind.CANCELED, grace=5.0), id=0.0).grace(sent()) == 0.0
    assert snapshot(id=None).grace(sent()) is None
