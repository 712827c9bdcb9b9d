"""Many processes submit under one key at the same moment: one job, whoever is first."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from celery import chain

from jobrunner.errors import KeyConflictError
from jobrunner.store.database import Database
from jobrunner.store.migrations import HEAD
from jobrunner.store.upgrade import upgrade
from tests.apps import SHOP, count_rows, new_database, new_runner, nobody, read_rows, store

ROOT = Path(__file__).parents[2]
PROCESSES = 20

#: Forks processes that prepare everything, meet at a barrier, and then do one thing; prints a line for each.
TOGETHER = """
import multiprocessing, sys
from pathlib import Path
from celery import chain
from jobrunner.errors import JobrunnerError
from jobrunner.store.upgrade import upgrade
from jobrunner import JobRunner
from tests.apps import new_app

what, folder, url, number = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])


def work(index, barrier, answers):
    if what == "upgrade":
        barrier.wait(30)
        answers.put(str(upgrade(url)))
        return
    jobs = JobRunner(new_app(folder), database=url)

    @jobs.task(name="add")
    def add(x, y):
        return x + y

    last = index % 2 if what == "conflict" else 0
    chosen = {"task_id": "chosen"} if what == "ids" else {}
    canvas = chain(add.s(1, 2), add.s(last).set(**chosen))
    jobs.prepare_tasks()
    barrier.wait(30)
    try:
        answers.put(f"{last} {jobs.submit(canvas, key=None if chosen else 'nightly').id}")
    except JobrunnerError as error:
        answers.put(f"{last} {type(error).__name__}")


context = multiprocessing.get_context("fork")
barrier, answers = context.Barrier(number), context.SimpleQueue()
processes = [context.Process(target=work, args=(index, barrier, answers)) for index in range(number)]
for process in processes:
    process.start()
for _ in processes:
    print(answers.get(), flush=True)
for process in processes:
    process.join()
    assert process.exitcode == 0
"""


def together(what: str, folder: Path, url: str, number: int) -> list[str]:
    command = [sys.executable, "-c", TOGETHER, what, str(folder), url, str(number)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_twenty_processes_with_one_key_make_one_job_and_all_get_its_id(tmp_path: Path, database_url: str) -> None:
    database = Database(database_url)
    answers = together("submit", tmp_path, database_url, PROCESSES)
    (job,) = read_rows(database, "job")
    assert answers == [f"0 {job['id']}"] * PROCESSES
    rows = count_rows(database)
    database.close()
    assert (rows["job"], rows["block"], rows["task"], rows["message"]) == (1, 2, 2, 2)


def test_of_two_contents_under_one_key_one_wins_and_the_other_is_refused_everywhere(
    tmp_path: Path, database_url: str
) -> None:
    database = Database(database_url)
    answers = Counter(together("conflict", tmp_path, database_url, PROCESSES))
    (job,) = read_rows(database, "job")
    assert count_rows(database)["task"] == 2
    database.close()
    winner = next(answer[0] for answer in answers if answer.endswith(job["id"]))
    loser = "1" if winner == "0" else "0"
    assert answers == {f"{winner} {job['id']}": PROCESSES // 2, f"{loser} KeyConflictError": PROCESSES // 2}


def test_of_jobs_that_choose_the_same_id_for_a_task_one_is_made_and_the_others_are_refused(
    tmp_path: Path, database_url: str
) -> None:
    database = Database(database_url)
    answers = Counter(together("ids", tmp_path, database_url, PROCESSES))
    (job,) = read_rows(database, "job")
    assert count_rows(database)["task"] == 2
    database.close()
    assert answers == {f"0 {job['id']}": 1, "0 InvalidCanvasError": PROCESSES - 1}


def test_processes_that_upgrade_a_new_database_together_all_succeed(tmp_path: Path, empty_database_url: str) -> None:
    answers = Counter(together("upgrade", tmp_path, empty_database_url, 8))
    assert answers == {f"(None, '{HEAD}')": 1, f"('{HEAD}', '{HEAD}')": 7}
    assert upgrade(empty_database_url) == (HEAD, HEAD)


def test_a_key_taken_by_other_arguments_is_refused_with_the_job_that_has_it(tmp_path: Path) -> None:
    jobs = new_runner(tmp_path)
    add = jobs.app.tasks["add"]
    first = store(jobs, chain(add.s(1, 2), add.s(3)), key="nightly")
    with pytest.raises(KeyConflictError, match=f"'nightly' belongs to job {first}") as caught:
        jobs.submit(chain(add.s(1, 2), add.s(4)), key="nightly")
    assert caught.value.exit_code == 4
    assert count_rows(jobs.database)["job"] == 1
    jobs.database.close()


def test_the_command_ends_with_4_when_the_key_is_taken(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP.format(broker=nobody(tmp_path)))
    environment = {**os.environ, "JOBRUNNER_DATABASE": new_database(tmp_path), "JOBRUNNER_APP": "shop"}

    def submit(region: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "jobrunner.cli", "submit", "nightly", f"region={region}", "--key", "today"]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    first, again, other = submit("eu"), submit("eu"), submit("asia")
    assert (first.returncode, first.stderr) == (0, "")
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert (other.returncode, other.stdout) == (4, "")
    assert other.stderr.startswith(f"error: The key 'today' belongs to job {first.stdout.strip()}")
    assert "\nhint: " in other.stderr
