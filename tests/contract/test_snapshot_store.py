"""The snapshot on its way from the tracker's rows to Redis, and back as acknowledgements: on both databases."""

import math
from collections.abc import Iterator
from datetime import timedelta
from threading import Event

import pytest
from celery import Celery

from jobrunner import JobRunner
from jobrunner.snapshot import SNAPSHOT_KEY, SNAPSHOT_VERSION_KEY, Hold, Kind, Snapshot
from jobrunner.store import tracking
from jobrunner.store.schema import job
from jobrunner.wire import SNAPSHOT_APPLIED
from tests.apps import read_rows, store, take_turn
from tests.builders import MIDNIGHT, entry, raw_event
from tests.servers.redis import Redis
from tests.waiting import PATIENCE, until
from tracker import snapshot
from tracker.absorb import absorb
from tracker.events import read_events
from tracker.snapshot import SnapshotStore
from tracker.turn import Turn


@pytest.fixture
def app(redis: Redis) -> Iterator[Celery]:
    made = Celery("shop", broker=redis.url, backend=redis.url, set_as_current=False)
    yield made
    made.backend.client.close()


@pytest.fixture
def snapshots(app: Celery, monkeypatch: pytest.MonkeyPatch) -> Iterator[SnapshotStore]:
    """A store that looks often."""
    monkeypatch.setattr(snapshot, "_LOOK", 0.05)
    monkeypatch.setattr(snapshot, "_RETRY", 0.05)
    made = SnapshotStore(app)
    yield made
    made.stop()


def stored(app: Celery) -> Snapshot | None:
    text, version = app.backend.get(SNAPSHOT_KEY), app.backend.get(SNAPSHOT_VERSION_KEY)
    if text is None or version is None or Snapshot.loads(text).version != int(version):
        return None
    return Snapshot.loads(text)


def comes(app: Celery, wanted: Snapshot) -> None:
    until(lambda: stored(app) == wanted, timeout=PATIENCE, what=f"version {wanted.version} to be stored")


def paused(version: int) -> Snapshot:
    return Snapshot(version=version, jobs={"job": Hold(held=Kind.PAUSED)}, void={"one": 2.5, "two": None})


# ---- what is stored ----------------------------------------------------------------------------------------


def test_each_version_is_stored_without_expiry(app: Celery, snapshots: SnapshotStore) -> None:
    snapshots.start(Snapshot(version=0))
    comes(app, Snapshot(version=0))
    snapshots.keep(paused(1))
    comes(app, paused(1))
    assert [app.backend.client.ttl(key) for key in (SNAPSHOT_KEY, SNAPSHOT_VERSION_KEY)] == [-1, -1]


def test_a_backend_that_has_lost_it_or_has_that_of_a_tracker_before_gets_it_again(
    app: Celery, snapshots: SnapshotStore
) -> None:
    snapshots.start(paused(3))
    comes(app, paused(3))
    app.backend.client.flushdb()
    comes(app, paused(3))
    app.backend.client.set(SNAPSHOT_KEY, paused(2).dumps())  # and was killed before it could write the version
    comes(app, paused(3))
    app.backend.client.set(SNAPSHOT_VERSION_KEY, "2")
    comes(app, paused(3))


def test_nothing_may_be_sent_before_it_is_stored_and_a_backend_that_is_away_is_tried_again(
    app: Celery, snapshots: SnapshotStore, redis: Redis
) -> None:
    redis.kill()
    snapshots.start(paused(1))
    until(lambda: snapshots.trouble, timeout=PATIENCE, what="the store to say that the backend is away")
    assert snapshots.stored is None
    redis.start()
    comes(app, paused(1))
    until(lambda: snapshots.stored == 1, timeout=PATIENCE, what="the store to know that workers are told")
    assert snapshots.trouble is None


def test_a_tracker_that_may_not_lead_any_more_stores_nothing(app: Celery, snapshots: SnapshotStore) -> None:
    snapshots.start(paused(1))
    comes(app, paused(1))
    snapshots.stop()
    snapshots.keep(paused(2))
    snapshots.until = 0
    snapshots._store(Event())
    assert stored(app) == paused(1)
    snapshots.until = math.inf
    snapshots._store(Event())
    assert stored(app) == paused(2)


