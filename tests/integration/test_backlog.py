"""What workers tell while no tracker runs is not lost, and killing the tracker while it catches up changes nothing."""

import random
import secrets
import subprocess
import time
from collections import Counter
from contextlib import suppress

import pytest
from sqlalchemy import update

from benchmarks.told import EventFields
from jobrunner.handle import Job
from jobrunner.store.schema import lease
from tests import backlog
from tests.house import House, everywhere, on_sqlite
from tests.waiting import PATIENCE, until

#: Entries that one read of the log takes at most; so many reads make an ingest with many moments.
_READ, _READS = 50, 40
#: Seconds within which a tracker is killed once it has come to the place that was drawn: about a turn.
_TURN = 0.1
#: Seconds that a backlog may take on a busy machine.
_LONG = 300.0


@pytest.mark.timeout(_LONG)
@pytest.mark.house_on("postgresql-rabbitmq", chaos=["sqlite-redis"])
@pytest.mark.parametrize("events", [6_000, pytest.param(60_000, marks=pytest.mark.chaos)], ids=str)
def test_thousands_of_events_that_were_sent_while_no_tracker_ran_are_all_in_the_database(
    house: House, capsys: pytest.CaptureFixture[str], events: int
) -> None:
    house.broker()
    job = backlog.sent_job(house, events // 3)
    told = backlog.history(job)
    number = sum(map(len, told))
    assert number >= events
    backlog.write(house, backlog.entries(told))
    assert backlog.ended(house) == 0

    began = time.monotonic()
    house.tracker()
    backlog.until_read(house, timeout=_LONG)
    took = time.monotonic() - began
    with capsys.disabled():
        print(f"\n{number:,} events read by a tracker {took:.1f} s after its start")  # noqa: T201

    check_all_arrived(house, job, told)


@pytest.mark.timeout(_LONG)
@on_sqlite
def test_killing_the_tracker_at_random_moments_of_ingest_changes_no_row(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    check_kills(house, capsys, tasks=2_000, kills=4)


@pytest.mark.chaos
@pytest.mark.timeout(900)
@everywhere
def test_killing_the_tracker_twenty_times_while_it_reads_sixty_thousand_events_changes_no_row(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    check_kills(house, capsys, tasks=20_000, kills=20)


def check_kills(house: House, capsys: pytest.CaptureFixture[str], *, tasks: int, kills: int) -> None:
    """Have the same events read twice, the second time by trackers that are killed; compare all rows."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")  # noqa: T201  a failure shows it
    house.broker()
    job = backlog.sent_job(house, tasks)
    before = backlog.rows(house.jobs.database, without={})
    told = backlog.history(job)
    entries = backlog.entries(told, length=max(1, sum(map(len, told)) // (_READ * _READS)))

    backlog.write(house, entries)
    undisturbed = house.tracker("undisturbed")
    backlog.until_read(house, timeout=_LONG)
    assert undisturbed.stop() == 0
    check_all_arrived(house, job, told)
    expected = backlog.rows(house.jobs.database)
    everything = backlog.ended(house)

    backlog.put_back(house.jobs.database, before)
    backlog.write(house, entries)
    ended = kill_at_random_moments(house, kills, everything, seed)
    house.tracker()
    backlog.until_read(house, timeout=_LONG)
    with capsys.disabled():
        print(f"\nseed {seed}: killed with {ended} of {everything} attempts ended")  # noqa: T201

    assert all(0 < number < everything for number in ended)
    known = backlog.rows(house.jobs.database)
    for table, rows in expected.items():
        assert backlog.differing(dict(enumerate(known[table])), dict(enumerate(rows))) == [], table


def kill_at_random_moments(house: House, kills: int, everything: int, seed: int) -> list[int]:
    """Kill one tracker after the other, each anywhere in a turn; return how many attempts had ended at each kill."""
    drawn = random.Random(seed)  # noqa: S311  no secret
    ended = []
    for place in sorted(drawn.sample(range(everything // 20, everything * 4 // 5), kills)):
        tracker = house.tracker()
        until(lambda place=place: backlog.ended(house) > place, timeout=PATIENCE, what=f"{place} attempts to end")
        with suppress(subprocess.TimeoutExpired):
            code = tracker.popen.wait(drawn.uniform(0, _TURN))
            pytest.fail(f"the tracker ended by itself with {code}:\n{tracker.text}")
        tracker.kill()
        ended.append(backlog.ended(house))
        end_lease(house)
    return ended


def end_lease(house: House) -> None:
    """Let the next tracker lead at once: that it waits for a killed one's lease to run out is shown elsewhere."""
    with house.jobs.database.write() as connection:
        connection.execute(update(lease).values(expires_at=0.0))


def check_all_arrived(house: House, job: Job, told: list[list[EventFields]]) -> None:
    """Compare what the database has of every attempt, task and worker with what was told."""
    expected = backlog.told_attempts(told)
    assert backlog.differing(backlog.known_attempts(house, job), expected) == []

    outcomes = {task_id: known["outcome"] for (task_id, _), known in sorted(expected.items())}  # of the last attempt
    states = {task_id: "completed" if one == "succeeded" else one for task_id, one in outcomes.items()}
    assert backlog.differing({task.id: str(task.state) for task in job.tasks()}, states) == []
    assert {str(state): number for state, number in job.view.counts.items()} == Counter(states.values())

    known = backlog.rows(house.jobs.database)
    assert {one["name"]: one["pid"] for one in known["worker"]} == {one.worker: one.pid for one in backlog.TELLERS}
    assert known["rejected_event"] == []
