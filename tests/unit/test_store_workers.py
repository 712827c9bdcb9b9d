"""What the store keeps of workers, for trackers that take over."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import group

from jobrunner import JobRunner
from jobrunner.records import Attempt, Standing
from jobrunner.states import TaskState
from jobrunner.store import tracking
from jobrunner.store.bulk import Update
from jobrunner.store.schema import task
from tests.apps import new_runner, read_rows, store
from tests.builders import MIDNIGHT


@pytest.fixture
def runner(tmp_path: Path, database_url: str) -> Iterator[JobRunner]:
    made = new_runner(tmp_path, database=database_url)
    yield made
    made.database.close()


def test_a_new_tracker_waits_for_who_is_online_and_for_who_said_goodbye_with_tasks_in_hand(runner: JobRunner) -> None:
    """In hand is also what another worker has received since, and may refuse."""
    add = runner.app.tasks["add"]
    store(runner, group(add.s(i, 0) for i in range(5)))
    tasks = [row["id"] for row in read_rows(runner.database, "task")]
    held, ended, of_other_delivery, lost, passed_on = tasks
    with runner.database.write() as connection:
        for name, source, online in (
            ("online", "1", True), ("idle", "2", False), ("holds", "3", False), ("ended", "4", False),
            ("before", "5", False), ("lost", "", False), ("passed on", "6", False),
        ):  # fmt: skip
            tracking.save_worker(connection, name, source, 7, online=online, now=MIDNIGHT)
        Update(task, ["id"], ["state", "delivery"]).run(
            connection,
            [
                {"id": held, "state": TaskState.ACTIVE, "delivery": 1},
                {"id": ended, "state": TaskState.COMPLETED, "delivery": 1},
                {"id": of_other_delivery, "state": TaskState.QUEUED, "delivery": 2},
                {"id": lost, "state": TaskState.ACTIVE, "delivery": 1},
                {"id": passed_on, "state": TaskState.QUEUED, "delivery": 1},
            ],
        )
        tracking.insert_attempts(
            connection,
            [
                Attempt(
                    task_id=id_,
                    delivery=1,
                    retries=0,
                    celery_id=id_,
                    standing=Standing.NONE if name == "passed on" else Standing.STARTED,
                    worker=name,
                    received_at=MIDNIGHT,
                )
                for id_, name in zip(tasks, ("holds", "ended", "before", "lost", "passed on"), strict=True)
            ],
        )
    with runner.database.read() as connection:
        assert tracking.workers_to_hear(connection) == {"online": "1", "holds": "3", "passed on": "6"}
