"""One machine: `jobrunner up` and `jobrunner demo` as a person runs them, stopped by Ctrl-C and by kill -9."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from jobrunner.embedded import broker, guardian
from jobrunner.handle import Job
from jobrunner.states import JobState, TaskState
from tests.house import PATIENCE, PROJ, Gate, House, on_sqlite
from tests.process import Process
from tests.waiting import until

pytestmark = [pytest.mark.nodes, on_sqlite]

#: Seconds after which nothing of a killed `up` is left.
GONE = 10.0
TASKS = 4


def up(house: House, name: str = "up") -> Process:
    """Start `jobrunner up` with our own app, and wait until it is ready for jobs."""
    process = house.start(name, [sys.executable, "-m", "jobrunner.cli", "up", "-A", PROJ, "-c", "2"])
    process.says("Ready for jobs (held, sum).")
    return process


def pids(house: House) -> dict[str, int]:
    """Return the processes that the pid file names, `up` itself included."""
    record = json.loads((house.home / "up.json").read_bytes())
    return {"up": record["pid"], **record["children"]}


def anything_left(house: House, running: dict[str, int]) -> list[str]:
    """Return which of these run, or have left a process in their group, or still answer."""
    left = [name for name, pid in running.items() if guardian.alive(pid) or guardian.group_alive(pid)]
    return left + ["broker.sock"] * broker.ping(house.home)


def submit(house: House, gate: Gate) -> Job:
    """Submit tasks that wait at a gate, by the command line."""
    parameters = [f"tasks={TASKS}", f"gate={gate}", f"path={house.path('lines')}"]
    submitted = house.cli("submit", "-A", PROJ, "held", *parameters)
    assert submitted.returncode == 0, submitted.stderr
    return house.jobs.get(submitted.stdout.strip())


def check_completed(house: House, job: Job) -> None:
    assert job.result(PATIENCE) == sum(range(TASKS))
    assert job.state is JobState.COMPLETED
    assert {task.state for task in job.tasks()} == {TaskState.COMPLETED}
    assert sorted(house.lines("lines")) == [str(number) for number in range(TASKS)]


def test_nothing_is_left_of_a_killed_up_and_a_new_one_goes_on_with_its_job(house: House) -> None:
    first = up(house)
    gate = house.gate("open")
    job = submit(house, gate)
    gate.reached(2)
    until(lambda: job.progress.counts.get(TaskState.ACTIVE) == 2, timeout=PATIENCE, what="two tasks to run")
    running = pids(house)
    assert set(running) == {"up", "broker", "tracker", "worker"}
    assert running["up"] == first.pid

    killed = time.monotonic()
    os.kill(first.pid, signal.SIGKILL)
    first.popen.wait()
    until(lambda: not anything_left(house, running), timeout=GONE, what="everything of it to end")
    assert time.monotonic() - killed < GONE
    assert job.state is JobState.ACTIVE

    gate.open()
    second = up(house, "second")
    assert pids(house)["up"] == second.pid
    check_completed(house, job)
    assert any(task.delivery == 2 for task in job.tasks())
    assert second.stop() == 0


def test_ctrl_c_leaves_nothing_and_exits_with_130_and_a_new_up_goes_on(house: House) -> None:
    first = up(house)
    gate = house.gate("open")
    job = submit(house, gate)
    gate.reached(2)
    running = pids(house)
    first.popen.send_signal(signal.SIGINT)
    first.says("Stopping: running tasks may end.")
    gate.open()
    assert first.popen.wait(PATIENCE) == 130
    assert anything_left(house, running) == []
    assert not (house.home / "up.json").exists()

    second = up(house, "second")
    check_completed(house, job)
    assert second.stop() == 0


def test_the_demo_prints_its_report_and_leaves_nothing(house: House) -> None:
    folder = house.home / "code"
    folder.mkdir()
    for number in range(12):
        (folder / f"module_{number}.py").write_text(f"import os\n\n\ndef name_{number}():\n    return os.name\n")
    demo = subprocess.Popen(
        [sys.executable, "-m", "jobrunner.cli", "demo", str(folder), "-c", "2"],
        env=house.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        running: dict[str, int] = {}

        def all_started() -> bool:
            if (house.home / "up.json").exists():
                running.update(pids(house))
            return len(running) == 4

        until(all_started, timeout=PATIENCE, what="broker, tracker and worker to be started")
        report, errors = demo.communicate(timeout=PATIENCE)
    finally:
        guardian.kill(demo.pid)
        demo.wait()
    assert demo.returncode == 0, errors
    assert "Totals" in report
    assert (
        "codestats completed (with-errors): 17 of 17 tasks" in report
    )  # discovery, 12 files, 3 faulty samples, the report
    assert "bad_syntax.py" in report
    assert str(house.home / "jobrunner.db") in report
    assert "jobrunner list" in report
    assert anything_left(house, running) == []
    assert not (house.home / "up.json").exists()
    (listed,) = house.ask("list", "--json").json
    assert (listed["state"], listed["total"]) == ("completed", 17)
    tasks = house.ask("tasks", listed["id"], "--json").json
    assert Counter(task["state"] for task in tasks) == {"completed": 14, "partial": 3}
    shown = house.ask("show", listed["id"], "--errors", "--json").json
    assert shown["outcome"] == "with-errors"
    assert {Path(one["item"]).name for one in shown["item_errors"]["errors"]} == {
        "bad_syntax.py", "bad_encoding.py", "nul_byte.py"}  # fmt: skip
