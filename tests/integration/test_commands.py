"""Command tasks on real workers: what becomes of them, and of the whole family of a command when its body is ended."""

import signal
import stat
import sys
from pathlib import Path

import pytest
from celery import chain

from jobrunner import CommandResult
from jobrunner.embedded.guardian import alive
from jobrunner.states import JobState, TaskState
from tests.commands import FAMILY, pids_in
from tests.house import PATIENCE, House, on_sqlite
from tests.process import ROOT
from tests.waiting import until

pytestmark = on_sqlite


def family(house: House) -> tuple[list[str], Path]:
    """Return a command that ignores TERM, as seven processes in four sessions, and the file of their pids."""
    path, pids = house.home / "family.sh", house.home / "family.pids"
    path.write_text(FAMILY)
    pids.unlink(missing_ok=True)
    return ["sh", str(path), str(pids), "2"], pids


def complete(pids: Path) -> list[int]:
    until(lambda: len(pids_in(pids)) == 7, timeout=PATIENCE, what="the family to be complete")
    return pids_in(pids)


def are_gone(pids: list[int]) -> None:
    until(lambda: not any(alive(pid) for pid in pids), timeout=PATIENCE, what="the whole family to be gone")


# ---- what becomes of them ----------------------------------------------------------------------------------------


def test_a_command_in_a_job_has_a_record_and_the_next_task_takes_it(running: House) -> None:
    made = running.jobs.command(
        ["sh", "-c", "echo $JOBRUNNER_JOB $JOBRUNNER_TASK $JOBRUNNER_ATTEMPT; echo 1 > a"], outputs=["a"]
    )
    job = running.jobs.submit(chain(made, running.proj.identity.s()))
    record = CommandResult.read(job.result(PATIENCE))
    task = job.tasks()[0]
    assert record.stdout.split() == [job.id, task.id, "1.0"]
    assert [(one.path, one.size) for one in record.outputs] == [("a", 2)]
    assert record.worker == "worker@house"
    path = Path(record.work_directory)
    assert path.is_relative_to(running.home / "work")
    assert path.parts[-3:] == (job.id, task.id, "1.0")
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_what_a_command_writes_is_in_the_log_of_its_task(running: House) -> None:
    job = running.jobs.submit(running.proj.script.si("echo on stdout; echo on stderr >&2"))
    assert job.wait(PATIENCE) is JobState.COMPLETED
    (task,) = job.tasks()

    def lines() -> list[str]:
        return running.ask("logs", task.id).out.splitlines()

    wanted = ("on stdout", "on stderr")
    until(lambda: all(any(one.endswith(text) for one in lines()) for text in wanted), timeout=PATIENCE, what="its log")


def test_exit_1_has_failed_after_one_attempt_and_what_comes_next_does_not_run(running: House) -> None:
    script = running.proj.script
    job = running.jobs.submit(chain(script.si("echo no luck >&2; exit 1"), script.si("true")))
    assert job.wait(PATIENCE) is JobState.FAILED
    assert [task.state for task in job.tasks()] == [TaskState.FAILED, TaskState.CANCELED]
    ((only,), _) = running.ended_attempts(job)
    assert "exit code 1." in str(only.exception)
    assert "no luck" in str(only.exception)


def test_exit_111_three_times_is_three_soft_failures_and_then_a_success(running: House) -> None:
    line = "echo >> {0}; [ $(wc -l < {0}) -gt 3 ] || exit 111"
    job = running.jobs.submit(running.proj.script.si(line, running.path("tries")))
    assert job.wait(PATIENCE) is JobState.COMPLETED
    (attempts,) = running.ended_attempts(job)
    assert [one.outcome for one in attempts] == ["retried"] * 3 + ["succeeded"]
    assert "TemporaryFailureError" in str(attempts[0].exception)
    task = job.tasks()[0]
    folders = next((running.home / "work").glob(f"*/{job.id}/{task.id}"))
    assert sorted(one.name for one in folders.iterdir()) == ["1.0", "1.1", "1.2", "1.3"]


def test_exit_111_for_good_has_failed_when_its_retries_are_used_up(running: House) -> None:
    job = running.jobs.submit(running.proj.script.si("exit 111"))
    assert job.wait(PATIENCE) is JobState.FAILED
    (attempts,) = running.ended_attempts(job)
    assert [one.outcome for one in attempts] == ["retried"] * 3 + ["failed"]