def test_without_a_result_backend_nothing_may_ever_be_sent_and_it_says_why() -> None:
    snapshots = SnapshotStore(Celery("bare", broker="memory://", set_as_current=False))
    snapshots.start(Snapshot(version=0))
    assert snapshots.stored is None
    assert "JOBRUNNER_RESULT_BACKEND" in (snapshots.trouble or "")


def test_a_turn_that_changes_nothing_has_no_newer_one(runner: JobRunner, snapshots: SnapshotStore) -> None:
    with runner.database.write() as connection:
        snapshots.start(tracking.load_snapshot(connection))
        assert snapshots.newer(connection) is None
        version = tracking.next_version(connection)
        tracking.add_entries(connection, Kind.CANCELED, [("job", "", 5.0)], version, MIDNIGHT)
        newer = snapshots.newer(connection)
        assert newer == Snapshot(version=1, jobs={"job": Hold(held=Kind.CANCELED, grace=5.0)})
        snapshots.keep(newer)
        assert snapshots.newer(connection) is None


# ---- what is no longer needed ------------------------------------------------------------------------------


def test_what_is_said_of_jobs_that_ended_long_ago_is_forgotten_and_only_that(runner: JobRunner) -> None:
    add = runner.app.tasks["add"]
    old, young, running = (store(runner, add.s(1, 1)) for _ in range(3))
    before, late = MIDNIGHT - timedelta(days=8), MIDNIGHT - timedelta(days=6)
    with runner.database.write() as connection:
        for job_id, ended_at in ((old, before), (young, late), (running, None)):
            connection.execute(job.update().where(job.c.id == job_id).values(ended_at=ended_at))
            tracking.add_entries(connection, Kind.CANCELED, [(job_id, "", None)], 1, before)
        tracking.add_entries(connection, Kind.VOID, [("", "old batch", None)], 1, before)
        tracking.add_entries(connection, Kind.VOID, [("", "young batch", None)], 1, late)
        assert tracking.retire_entries(connection, MIDNIGHT - timedelta(days=7), 10) == 2
        left = tracking.load_snapshot(connection)
        assert (left.version, set(left.jobs), set(left.void)) == (1, {young, running}, {"young batch"})
        assert tracking.retire_entries(connection, MIDNIGHT - timedelta(days=7), 10) == 0
        assert tracking.snapshot_version(connection) == 1, "nothing has changed"


# ---- who goes by it ----------------------------------------------------------------------------------------


def applied(runner: JobRunner, version: object, *, source: str = "process-1", **fields: object) -> None:
    told = raw_event(type=SNAPSHOT_APPLIED, uuid=None, version=version, **fields)
    take_turn(runner, *read_events([entry(told, source=source)]).events)


def behind(runner: JobRunner, version: int) -> list[str]:
    with runner.database.read() as connection:
        return tracking.unacknowledged(connection, version)


def test_a_worker_that_is_not_known_yet_acknowledges_a_version(runner: JobRunner) -> None:
    applied(runner, 4, left=[])
    assert (behind(runner, 4), behind(runner, 5)) == ([], ["w1@host"])
    applied(runner, 5)
    assert behind(runner, 5) == []


def test_another_process_of_the_same_name_has_acknowledged_nothing(runner: JobRunner) -> None:
    applied(runner, 4)
    take_turn(runner, *read_events([entry(raw_event(type="worker-online"), source="process-2")]).events)
    assert behind(runner, 1) == ["w1@host"]


def test_an_acknowledgement_without_a_version_is_none(runner: JobRunner) -> None:
    for odd in (None, -1, "4", True, 2**40):
        applied(runner, odd, left="nothing")
    assert read_rows(runner.database, "worker") == []


def test_what_a_replaced_process_says_late_is_nothing_about_its_successor(runner: JobRunner) -> None:
    applied(runner, 1, source="process-2")
    with runner.database.write() as connection:
        late = entry(raw_event(type=SNAPSHOT_APPLIED, version=4), source="process-1")
        absorb(Turn(connection, MIDNIGHT), read_events([late]).events, {"process-1"})
    assert behind(runner, 2) == ["w1@host"]


def test_what_a_pool_could_not_end_is_kept_for_the_turn(runner: JobRunner) -> None:
    with runner.database.write() as connection:
        turn = Turn(connection, MIDNIGHT)
        told = raw_event(type=SNAPSHOT_APPLIED, version=4, left=["one", 2, "three"])
        absorb(turn, read_events([entry(told)]).events, ())
        assert turn.left == {"one": "w1@host", "three": "w1@host"}
