"""What HySDS says of tasks and their events (H), as far as states, names and a running house show it."""

import json
import re
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from types import FunctionType
from typing import Any

import celery
import pytest
from celery import chain, group
from sqlalchemy import select

from jobrunner import CommandResult, CommandTask
from jobrunner.event_types import ACTIVE_EVENTS, EVENT_TYPES, INACTIVE_EVENTS, event_named
from jobrunner.states import ENDED_JOB, TASK_MOVES, TaskState, success
from jobrunner.store import schema
from jobrunner.terminology import ours
from tests.house import PATIENCE, House, on_sqlite
from tests.waiting import until

EVENTS = {
    "sent": TaskState.QUEUED,
    "received": TaskState.QUEUED,
    "started": TaskState.ACTIVE,
    "succeeded": TaskState.COMPLETED,
    "failed": TaskState.FAILED,
    "revoked": TaskState.CANCELED,
    "retried": TaskState.SOFT_FAILED,
}

FIELDS = {
    "task-sent": "uuid name args kwargs retries eta expires queue exchange routing_key",
    "task-received": "uuid name args kwargs retries eta hostname timestamp",
    "task-started": "uuid hostname timestamp pid",
    "task-succeeded": "uuid result runtime hostname timestamp",
    "task-failed": "uuid exception traceback hostname timestamp",
    "task-retried": "uuid exception traceback hostname timestamp",
}


@on_sqlite
def test_h1_tasks_are_celery_level_python_functions_dispatched_to_distributed_workers(running: House) -> None:
    proj = running.proj
    job = running.jobs.submit(chain(group(proj.identity.s(1), proj.on_its_own_queue.s(2)), proj.total.s()))
    other = running.worker("other", queues="own")
    assert job.result(PATIENCE) == 3
    assert [task.worker for task in job.tasks()] == ["worker@house", "other@house", "worker@house"]
    assert {type(running.app.tasks[task.name].run) for task in job.tasks()} == {FunctionType}
    other.stop()


def test_h2_jobs_are_tasks_that_run_a_subprocess() -> None:
    assert ours("HySDS", "word", "job") == ("command task",)


def test_h2_a_job_is_a_subclass_of_a_task_that_runs_an_executable_in_a_working_directory_of_a_worker(
    running: House,
) -> None:
    script = running.proj.script
    assert isinstance(script, CommandTask)
    assert issubclass(CommandTask, celery.Task)
    record = CommandResult.read(running.jobs.submit(script.si("pwd; echo $$")).result(PATIENCE))
    assert record.stdout.splitlines()[0] == record.work_directory
    assert record.worker == "worker@house"
    assert Path(record.work_directory).is_relative_to(running.home / "work")


@pytest.mark.parametrize(("event", "state"), EVENTS.items(), ids=EVENTS)
def test_h3_every_event_tells_of_a_state(event: str, state: TaskState) -> None:
    assert state in ours("HySDS", "event", event)


def test_h3_the_events_of_a_job_have_the_fields_of_celerys_own(running: House) -> None:
    proj = running.proj
    canvas = chain(proj.add.s(1, 2), proj.fail_times.s(1, running.path("h3")), proj.fail.s())
    _, events = running.events_of(canvas, 15)
    assert {event["type"] for event in events} == set(FIELDS)
    for event in events:
        assert set(FIELDS[event["type"]].split()) <= set(event)


def test_h3_the_catalogue_has_every_event_with_its_fields() -> None:
    revoked = {"task-revoked": "uuid terminated signum expired"}
    told = {one.name: {field.name for field in one.fields if field.h3} for one in EVENT_TYPES.values() if one.is_h3}
    for one, fields in (FIELDS | revoked).items():
        assert told.pop(one) >= set(fields.split())
    assert told == {}


def test_h3_every_field_is_kept_where_the_catalogue_says(running: House) -> None:
    proj = running.proj
    canvas = chain(proj.add.s(1, 2), proj.fail_times.s(1, running.path("h3-kept")), proj.fail.s())
    job, events = running.events_of(canvas, 15)
    attempts = running.ended_attempts(job)
    rows = {
        (one.celery_id, one.retries): {"attempt": asdict(one), **stored(running, one.task_id)}
        for ones in attempts
        for one in ones
    }
    checked = set()
    for event in events:
        for field in EVENT_TYPES[event["type"]].fields:
            for place in field.kept if field.h3 else ():
                checked.add((event["type"], field.name))
                assert same(kept(rows[event["uuid"], event["retries"]], place), event[field.name]), (field, event)
    of_these = [one for one in EVENT_TYPES.values() if one.is_h3 and one.name != "task-revoked"]
    assert checked == {(one.name, field.name) for one in of_these for field in one.fields if field.h3 and field.kept}


def stored(house: House, task_id: str) -> dict[str, dict[str, Any]]:
    """Return the rows of a task and of its message."""
    with house.jobs.database.read() as connection:
        tables = {"task": schema.task.c.id, "message": schema.message.c.task_id}
        found = {name: connection.execute(select(id_.table).where(id_ == task_id)) for name, id_ in tables.items()}
        return {name: result.one()._asdict() for name, result in found.items()}


def kept(rows: dict[str, dict[str, Any]], place: str) -> Any:
    """Return what is kept at a place as the catalogue writes it: table.column, or table.column[key of JSON]."""
    table, column, *keys = re.findall(r"\w+", place)
    value = rows[table][column]
    return json.loads(value)[keys[0]] if keys else value


def same(value: Any, told: Any) -> bool:
    if isinstance(value, datetime):
        return bool(value.timestamp() == pytest.approx(told, abs=1e-3))
    return bool(value == told)


@pytest.mark.parametrize("event", ["succeeded", "failed", "revoked", "retried"])
def test_h3_every_end_may_come_without_a_started(event: str) -> None:
    assert EVENTS[event] in TASK_MOVES[TaskState.QUEUED]


def test_h4_sent_received_and_started_are_active_with_more_to_come() -> None:
    assert set(ACTIVE_EVENTS) == {"sent", "received", "started"}
    for event in ACTIVE_EVENTS:
        assert success(EVENTS[event]) is None


def test_h4_succeeded_failed_revoked_and_retired_are_inactive() -> None:
    assert set(INACTIVE_EVENTS) == {"succeeded", "failed", "revoked", "retried"}


def test_h4_retired_is_retried() -> None:
    assert ours("HySDS", "event", "retired") == ours("HySDS", "event", "retried") == (TaskState.SOFT_FAILED,)
    assert event_named("retired") == "task-retried"


def test_h4_tasks_are_listed_as_active_with_more_to_come_and_as_inactive(running: House) -> None:
    proj = running.proj
    gate = running.gate("h4")
    job = running.jobs.submit(group(proj.hold.s(1, str(gate)), proj.add.s(1, 2), proj.fail.s("no")) | proj.total.s())
    held, added, failed, last = job.tasks()
    known = ["task-started", "task-succeeded", "task-failed", None]
    until(
        lambda: [task.last_event for task in job.tasks()] == known, timeout=PATIENCE, what="the last events to be known"
    )

    def listed(*options: str) -> list[str]:
        return [task["id"] for task in running.ask("tasks", job.id, "--json", *options).json]

    assert listed("--active") == [held.id]
    assert listed("--inactive") == [added.id, failed.id]
    assert last.more_to_come is None, "it was never sent"
    gate.open()
    until(lambda: job.state in ENDED_JOB, timeout=PATIENCE, what="the job to end")
    assert [task.more_to_come for task in job.tasks()] == [False, False, False, None]