def test_a_line_on_stdout_and_jobrunner_progress_in_a_script_say_how_far_it_is(running: House) -> None:
    gate, more = running.gate("quarter"), running.gate("half")
    line = """
    echo progress: 0.25 a quarter; while [ ! -e "$1" ]; do sleep 0.1; done
    "$3" -m jobrunner.cli progress 0.5 half of it; while [ ! -e "$2" ]; do sleep 0.1; done
    """
    argv = ["sh", "-c", line, "sh", str(gate), str(more), sys.executable]
    job = running.jobs.submit(running.jobs.command(argv, env={"PYTHONPATH": str(ROOT)}))

    def says(share: float, words: str) -> bool:
        task = job.tasks()[0]
        return (task.progress, task.said) == (share, words)

    until(lambda: says(0.25, "a quarter"), timeout=PATIENCE, what="a quarter to be told")
    gate.open()
    until(lambda: says(0.5, "half of it"), timeout=PATIENCE, what="a half to be told")
    more.open()
    assert job.wait(PATIENCE) is JobState.COMPLETED


# ---- who ends them -----------------------------------------------------------------------------------------------


def test_a_hard_time_limit_of_celery_ends_the_family_too(running: House) -> None:
    argv, pids = family(running)
    job = running.jobs.submit(running.jobs.command(argv).set(time_limit=3))
    members = complete(pids)
    are_gone(members)
    job.cancel()
    assert job.wait(PATIENCE) is JobState.CANCELED


@pytest.mark.parametrize(
    "pool", ["prefork", "threads", *(pytest.param(one, marks=pytest.mark.chaos) for one in ("gevent", "solo"))]
)
def test_a_cancel_ends_the_family_and_the_task_is_canceled_when_it_is_gone(running: House, pool: str) -> None:
    """The pool of processes ends its process by TERM, which ends the command; a thread looks for itself."""
    worker = running.worker("canceled", pool=pool, queues=pool)
    argv, pids = family(running)
    chatty = f"while :; do echo progress: 0.5; sleep 0.05; done & exec {' '.join(argv)}"
    job = running.jobs.submit(running.jobs.command(["sh", "-c", chatty], grace=1.0).set(queue=pool))
    members = complete(pids)
    assert job.cancel(grace=20).wait(PATIENCE).outcome == "done"
    assert not any(alive(pid) for pid in members)
    assert [task.state for task in job.tasks()] == [TaskState.CANCELED]
    assert len(running.ended_attempts(job)[0]) == 1
    worker.stop()


def test_kill_9_of_a_worker_ends_the_family_at_once(running: House) -> None:
    """Long before the worker counts as lost, or comes back."""
    worker = running.worker("killed", queues="killed")
    argv, pids = family(running)
    running.jobs.submit(running.jobs.command(argv, grace=1_000.0).set(queue="killed"))
    members = complete(pids)
    worker.popen.send_signal(signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in members), timeout=10, what="the whole family to be gone")
    worker.kill()


@pytest.mark.chaos  # it takes 30 s until a worker counts as lost
def test_after_kill_9_of_its_worker_a_command_runs_again_where_nothing_of_it_is_left(house: House) -> None:
    house.broker()
    house.tracker()
    worker = house.worker()
    argv, pids = family(house)
    job = house.jobs.submit(house.jobs.command(argv, grace=1_000.0))
    members = complete(pids)
    worker.kill()
    are_gone(members)
    pids.unlink()
    house.worker("other")
    again = complete(pids)
    assert not set(again) & set(members)
    assert job.cancel(grace=0).wait(PATIENCE).outcome == "done"
    are_gone(again)


def test_a_cold_shutdown_of_a_worker_ends_the_family(running: House) -> None:
    worker = running.worker("shut", queues="shut")
    argv, pids = family(running)
    running.jobs.submit(running.jobs.command(argv, grace=0.5).set(queue="shut"))
    members = complete(pids)
    worker.popen.send_signal(signal.SIGQUIT)
    worker.popen.wait(PATIENCE)
    are_gone(members)
    worker.kill()
