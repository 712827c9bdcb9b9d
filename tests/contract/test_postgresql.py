"""What a PostgreSQL server may do to those who use it, and what they then say."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Connection, text

from jobrunner.errors import UnreachableError
from jobrunner.store import check, engines
from jobrunner.store.database import Database
from jobrunner.store.upgrade import upgrade
from tests.waiting import until

if TYPE_CHECKING:
    from tests.servers.postgres import Postgres


@pytest.fixture
def url(postgres: "Postgres") -> Iterator[str]:
    with postgres.database() as url:
        yield url


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = Database(url)
    yield opened
    opened.close()


def jobs(database: Database) -> int:
    with database.read() as connection:
        return int(connection.execute(text("SELECT count(*) FROM job")).scalar_one())


def test_connections_that_a_restart_has_cut_are_replaced(database: Database, postgres: "Postgres") -> None:
    assert jobs(database) == 0
    postgres.kill()
    with pytest.raises(UnreachableError, match="cannot be reached"):
        jobs(database)
    postgres.start()
    assert jobs(database) == 0
    postgres.restart()
    assert jobs(database) == 0


def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises(UnreachableError, match="read-only"), database.read() as connection:
        connection.execute(text("DELETE FROM job"))


def test_a_session_that_is_frozen_within_a_transaction_is_ended(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would hold the row of the lease, and a standby would wait for it for ever."""
    monkeypatch.setattr(engines, "FROZEN", 0.2)
    frozen, other = Database(url), Database(url)

    def holds() -> bool:
        with other.read() as connection:
            locks = connection.execute(text("SELECT count(*) FROM pg_locks WHERE mode = 'ExclusiveLock' AND granted"
                                            " AND relation = 'lease'::regclass"))  # fmt: skip
            return locks.scalar_one() == 1

    def freeze() -> None:
        with frozen.write() as connection:
            connection.execute(text("LOCK TABLE lease IN EXCLUSIVE MODE"))
            assert holds()
            until(lambda: not holds(), what="the server to end the session")
            connection.execute(text("SELECT 1"))

    with pytest.raises(UnreachableError, match="idle-in-transaction timeout"):
        freeze()
    assert jobs(frozen) == 0
    frozen.close()
    other.close()


def test_a_user_without_rights_is_told_what_to_grant(database: Database, url: str, postgres: "Postgres") -> None:
    with database.write() as connection:
        connection.execute(text("CREATE ROLE stranger LOGIN"))
    stranger = Database(url.replace("postgres@", "stranger@"))
    with pytest.raises(UnreachableError, match="permission denied for table") as caught:
        jobs(stranger)
    assert "Grant" in caught.value.remedy
    stranger.close()
    with postgres.database(template=False) as empty, pytest.raises(UnreachableError, match="permission denied for sch"):
        upgrade(empty.replace("postgres@", "stranger@"))
    with database.write() as connection:
        connection.execute(text("DROP ROLE stranger"))


def test_a_database_that_is_not_there_is_told_with_its_name(url: str) -> None:
    absent = Database(url.replace("jobs", "nothing"))
    with pytest.raises(UnreachableError, match=r'database "nothing.*" does not exist'):
        jobs(absent)
    absent.close()


def test_a_check_that_takes_its_time_is_not_taken_for_a_frozen_session(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "FROZEN", 0.2)
    checked, other = Database(url), Database(url)
    idle = text("SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname ="
                " current_database() AND pid = :pid AND clock_timestamp() - state_change > interval '1 s'")  # fmt: skip
    gone = text("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = :pid")

    def take_time(connection: Connection) -> Iterator[str]:
        pid = {"pid": connection.execute(text("SELECT pg_backend_pid()")).scalar_one()}

        def was_silent() -> bool:
            with other.read() as asking:
                return bool(asking.execute(idle, pid).scalar_one() or asking.execute(gone, pid).scalar_one())

        until(was_silent, what="a second of silence")
        yield from ()

    monkeypatch.setattr(check, "_schema", take_time)
    assert check.check(checked) == []
    checked.close()
    other.close()
