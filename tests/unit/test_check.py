"""`jobrunner db check`: what is as it should be, and each kind of fault told with its place."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import chain, group
from sqlalchemy import Column, update

from jobrunner import JobRunner, cli
from jobrunner.store.check import check
from jobrunner.store.schema import COUNTERS, block, job
from tests.apps import count_rows, new_runner, store


@pytest.fixture
def runner(tmp_path: Path, database_url: str) -> Iterator[JobRunner]:
    made = new_runner(tmp_path, database=database_url)
    yield made
    made.database.close()


def new_job(runner: JobRunner) -> str:
    """Store a chain of a task, a group of two, and a task."""
    add, total = runner.app.tasks["add"], runner.app.tasks["total"]
    return store(runner, chain(add.s(1, 2), group(add.s(1), add.s(2)), total.s()))


def change(runner: JobRunner, statement: str) -> None:
    with runner.database.write() as connection:
        connection.exec_driver_sql(statement)


def drift(runner: JobRunner, counter: Column[int], by: int) -> None:
    with runner.database.write() as connection:
        connection.execute(update(counter.table).values({counter: counter + by}))


def test_a_new_database_and_new_jobs_are_as_they_should_be(runner: JobRunner) -> None:
    assert check(runner.database) == []
    new_job(runner)
    assert check(runner.database) == []


def test_a_job_that_counts_wrong_is_told_with_both_numbers(runner: JobRunner) -> None:
    job_id = new_job(runner)
    change(runner, "UPDATE job SET n_pending = 3, n_completed = 1")
    assert check(runner.database) == [
        f"Job {job_id} says that it has 3 pending tasks, where there are 4; 1 completed tasks, where there are 0."
    ]


def test_a_drift_of_any_counter_is_told(runner: JobRunner) -> None:
    job_id = new_job(runner)
    for counter in ("total", "discovering", "discovered", *COUNTERS.values()):
        drift(runner, job.c[counter], 1)
        (fault,) = check(runner.database)
        assert fault.startswith(f"Job {job_id} says that it has ")
        drift(runner, job.c[counter], -1)
    assert check(runner.database) == []
    drift(runner, block.c.remaining, 1)
    assert len(check(runner.database)) == count_rows(runner.database)["block"]


def test_tasks_that_discover_are_counted_while_they_may_add_and_when_they_have_ended(runner: JobRunner) -> None:
    job_id = new_job(runner)
    change(runner, "UPDATE task SET discovers = true")
    change(runner, "UPDATE task SET state = 'active' WHERE arrival = 0")
    change(runner, "UPDATE task SET state = 'soft-failed' WHERE arrival = 1")
    change(runner, "UPDATE task SET state = 'failed' WHERE arrival = 2")
    change(runner, "UPDATE job SET n_pending = 1, n_active = 1, n_soft_failed = 1, n_failed = 1")
    assert check(runner.database) == [
        f"Job {job_id} says that it has 0 discovering tasks, where there are 2; 0 discovered tasks, where there are 1."
    ]


def test_a_job_without_its_tasks_is_told(runner: JobRunner) -> None:
    job_id = new_job(runner)
    change(runner, "DELETE FROM task")
    assert f"Job {job_id} says that it has 4 tasks, where there are 0" in check(runner.database)[0]


def test_a_block_that_counts_its_children_wrong_is_told(runner: JobRunner) -> None:
    job_id = new_job(runner)
    change(runner, "UPDATE task SET state = 'completed' WHERE arrival = 1")  # one of the group, its block not told
    *_, fault = check(runner.database)
    assert f"of job {job_id} waits for 2 of its children, where 1 have not ended well." in fault


def test_a_table_or_column_that_models_do_not_know_is_told(runner: JobRunner) -> None:
    change(runner, "ALTER TABLE task ADD COLUMN colour TEXT")
    (fault,) = check(runner.database)
    assert fault.startswith("The schema differs from the models: ")
    assert "colour" in fault


def test_the_same_fault_in_many_rows_is_told_a_few_times(runner: JobRunner) -> None:
    for _ in range(30):
        new_job(runner)
    change(runner, "UPDATE job SET total = 5")
    assert len(check(runner.database)) == 20


def test_the_command_tells_and_exits_with_1_if_something_is_wrong(
    runner: JobRunner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JOBRUNNER_DATABASE", runner.database.url.render_as_string(hide_password=False))
    monkeypatch.setattr("sys.argv", ["jobrunner", "db", "check"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code, capsys.readouterr().out) == (0, f"{runner.database.where} is as it should be.\n")
    job_id = new_job(runner)
    change(runner, "UPDATE job SET total = 5")
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().out == f"Job {job_id} says that it has 5 tasks, where there are 4.\n"
