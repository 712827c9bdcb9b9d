"""Migrations up, down and up again with rows in place, and the schema they make, on both databases."""

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from celery import chain, chord
from sqlalchemy import insert, inspect

from jobrunner.records import Standing
from jobrunner.store import tracking
from jobrunner.store.check import check
from jobrunner.store.database import Database
from jobrunner.store.migrations import FOLDER, HEAD
from jobrunner.store.schema import attempt, metadata, orders
from jobrunner.store.upgrade import create_if_empty, upgrade
from tests.apps import new_runner, read_rows, store
from tests.builders import MIDNIGHT, entry, raw_event
from tracker.events import read_events
from tracker.folding import fold
from tracker.turn import Turn

FIRST = "0001"


def migrate(url: str, target: str) -> None:
    """Run Alembic itself, as a developer does."""
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    database = Database(url, create=True)
    with database.write() as connection:
        config.attributes["connection"] = connection
        (command.downgrade if target == "base" or target < HEAD else command.upgrade)(config, target)
    database.close()


def fill(url: str, folder: Path) -> None:
    """Put rows into every table that a migration has not filled itself, with the defaults of what came later."""
    runner = new_runner(folder, database=url)
    add, total = runner.app.tasks["add"], runner.app.tasks["total"]
    task_id = store(runner, chord([chain(add.s(1, 2), add.s(3)), add.s(4, 5)], total.s()), key="key")
    with runner.database.write() as connection:
        connection.execute(
            insert(attempt).values(
                task_id=task_id,
                delivery=1,
                retries=0,
                process="process-1",
                celery_id=task_id,
                standing=Standing.RECEIVED,
                received_at=MIDNIGHT,
                runtime=0.25,
            )
        )
        connection.execute(
            insert(orders).values(id="o", kind="pause", arguments="{}", asked_by="somebody", asked_at=MIDNIGHT)
        )
        connection.execute(metadata.tables["job"].update().values(keeps_values=False))
        connection.execute(metadata.tables["task"].update().values(max_retries=None))
    runner.database.close()


def contents(url: str) -> dict[str, list[dict[str, Any]]]:
    database = Database(url)
    found = {name: read_rows(database, name) for name in metadata.tables}
    database.close()
    return found


def tables(url: str) -> list[str]:
    database = Database(url, create=True)
    with database.write() as connection:
        found = inspect(connection).get_table_names()
    database.close()
    return sorted(found)


def test_rows_are_kept_by_every_step_down_to_the_first_schema_and_up_again(
    empty_database_url: str, tmp_path: Path
) -> None:
    upgrade(empty_database_url)
    fill(empty_database_url, tmp_path)
    before = contents(empty_database_url)
    assert before["job"]
    assert before["attempt"][0]["received_at"] == MIDNIGHT
    migrate(empty_database_url, FIRST)
    assert upgrade(empty_database_url) == (FIRST, HEAD)
    assert contents(empty_database_url) == before


def test_rows_of_the_first_schema_are_there_after_the_upgrade(empty_database_url: str) -> None:
    migrate(empty_database_url, HEAD)
    migrate(empty_database_url, FIRST)
    database = Database(empty_database_url, create=True)  # which does not ask for the newest schema
    with database.write() as connection:
        connection.execute(metadata.tables["lease"].delete())  # as it was before a tracker had made it
        connection.execute(insert(orders).values(id="o", kind="pause", arguments="{}", asked_by="x", asked_at=MIDNIGHT))
    database.close()
    upgrade(empty_database_url)
    found = contents(empty_database_url)
    assert [row["id"] for row in found["orders"]] == ["o"]
    assert [row["name"] for row in found["lease"]] == ["tracker"]


def test_down_to_nothing_leaves_nothing_and_up_again_makes_it_anew(empty_database_url: str, tmp_path: Path) -> None:
    upgrade(empty_database_url)
    fill(empty_database_url, tmp_path)
    migrate(empty_database_url, "base")
    assert tables(empty_database_url) == ["alembic_version"]
    assert upgrade(empty_database_url) == (None, HEAD)
    assert contents(empty_database_url)["job"] == []
    fill(empty_database_url, tmp_path)
    assert len(contents(empty_database_url)["task"]) == 4


def test_what_migrations_make_is_what_models_declare(empty_database_url: str) -> None:
    upgrade(empty_database_url)
    database = Database(empty_database_url)
    assert check(database) == []
    database.close()


def test_an_empty_database_gets_its_tables_once_and_one_with_something_in_it_is_left_alone(
    empty_database_url: str,
) -> None:
    database = Database(empty_database_url)
    assert create_if_empty(database, make_file=True)
    assert not create_if_empty(database, make_file=True)
    migrate(empty_database_url, "base")  # leaves the table in which Alembic keeps the version
    assert not create_if_empty(database, make_file=True)
    database.close()


def test_what_was_only_observed_goes_with_the_way_down(empty_database_url: str) -> None:
    upgrade(empty_database_url)
    database = Database(empty_database_url)
    heard = [raw_event(type="task-received", uuid="a", name="a", root_id="a"), raw_event(uuid="a")]
    with database.write() as connection:
        turn = Turn(connection, MIDNIGHT)
        fold(turn, read_events([entry(*heard)]).events)
        turn.move_on()
        turn.settle()
        tracking.save_worker(connection, "w1@host", "1", 1, online=True, now=MIDNIGHT, lossy=True)
    database.close()
    assert [row["id"] for row in contents(empty_database_url)["job"]] == ["a"]
    migrate(empty_database_url, "0007")
    upgrade(empty_database_url)
    found = contents(empty_database_url)
    assert {name: found[name] for name in ("job", "task", "attempt", "worker")} == {
        "job": [], "task": [], "attempt": [], "worker": [],
    }  # fmt: skip
