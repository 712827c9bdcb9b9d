"""Identities: UUIDs of version 7 that ascend, and a Celery id of its own for each delivery."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import SimpleNamespace

import pytest

from jobrunner import ids
from jobrunner.ids import celery_id, uuid7

MANY = 5_000


def _milliseconds(id_: str) -> int:
    return uuid.UUID(id_).int >> 80


def test_an_id_is_a_uuid_of_version_7_in_its_usual_form() -> None:
    for id_ in [uuid7() for _ in range(100)]:
        parsed = uuid.UUID(id_)
        assert str(parsed) == id_
        assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)


def test_an_id_begins_with_the_time() -> None:
    before = time.time_ns() // 1_000_000
    made = _milliseconds(uuid7())
    after = time.time_ns() // 1_000_000
    # The counter may run ahead of the clock, by 4,096 ids a millisecond.
    assert before <= made <= after + 5


def test_ids_of_one_thread_ascend_strictly() -> None:
    made = [uuid7() for _ in range(MANY)]
    assert all(one < other for one, other in pairwise(made))


def test_ids_ascend_in_every_thread_and_none_is_made_twice() -> None:
    with ThreadPoolExecutor(4) as pool:
        threads = list(pool.map(lambda _: [uuid7() for _ in range(MANY)], range(4)))
    for made in threads:
        assert all(one < other for one, other in pairwise(made))
    moments = [id_[:18] for made in threads for id_ in made]  # without the random part, which would hide a repetition
    assert len(set(moments)) == len(moments)


def test_ids_ascend_when_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_last", 0)
    clock = iter([2_000_000_000_000_000_000, 1_000_000_000_000_000_000, 2_000_000_000_000_000_000])
    monkeypatch.setattr(ids, "time", SimpleNamespace(time_ns=lambda: next(clock)))
    made = [uuid7() for _ in range(3)]
    assert made == sorted(made)
    assert len({id_[:18] for id_ in made}) == 3
    assert _milliseconds(made[0]) == 2_000_000_000_000


def test_ids_ascend_across_the_end_of_a_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_last", 0)
    monkeypatch.setattr(ids, "time", SimpleNamespace(time_ns=lambda: 2_000_000_000_000_000_000))
    made = [uuid7() for _ in range(4_097)]
    assert all(one < other for one, other in pairwise(made))
    assert _milliseconds(made[-1]) == _milliseconds(made[0]) + 1


def test_the_random_part_differs_from_id_to_id() -> None:
    assert len({uuid7()[19:] for _ in range(100)}) == 100


def test_the_first_delivery_has_the_id_of_the_task() -> None:
    task = uuid7()
    assert celery_id(task, 1) == task


def test_each_later_delivery_has_an_id_of_its_own_which_is_always_the_same() -> None:
    tasks = [uuid7(), uuid7()]
    made = [celery_id(task, delivery) for task in tasks for delivery in (1, 2, 3)]
    assert len(set(made)) == len(made)
    assert made == [celery_id(task, delivery) for task in tasks for delivery in (1, 2, 3)]


def test_the_id_of_a_later_delivery_stays_what_it_was_in_earlier_versions() -> None:
    # Rows of jobs that run while jobrunner is upgraded hold these.
    assert celery_id("01939c1e-6c00-7000-8000-000000000000", 2) == "41dbcb25-e333-5e1d-8413-5ed138be65fc"


def test_later_deliveries_have_uuids_of_version_5() -> None:
    assert uuid.UUID(celery_id(uuid7(), 2)).version == 5
