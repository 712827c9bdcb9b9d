"""How long values stay in Redis: until their job has ended, and then as long as Celery has it; on both databases."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from celery import Celery, group
from celery.app.task import Context
from redis.exceptions import RedisError
from sqlalchemy import update

from jobrunner import JobRunner, ids
from jobrunner.keeping import keeping
from jobrunner.store.schema import job, task
from jobrunner.wire import HEADER, INPUTS_KEY, ITEMS_KEY
from tests.apps import new_runner, read_rows, store, take_turn
from tests.builders import event, moment
from tests.servers.redis import Redis
from tracker.release import Release

HOUR = 3600
OF_A_JOB = {HEADER: {}}


@pytest.fixture
def app(redis: Redis) -> Iterator[Celery]:
    made = Celery("shop", broker=redis.url, backend=redis.url, set_as_current=False)
    made.conf.result_expires = HOUR
    yield made
    made.backend.client.close()


@pytest.fixture
def runner(tmp_path: Path, app: Celery, database_url: str) -> Iterator[JobRunner]:
    made = new_runner(tmp_path, app, database=database_url)
    yield made
    made.database.close()


def lives(app: Celery, *celery_ids: str) -> list[int]:
    """Return for how many seconds results live: -1 for ever, -2 not any more."""
    return [app.backend.client.ttl(app.backend.get_key_for_task(one)) for one in celery_ids]


def put(app: Celery, celery_id: str) -> None:
    keeping(app.backend).mark_as_done(celery_id, 1, Context(OF_A_JOB))


@pytest.mark.parametrize(
    ("request_", "state", "lifetime"),
    [(OF_A_JOB, "SUCCESS", -1), (OF_A_JOB, "FAILURE", HOUR), ({}, "SUCCESS", HOUR), ({}, "FAILURE", HOUR)],
)
def test_only_values_of_jobs_are_kept(app: Celery, request_: Any, state: str, lifetime: int) -> None:
    value = ValueError() if state == "FAILURE" else 1
    keeping(app.backend).store_result("a", value, state, request=Context(request_))
    assert lives(app, "a") == [lifetime]


def test_what_another_thread_stores_meanwhile_expires(app: Celery) -> None:
    backend = keeping(app.backend)
    stored = backend.set

    def set_and_let_another(key: Any, value: Any, **options: Any) -> Any:
        other = Thread(target=stored, args=("other", "1"))
        other.start()
        other.join()
        return stored(key, value, **options)

    backend.set = set_and_let_another
    backend.store_result("a", 1, "SUCCESS", request=Context(OF_A_JOB))
    assert (lives(app, "a"), backend.client.ttl("other")) == ([-1], HOUR)


def test_a_backend_can_be_pickled_as_with_celery(app: Celery) -> None:
    usual = type(app.backend)
    pickled = pickle.dumps(keeping(app.backend))
    assert type(app.backend) is not usual
    assert type(pickle.loads(pickled)) is usual  # noqa: S301  our own


def test_a_backend_that_cannot_let_go_what_it_has_stored_stays_as_it_is(tmp_path: Path) -> None:
    backend = Celery("files", backend=f"file://{tmp_path}", set_as_current=False).backend
    before = type(backend)
    assert type(keeping(backend)) is before


def test_values_get_celerys_expiry_once_their_job_has_ended(runner: JobRunner) -> None:
    total, add, app = runner.app.tasks["total"], runner.app.tasks["add"], runner.app
    release = Release(app, runner.database)
    store(runner, add.s(1, 1) | total.s())
    take_turn(runner)
    one, two = sorted(row["id"] for row in read_rows(runner.database, "task"))
    put(app, one)
    take_turn(runner, event("succeeded", uuid=one))
    release.step()
    assert lives(app, one) == [-1]
    put(app, two)
    take_turn(runner, event("succeeded", uuid=two))
    assert release.step() is None
    assert lives(app, one, two) == [HOUR, HOUR]
    assert [row["keeps_values"] for row in read_rows(runner.database, "job")] == [False]


def test_all_deliveries_and_lists_of_inputs_are_let_go_in_small_steps(
    runner: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracker.release._STEP", 2)
    app = runner.app
    deliveries = [ids.celery_id(one, number) for one in ended(runner, delivery=2) for number in (1, 2)]
    for one in deliveries:
        put(app, one)
        app.backend.client.set(INPUTS_KEY + one, "[]")
        app.backend.client.set(ITEMS_KEY + one, "[]")
    release = Release(app, runner.database)
    progress = release.step()
    assert progress is not None
    assert set(lives(app, *deliveries)) == {HOUR, -1}
    assert release.step(progress) is None
    assert set(lives(app, *deliveries)) == {HOUR}
    assert {app.backend.client.ttl(INPUTS_KEY + one) for one in deliveries} == {HOUR}
    assert {app.backend.client.ttl(ITEMS_KEY + one) for one in deliveries[1::2]} == {HOUR}  # the first had none


def test_a_job_that_goes_on_again_keeps_its_values_again(runner: JobRunner) -> None:
    add, app = runner.app.tasks["add"], runner.app
    release = Release(app, runner.database)
    store(runner, group(add.s(1, 1), add.s(2, 2)))
    take_turn(runner)
    one, two = sorted(row["id"] for row in read_rows(runner.database, "task"))
    put(app, one)
    take_turn(runner, event("succeeded", uuid=one), event("failed", uuid=two))
    release.step()
    assert lives(app, one) == [HOUR]
    take_turn(runner, event("started", uuid=two, at=1, worker="w2@host"))
    assert release.step() is None
    assert lives(app, one) == [-1]
    assert [row["keeps_values"] for row in read_rows(runner.database, "job")] == [True]


def test_what_an_older_delivery_stores_after_the_end_is_let_go_as_well(runner: JobRunner) -> None:
    app, release = runner.app, Release(runner.app, runner.database)
    (one, *_) = ended(runner, delivery=2)
    release.step()
    put(app, one)
    take_turn(runner, event("succeeded", uuid=one))
    assert release.step() is None
    assert lives(app, one) == [HOUR]


def test_a_backend_that_is_away_is_asked_again(runner: JobRunner, redis: Redis) -> None:
    release = Release(runner.app, runner.database)
    (one, *_) = ended(runner, delivery=1)
    put(runner.app, one)
    redis.kill()
    with pytest.raises(RedisError):
        release.step()
    redis.start()
    assert release.step() is None
    assert lives(runner.app, one) == [HOUR]


def ended(runner: JobRunner, *, delivery: int) -> list[str]:
    """Store two jobs that have ended, with three tasks in all that were sent so often and take lists."""
    add, total = runner.app.tasks["add"], runner.app.tasks["total"]
    store(runner, add.s(1, 1) | add.s(1))
    store(runner, total.s([1]))
    with runner.database.write() as connection:
        connection.execute(update(task).values(delivery=delivery, takes_group="group", state="completed"))
        connection.execute(update(job).values(ended_at=moment(), applied_at=moment()))
    return [row["id"] for row in read_rows(runner.database, "task")]
