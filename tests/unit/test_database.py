"""The database, its two kinds of transactions, what it says when it cannot be used; and the tracker's lease."""

import contextlib
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL
from sqlalchemy.exc import IntegrityError

from jobrunner.errors import ConfigurationError, JobrunnerError, UnreachableError
from jobrunner.store import leases
from jobrunner.store.database import Database
from jobrunner.store.upgrade import upgrade
from tests.apps import new_database
from tests.waiting import PATIENCE

INSERT = "INSERT INTO log_position VALUES ('{}', '0-0')"
LOGS = "SELECT log FROM log_position ORDER BY log"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    yield opened
    opened.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Database]:
    """Return a database on SQLite, for what only that is about."""
    opened = Database(new_database(tmp_path))
    yield opened
    opened.close()


def logs(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.exec_driver_sql(LOGS).scalars())


# ---- transactions ------------------------------------------------------------------------------------------


def test_what_a_transaction_writes_is_there_when_it_ends(database: Database) -> None:
    with database.write() as connection:
        connection.exec_driver_sql(INSERT.format("one"))
        assert logs(database) == []
    assert logs(database) == ["one"]


def test_a_transaction_that_raises_writes_nothing(database: Database) -> None:
    with contextlib.suppress(LookupError), database.write() as connection:
        connection.exec_driver_sql(INSERT.format("one"))
        raise LookupError
    assert logs(database) == []


def test_an_error_of_ours_about_content_is_not_taken_for_an_absent_database(database: Database) -> None:
    def twice() -> None:
        with database.write() as connection:
            connection.exec_driver_sql(INSERT.format("one"))
            connection.exec_driver_sql(INSERT.format("one"))

    with pytest.raises(IntegrityError):
        twice()
    assert logs(database) == []


def test_a_reader_keeps_its_view_while_another_writes(database: Database) -> None:
    with database.read() as reader:
        assert reader.exec_driver_sql(LOGS).all() == []
        with database.write() as writer:
            writer.exec_driver_sql(INSERT.format("one"))
        assert reader.exec_driver_sql(LOGS).all() == []
    assert logs(database) == ["one"]


