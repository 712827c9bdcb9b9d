"""Which workers a message avoids, and which of them hand it back."""

from typing import Any

import pytest

from jobrunner import ids
from jobrunner.records import Tried
from jobrunner.snapshot import Refusal, Sent, Snapshot
from tests.builders import task
from tracker.avoiding import for_anybody, rest_after, to_avoid

JOB = ids.uuid7()


def tried(worker: str, delivery: int, retries: int, outcome: str = "retried") -> Tried:
    return Tried(delivery=delivery, retries=retries, outcome=outcome, worker=worker)


@pytest.mark.parametrize(
    ("last_first", "first_retries", "named"),
    [
        ([], 0, []),
        ([tried("b", 1, 1), tried("a", 1, 0)], 2, ["a", "b"]),
        ([tried("d", 1, 3), tried("c", 1, 2), tried("b", 1, 1), tried("a", 1, 0)], 4, ["b", "c", "d"]),
        ([tried("a", 2, 1, "lost"), tried("b", 1, 0)], 2, ["b", "a"]),
        ([tried("a", 2, 1), tried("a", 1, 0)], 2, ["a"]),
    ],
)
def test_the_last_three_that_have_failed_it_are_avoided(
    last_first: list[Tried], first_retries: int, named: list[str]
) -> None:
    assert to_avoid(last_first, first_retries) == named


def test_what_was_tried_before_a_requeue_is_no_reason_to_avoid_anybody() -> None:
    before = [tried("b", 1, 1, "failed"), tried("a", 1, 0)]
    assert to_avoid(before, 0) == []
    assert to_avoid([tried("c", 2, 0, "lost"), *before], 1) == ["c"]


def test_a_worker_without_the_code_is_avoided_though_it_has_used_up_no_retry() -> None:
    assert to_avoid([tried("b", 2, 0, "unknown"), tried("a", 1, 0, "unknown")], 0) == ["a", "b"]


def test_a_message_rests_longer_each_time_it_is_handed_back() -> None:
    assert [rest_after("avoided", task(handed_back=number)) for number in (1, 2, 3, 4)] == [1, 2, 4, 4]
    assert [rest_after("blocked", task(delivery=number)) for number in (1, 2, 3, 4, 5, 6)] == [1, 2, 4, 8, 8, 8]
    assert [rest_after(why, task()) for why in ("paused", "None")] == [1, 1]


def test_a_message_for_anybody_names_nobody() -> None:
    headers: dict[str, Any] = {"id": "t", "jobrunner": {"v": 1, "avoid": ["a"]}}
    assert for_anybody(headers) == {"id": "t", "jobrunner": {"v": 1}}
    assert headers["jobrunner"]["avoid"] == ["a"]
    assert for_anybody({"id": "t"}) == {"id": "t"}


# ---- who hands it back -------------------------------------------------------------------------------------


def refusal(*avoid: str, by: str = "a", **workers: list[str] | None) -> Refusal | None:
    snapshot = Snapshot(version=1, workers=workers)
    return Snapshot.loads(snapshot.dumps()).refusal(Sent(root_id=JOB, celery_id="1", avoid=avoid), by)


def test_who_has_failed_it_hands_it_back_if_another_lives_that_has_not() -> None:
    assert refusal("a", a=["q"], b=["q"]) is Refusal.AVOIDED
    assert refusal("a", by="b", a=["q"], b=["q"]) is None
    assert refusal("a", "b", a=["q"], b=["q"]) is None
    assert refusal("a", "b", a=["q"], b=["q"], c=["q"]) is Refusal.AVOIDED


def test_a_worker_on_its_own_runs_it_again_at_once() -> None:
    assert refusal("a", a=["q"]) is None
    assert refusal("a") is None


def test_who_takes_tasks_from_other_queues_is_no_other() -> None:
    assert refusal("a", a=["q"], b=["r"]) is None
    assert refusal("a", a=["q", "r"], b=["r"]) is Refusal.AVOIDED
    assert refusal("a", a=["q"], b=None) is Refusal.AVOIDED, "it has not said"


def test_who_is_blocked_for_the_task_is_no_other() -> None:
    workers: dict[str, list[str] | None] = {"a": ["q"], "b": ["q"]}
    snapshot = Snapshot(version=1, workers=workers, blocked={JOB: {"add": ["b"]}})
    assert snapshot.refusal(Sent(root_id=JOB, celery_id="1", name="add", avoid=("a",)), "a") is None
    assert snapshot.refusal(Sent(root_id=JOB, celery_id="1", name="total", avoid=("a",)), "a") is Refusal.AVOIDED


def test_a_snapshot_of_an_earlier_version_names_nobody() -> None:
    old = '{"v": 1, "version": 3, "jobs": {}, "void": {}}'
    assert Snapshot.loads(old).workers == {}
