"""Odd events in a turn, on both databases: what a database takes is folded, what it refuses is rejected alone."""

from typing import Any

import pytest
from celery import group

from jobrunner import JobRunner
from jobrunner.records import Attempt
from jobrunner.states import TaskState
from jobrunner.store import reading, tracking
from jobrunner.store.check import check
from jobrunner.text import SENTENCE, TRACEBACK
from tests.apps import read_rows, store
from tests.builders import MIDNIGHT, entry, raw_event
from tests.refusing import POISON, refuse_poison
from tracker.absorb import absorb_apart
from tracker.eventlog.entries import decode
from tracker.events import Told, read_events
from tracker.rejects import Reason
from tracker.sending import take_ready
from tracker.turn import Turn

#: Fields of an event that are odd, and no reason to reject it.
ODD_FIELDS: dict[str, dict[str, Any]] = {
    "nul": {"exception": "a\x00b", "traceback": "\x00", "result": "\x00"},
    "surrogate": {"exception": "\ud800", "traceback": "\udfff", "result": "\ud83d"},
    "long": {"exception": "x" * 10_000_000, "traceback": "x" * 10_000_000, "result": "x" * 10_000_000},
    "structures": {"exception": {"a": [1]}, "traceback": [[]], "result": {}},
    "nan": {"runtime": float("nan")},
    "infinite": {"runtime": float("-inf")},
    "huge": {"runtime": 10**400, "pid": 10**400},
    "extreme": {"runtime": 1.7e308, "pid": 2**31 - 1, "retries": 2**30 - 1},
    "numbers": {"pid": 1.5, "retries": "1"},
    "truths": {"pid": True, "retries": False, "runtime": True},
    "year 9999": {"timestamp": 253402128000.0 - 1},
    "year 1": {"timestamp": -62135510400.0},
    "names": {"hostname": "\x00" + "w" * 10_000, "name": "\x00"},
}


def sent(runner: JobRunner, number: int) -> tuple[str, list[str]]:
    """Store a job of tasks side by side, of which all are sent; return its id and theirs."""
    job_id = store(runner, group(runner.app.tasks["add"].s(1, one) for one in range(number)))
    with runner.database.write() as connection:
        turn = Turn(connection, MIDNIGHT)
        turn.take_up()
        letters = take_ready(turn)
        turn.settle()
    return job_id, [one.letter.task_id for one in letters]


def ended(task_id: str, **fields: Any) -> dict[str, Any]:
    return raw_event(type="task-succeeded", uuid=task_id, **fields)


def fold_apart(runner: JobRunner, told: Told) -> None:
    with runner.database.write() as connection:
        turn = Turn(connection, MIDNIGHT)
        absorb_apart(turn, told, ())
        tracking.insert_rejected(connection, told.rejects.rows, MIDNIGHT)


def attempts(runner: JobRunner, *task_ids: str) -> list[Attempt]:
    with runner.database.read() as connection:
        found = tracking.attempts_of(connection, task_ids)
    return sorted(found, key=lambda one: one.task_id)


@pytest.mark.parametrize("fields", ODD_FIELDS.values(), ids=ODD_FIELDS)
def test_an_event_with_odd_fields_is_folded(runner: JobRunner, fields: dict[str, Any]) -> None:
    _, (task_id,) = sent(runner, 1)
    told = read_events([entry(ended(task_id, **fields))])
    fold_apart(runner, told)
    assert told.rejects.rows == []
    (found,) = attempts(runner, task_id)
    assert found.outcome == "succeeded"
    assert len(found.exception or "") <= SENTENCE
    assert len(found.traceback or "") <= TRACEBACK
    assert check(runner.database) == []


def test_odd_events_are_written_down_once_whatever_they_hold(runner: JobRunner) -> None:
    odd = ["", "\x00\ud800", 5, [], {"type": "\x00"}, {"type": 1}, ended("\x00", timestamp="\ud800", hostname="\x00w")]
    told = read_events([decode(1, "process-1", "w1@host", b"\x00\xff"), entry(*odd)])
    fold_apart(runner, told)
    assert told.unknown.total() == 1
    rows = read_rows(runner.database, "rejected_event")
    assert [row["at"] for row in rows] == [MIDNIGHT] * len(odd)
    assert [row["event"] for row in rows] == [row.event for row in told.rejects.rows]
    with runner.database.read() as connection:
        assert reading.rejected_number(connection) == len(odd)


def test_what_the_database_refuses_is_rejected_alone_and_its_neighbours_are_folded(runner: JobRunner) -> None:
    refuse_poison(runner.database)
    job_id, task_ids = sent(runner, 20)
    odd = {3, 4, 19}
    events = [ended(one, hostname=POISON if number in odd else "w1@host") for number, one in enumerate(task_ids)]
    told = read_events([entry(*events[:7]), entry(*events[7:])])
    fold_apart(runner, told)

    rows = read_rows(runner.database, "rejected_event")
    assert [row["uuid"] for row in rows] == [task_ids[number] for number in sorted(odd)]
    assert {(row["reason"], row["worker"], row["source"]) for row in rows} == {(Reason.NO_FOLD, POISON, "process-1")}
    assert all("IntegrityError" in row["detail"] or "CheckViolation" in row["detail"] for row in rows)
    assert len(attempts(runner, *task_ids)) == len(task_ids) - len(odd)
    with runner.database.read() as connection:
        (job,) = tracking.jobs_by_id(connection, [job_id]).values()
    assert job.counts[TaskState.COMPLETED] == len(task_ids) - len(odd)
    assert check_but_the_schema(runner) == []


def test_an_event_that_python_cannot_fold_is_rejected_alone(runner: JobRunner) -> None:
    """Text of the deepest nesting that a parser takes may be too deep to be written."""
    _, (first, second) = sent(runner, 2)
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    told = read_events([entry(ended(first, result=deep), ended(second))])
    fold_apart(runner, told)
    (row,) = read_rows(runner.database, "rejected_event")
    assert (row["uuid"], row["detail"].partition(":")[0]) == (first, "RecursionError")
    assert [one.task_id for one in attempts(runner, first, second)] == [second]


def test_killed_before_its_commit_a_turn_has_neither_folded_nor_rejected(runner: JobRunner) -> None:
    refuse_poison(runner.database)
    _, task_ids = sent(runner, 4)
    told = read_events([entry(*(ended(one, hostname=POISON if one == task_ids[1] else "w") for one in task_ids))])

    def killed() -> None:
        with runner.database.write() as connection:
            absorb_apart(Turn(connection, MIDNIGHT), told, ())
            tracking.insert_rejected(connection, told.rejects.rows, MIDNIGHT)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    assert attempts(runner, *task_ids) == []
    assert read_rows(runner.database, "rejected_event") == []


def check_but_the_schema(runner: JobRunner) -> list[str]:
    """Check counters: `refuse_poison` has added to the schema."""
    return [one for one in check(runner.database) if not one.startswith("The schema")]
