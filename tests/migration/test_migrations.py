"""Migrations make what the schema declares, go up and down, and never leave half of one."""

import re
import shutil
import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from jobrunner import cli
from jobrunner.errors import UnreachableError
from jobrunner.store import upgrade as upgrading
from jobrunner.store.database import Database
from jobrunner.store.migrations import FOLDER, HEAD
from jobrunner.store.schema import metadata
from jobrunner.store.upgrade import upgrade
from tests.apps import count_rows, new_database, new_runner, sqlite_url, store

NEXT = f"{int(HEAD) + 1:04}"

#: A migration that does something, and then fails.
FAILING = f"""
from alembic import op
import sqlalchemy as sa

revision = "{NEXT}"
down_revision = "{HEAD}"


def upgrade():
    op.create_table("half", sa.Column("id", sa.Integer()))
    op.drop_table("worker")
    raise RuntimeError("the second half of it")
"""


def schema(path: Path) -> dict[str, str]:
    """Return the statement behind every table and index, without what is no matter of content."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name != 'alembic_version'")
    found = {name: re.sub(r"\s+", " ", sql) for name, sql in rows}
    connection.close()
    return found


def version(path: Path) -> list[tuple[str]]:
    connection = sqlite3.connect(path)
    found = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    connection.close()
    return found


def set_version(path: Path, number: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = ?", (number,))
    connection.commit()
    connection.close()


def migrate(url: str, *, down: bool = False) -> None:
    """Run Alembic itself, as a developer does."""
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    database = Database(url, create=True)
    with database.write() as connection:
        config.attributes["connection"] = connection
        if down:
            command.downgrade(config, "base")
        else:
            command.upgrade(config, "head")
    database.close()


def test_the_migrated_schema_is_the_declared_one_by_alembic(tmp_path: Path) -> None:
    database = Database(new_database(tmp_path))
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
    database.close()


def test_the_migrated_schema_is_the_declared_one_by_its_statements(tmp_path: Path) -> None:
    new_database(tmp_path)
    engine = create_engine(f"sqlite:///{tmp_path / 'declared.db'}", poolclass=NullPool)
    metadata.create_all(engine)

    def sorted_columns(sql: str) -> list[str]:
        unquoted = sql.replace('"', "")  # as SQLite writes a table that was renamed
        return sorted(re.split(r", (?![^(]*\))", unquoted))

    declared, migrated = schema(tmp_path / "declared.db"), schema(tmp_path / "jobs.db")
    assert declared.keys() == migrated.keys()
    for name, sql in declared.items():
        assert sorted_columns(migrated[name]) == sorted_columns(sql), name


def test_there_is_one_head_and_it_is_the_one_that_code_asks_for() -> None:
    scripts = ScriptDirectory(str(FOLDER))
    assert scripts.get_heads() == [HEAD]
    assert scripts.get_bases() == ["0001"]


def test_versions_are_numbers_that_ascend_along_the_way() -> None:
    versions = [script.revision for script in ScriptDirectory(str(FOLDER)).walk_revisions()]
    assert versions == sorted(versions, reverse=True)
    assert all(re.fullmatch(r"\d{4}", one) for one in versions)


def test_upgrading_says_where_it_came_from_and_a_second_time_changes_nothing(tmp_path: Path) -> None:
    assert upgrade(sqlite_url(tmp_path)) == (None, HEAD)
    before = schema(tmp_path / "jobs.db")
    assert upgrade(sqlite_url(tmp_path)) == (HEAD, HEAD)
    assert schema(tmp_path / "jobs.db") == before
    assert version(tmp_path / "jobs.db") == [(HEAD,)]


def test_upgrading_keeps_the_data(tmp_path: Path) -> None:
    jobs = new_runner(tmp_path)
    store(jobs, jobs.app.tasks["add"].s(1, 2))
    before = count_rows(jobs.database)
    upgrade(sqlite_url(tmp_path))
    assert count_rows(jobs.database) == before
    assert before["task"] == 1
    jobs.database.close()


def test_upgrading_makes_the_file_and_its_folder(tmp_path: Path) -> None:
    upgrade(f"sqlite:///{tmp_path / 'a' / 'b' / 'jobs.db'}")
    assert (tmp_path / "a" / "b" / "jobs.db").exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnreachableError, match=re.escape(f"The database {tmp_path / 'file'}")):
        upgrade(f"sqlite:///{tmp_path / 'file' / 'jobs.db'}")


def test_down_to_nothing_and_up_again(tmp_path: Path) -> None:
    url = new_database(tmp_path)
    before = schema(tmp_path / "jobs.db")
    migrate(url, down=True)
    assert schema(tmp_path / "jobs.db") == {}
    assert version(tmp_path / "jobs.db") == []
    migrate(url)
    assert schema(tmp_path / "jobs.db") == before
    migrate(url, down=True)
    assert upgrade(url) == (None, HEAD)
    assert schema(tmp_path / "jobs.db") == before


def test_a_newer_database_is_refused_by_reading_writing_and_upgrading(tmp_path: Path) -> None:
    url = new_database(tmp_path)
    set_version(tmp_path / "jobs.db", "9999")
    database = Database(url)
    with pytest.raises(UnreachableError, match=f"has schema 9999, newer than {HEAD}") as caught, database.read():
        pass
    assert caught.value.remedy == "Upgrade jobrunner."
    with pytest.raises(UnreachableError, match="has schema 9999"), database.write():
        pass
    database.close()
    with pytest.raises(UnreachableError, match="has schema 9999"):
        upgrade(url)
    assert version(tmp_path / "jobs.db") == [("9999",)]


def test_the_command_never_says_that_a_newer_database_is_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JOBRUNNER_DATABASE", new_database(tmp_path))
    set_version(tmp_path / "jobs.db", "9999")
    monkeypatch.setattr("sys.argv", ["jobrunner", "db", "upgrade"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (5, "")
    assert "has schema 9999" in err
    assert "hint: Upgrade jobrunner." in err


def test_a_first_migration_that_fails_half_way_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE task (of TEXT)")  # somebody else's; other tables are made before this one
    connection.close()
    before = schema(path)
    with pytest.raises(UnreachableError, match="table task already exists"):
        upgrade(sqlite_url(tmp_path))
    assert schema(path) == before


def test_a_later_migration_that_fails_half_way_leaves_the_old_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_database(tmp_path)
    before = schema(tmp_path / "jobs.db")
    shutil.copytree(FOLDER, tmp_path / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "migrations" / "versions" / f"{NEXT}_fails.py").write_text(FAILING)
    monkeypatch.setattr(upgrading, "FOLDER", tmp_path / "migrations")
    monkeypatch.setattr(upgrading, "HEAD", NEXT)
    with pytest.raises(RuntimeError, match="the second half of it"):
        upgrade(url)
    assert schema(tmp_path / "jobs.db") == before
    assert version(tmp_path / "jobs.db") == [(HEAD,)]
    database = Database(url)
    assert count_rows(database)["worker"] == 0
    database.close()
