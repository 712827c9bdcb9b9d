"""Many rows at once: whatever a row holds comes back as it was, on both databases."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError

from jobrunner.records import Attempt
from jobrunner.states import TaskState
from jobrunner.store import tracking
from jobrunner.store.bulk import InsertNew, Update, insert_rows
from jobrunner.store.database import Database
from jobrunner.store.schema import attempt, log_part, message, task
from jobrunner.text import NAME
from tests.apps import read_rows
from tests.builders import moment

#: What a careless COPY, array or statement would change.
ODD = [
    "",
    " ",
    "\\",
    "\\N",
    "\\.",
    "NULL",
    "null",
    "a\tb\nc",
    "{a,b}",
    '"',
    "'",
    "%s",
    ":x",
    "größe 🎈",
    "x" * 10_000,
]


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    yield opened
    opened.close()


def attempts(*texts: str | None) -> list[dict[str, Any]]:
    """Rows of attempts, one per text."""
    return [
        dict.fromkeys(Attempt.__slots__)
        | {
            "task_id": f"{number:03}",
            "delivery": 1,
            "retries": 0,
            "process": "p",
            "celery_id": "c",
            "standing": 4,
            "exception": text,
        }
        for number, text in enumerate(texts)
    ]


def test_text_times_numbers_and_nothing_come_back_as_they_were(database: Database) -> None:
    rows = attempts(*ODD, None)
    rows[0] |= {"received_at": moment(0.123456), "runtime": 0.1, "pid": 2**31 - 1}
    rows[1] |= {"received_at": datetime(1, 1, 2, tzinfo=UTC), "runtime": -1e300}
    rows[2] |= {"received_at": datetime(9999, 12, 30, tzinfo=UTC), "runtime": 1e-300}
    with database.write() as connection:
        insert_rows(connection, attempt, rows)
    assert read_rows(database, "attempt") == rows


def test_bytes_come_back_as_they_were(database: Database) -> None:
    rows = [
        {"task_id": f"{number:03}", "body": body, "content_type": "t", "content_encoding": "e", "headers": "{}",
         "properties": "{}"}
        for number, body in enumerate([b"", bytes(range(256)), b"\\x00", b"\\N\n" * 1_000])
    ]  # fmt: skip
    with database.write() as connection:
        insert_rows(connection, message, rows)
    assert read_rows(database, "message") == rows


def test_an_update_changes_each_row_by_its_whole_key_and_no_other(database: Database) -> None:
    rows = attempts(*(["before"] * (len(ODD) + 2)))
    update = Update(attempt, ["task_id", "delivery", "retries", "process"], ["exception", "ended_at", "outcome"])
    changed = [row | {"exception": text, "ended_at": moment(7)} for row, text in zip(rows[1:-1], ODD, strict=True)]
    absent = rows[0] | {"retries": 1, "exception": "of another attempt"}
    with database.write() as connection:
        insert_rows(connection, attempt, rows)
        update.run(connection, [*changed, absent])
    assert read_rows(database, "attempt") == [rows[0], *changed, rows[-1]]


def test_an_update_passes_over_rows_that_do_not_meet_its_conditions(database: Database) -> None:
    rows = attempts("one", "two")
    rows[0]["ended_at"] = moment(1)
    update = Update(attempt, ["task_id"], ["exception"], attempt.c.ended_at.is_(None))
    with database.write() as connection:
        insert_rows(connection, attempt, rows)
        update.run(connection, [row | {"exception": "changed"} for row in rows])
    assert [row["exception"] for row in read_rows(database, "attempt")] == ["one", "changed"]


def test_of_new_rows_those_are_left_out_whose_key_is_there_or_comes_twice(database: Database) -> None:
    rows = [
        {"task_id": "t", "delivery": 1, "retries": 0, "process": "p", "number": number, "at": moment(0.5), "text": text}
        for number, text in enumerate(ODD)
    ]
    insert = InsertNew(log_part, list(rows[0]))
    with database.write() as connection:
        insert.run(connection, [])
        insert.run(connection, rows[3:5])
        insert.run(connection, [*(row | {"text": "again"} for row in rows[3:5]), *rows, *rows])
    assert sorted(read_rows(database, "log_part"), key=lambda row: row["number"]) == rows


def test_rows_are_found_by_any_number_of_ids_whatever_is_in_them(database: Database) -> None:
    ids = [*(text[:NAME] for text in ODD), *(f"{number:05}" for number in range(2_000))]
    rows = [row | {"task_id": id_} for row, id_ in zip(attempts(*ids), ids, strict=True)]
    with database.write() as connection:
        insert_rows(connection, attempt, rows)
        assert {one.task_id for one in tracking.attempts_of(connection, {*ids[1:], "absent"})} == set(ids[1:])
        assert tracking.attempts_of(connection, set()) == []


def test_states_are_stored_as_their_text(database: Database) -> None:
    row = {column.name: None for column in task.columns} | {
        "id": "t", "job_id": "j", "celery_id": "t", "name": "n", "queue": "q", "arrival": 0, "sequence": 0,
        "block_id": "b", "position": 0, "opens_block": "b", "opens_at": 0, "state": TaskState.SOFT_FAILED,
        "delivery": 1, "first_retries": 0, "discovers": False, "replayable": False, "skip_empty": False, "held": False,
        "handed_back": 0, "earlier": 0,
    }  # fmt: skip
    with database.write() as connection:
        insert_rows(connection, task, [row])
    assert [type(row["state"]) for row in read_rows(database, "task")] == [str]
    assert [row["state"] for row in read_rows(database, "task")] == ["soft-failed"]
    with database.write() as connection:
        Update(task, ["id"], ["state"]).run(connection, [{"id": "t", "state": TaskState.READY}])
    assert [row["state"] for row in read_rows(database, "task")] == ["ready"]


def test_no_rows_are_no_work(database: Database) -> None:
    with database.write() as connection:
        insert_rows(connection, attempt, [])
        Update(attempt, ["task_id"], ["exception"]).run(connection, [])
    assert read_rows(database, "attempt") == []


def test_a_row_that_is_there_already_is_an_error_of_integrity_and_nothing_is_written(database: Database) -> None:
    rows = attempts("one", "two")

    def write() -> None:
        with database.write() as connection:
            insert_rows(connection, attempt, [*rows, rows[0]])

    with pytest.raises(IntegrityError):
        write()
    assert read_rows(database, "attempt") == []


def test_a_row_that_does_not_fit_is_an_error_of_the_database(database: Database) -> None:
    (row,) = attempts("one")

    def write() -> None:
        with database.write() as connection:
            insert_rows(connection, attempt, [row | {"task_id": None}])

    with pytest.raises(DBAPIError):
        write()