def test_a_writer_takes_the_lock_at_once_and_a_reader_none(file: Database, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "jobs.db", timeout=0, isolation_level=None)
    with file.read(), file.read():
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
    with file.write(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.execute("BEGIN IMMEDIATE")
    other.execute("ROLLBACK")
    other.close()


def test_the_file_is_in_wal_mode(file: Database) -> None:
    with file.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1


# ---- what it says ------------------------------------------------------------------------------------------


def trouble(url: str) -> JobrunnerError:
    with pytest.raises(JobrunnerError) as caught:
        _ask(url)
    assert caught.value.remedy.endswith(".")
    return caught.value


def _ask(url: str) -> None:
    database = Database(url)
    try:
        with database.read():
            pass
    finally:
        database.close()


@pytest.mark.parametrize("name", ["jobs.db", "no/such/folder/jobs.db", "odd ?#%20 name.db"])
def test_reading_makes_no_file_and_says_where_it_looked(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    database = Database(URL.create("sqlite", database=str(path)).render_as_string())
    with pytest.raises(UnreachableError), database.read():
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_relative_path_is_told_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    error = trouble("sqlite:///jobs.db")
    assert error.problem == f"There is no database at {tmp_path / 'jobs.db'}."
    assert error.exit_code == 5


def test_a_path_with_odd_characters_is_the_file_of_that_name(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'größe 100% #1.db'}"
    upgrade(url)
    assert [path.name for path in tmp_path.glob("*.db")] == ["größe 100% #1.db"]
    _ask(url)


def test_an_older_schema_is_refused_with_the_command_that_helps(database_url: str, database: Database) -> None:
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    error = trouble(database_url)
    assert "has schema 0000; this version needs" in error.problem
    assert "jobrunner db upgrade" in error.remedy


@pytest.mark.parametrize(
    "url",
    ["", "jobs.db", "postgres:/anna:secret@host/jobs", "postgresql://anna:secret@h:x/j"],
)
def test_what_is_no_database_url_is_told_without_its_password(url: str) -> None:
    error = trouble(url)
    assert isinstance(error, ConfigurationError)
    assert "is no database URL" in error.problem
    assert "secret" not in str(error)
    assert "sqlite:///path" in error.remedy


@pytest.mark.parametrize("driver", ["mysql", "postgresql+psycopg2", "foo"])
def test_a_database_that_jobrunner_cannot_use_is_told(driver: str) -> None:
    error = trouble(f"{driver}://anna:secret@host/jobs")
    assert isinstance(error, ConfigurationError)
    assert error.problem == f"jobrunner keeps its data in SQLite or PostgreSQL, not by {driver}."
    assert "postgresql://user@host" in error.remedy


def test_without_its_driver_postgresql_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    error = trouble("postgresql://anna:secret@host/jobs")
    assert isinstance(error, ConfigurationError)
    assert "jobrunner[postgresql]" in error.remedy
    assert "secret" not in str(error)


def test_a_postgresql_database_that_is_away_is_told_without_its_password() -> None:
    error = trouble("postgresql://anna:secret@127.0.0.1:1/jobs")
    assert "postgresql://anna:***@127.0.0.1:1/jobs" in error.problem
    assert "secret" not in str(error)


def test_a_password_among_the_parameters_of_a_url_is_not_told() -> None:
    error = trouble("postgresql://127.0.0.1:1/jobs?user=anna&password=secret")
    assert "127.0.0.1:1/jobs" in error.problem
    assert "secret" not in str(error)


# ---- the lease ---------------------------------------------------------------------------------------------

#: Seconds of a lease that has run out already: one of 0 seconds runs until the clock shows the next millisecond.
OVER = -1.0


def acquire(database: Database, holder: str, seconds: float = 60) -> bool:
    with database.write() as connection:
        return leases.acquire(connection, holder, seconds)


def renew(
    database: Database,
    holder: str,
    seconds: float = 60,
    trouble: str | None = None,
    drained_ago: float | None = None,
) -> bool:
    with database.write() as connection:
        return leases.renew(connection, holder, seconds, trouble, drained_ago)


def behind(database: Database) -> float | None:
    with database.read() as connection:
        found = leases.tracker_status(connection)
    assert found is not None
    return found.behind_seconds


def status(database: Database) -> tuple[str, bool, str | None] | None:
    with database.read() as connection:
        found = leases.tracker_status(connection)
    return found and (found.holder, found.alive, found.trouble)


def test_nobody_tracks_a_new_database(database: Database) -> None:
    assert status(database) is None
    assert not renew(database, "one")


def test_how_far_behind_a_tracker_is_counts_from_the_last_time_that_one_had_read_everything(database: Database) -> None:
    acquire(database, "one")
    assert behind(database) is None
    renew(database, "one", drained_ago=3600)
    assert behind(database) == pytest.approx(3600, abs=PATIENCE)
    renew(database, "one", OVER)
    acquire(database, "two")
    renew(database, "two", trouble="the broker cannot be reached")
    assert behind(database) == pytest.approx(3600, abs=PATIENCE), "whoever leads: it has not read anything yet"
    renew(database, "two", drained_ago=0)
    assert behind(database) == pytest.approx(0, abs=PATIENCE)


def test_one_holder_has_the_lease_and_a_second_waits(database: Database) -> None:
    assert acquire(database, "one")
    assert not acquire(database, "two")
    assert not renew(database, "two")
    assert acquire(database, "one")
    assert renew(database, "one")
    assert status(database) == ("one", True, None)


def test_a_lease_that_has_run_out_by_the_databases_clock_goes_to_the_next(database: Database) -> None:
    assert acquire(database, "one", OVER)
    assert status(database) == ("one", False, None)
    assert acquire(database, "two")
    assert not renew(database, "one")
    assert status(database) == ("two", True, None)


def test_a_holder_that_is_late_keeps_its_lease_if_nobody_took_it(database: Database) -> None:
    assert acquire(database, "one", OVER)
    assert renew(database, "one")
    assert not acquire(database, "two")


def test_a_lease_given_back_is_free_at_once(database: Database) -> None:
    assert acquire(database, "one")
    with database.write() as connection:
        leases.release(connection, "two")
    assert not acquire(database, "two")
    with database.write() as connection:
        leases.release(connection, "one")
    assert acquire(database, "two")


def test_the_holders_trouble_is_told_until_it_is_over_or_another_takes_over(database: Database) -> None:
    acquire(database, "one")
    renew(database, "one", 60, "the broker is away")
    assert status(database) == ("one", True, "the broker is away")
    renew(database, "one")
    assert status(database) == ("one", True, None)
    renew(database, "one", OVER, "the broker is away")
    acquire(database, "two")
    assert status(database) == ("two", True, None)


def test_the_place_in_each_event_log_is_kept(database: Database) -> None:
    with database.write() as connection:
        assert leases.read_position(connection, "one") is None
        leases.write_position(connection, "one", "5-1")
        leases.write_position(connection, "two", "7-0")
        leases.write_position(connection, "one", "6-0")
    with database.read() as connection:
        assert leases.read_position(connection, "one") == "6-0"
        assert leases.read_position(connection, "two") == "7-0"


def test_the_place_in_a_log_is_not_kept_when_its_batch_is_not(database: Database) -> None:
    with contextlib.suppress(LookupError), database.write() as connection:
        leases.write_position(connection, "one", "5-1")
        raise LookupError
    with database.read() as connection:
        assert leases.read_position(connection, "one") is None
