"""Nothing that a test starts is left behind, whatever ends it."""

import subprocess
import sys
from pathlib import Path

import psutil

from jobrunner.embedded import guardian
from tests.process import ROOT, Process
from tests.waiting import until

#: A shell that has a child in a session of its own, as a server's and a supervisor's children are.
FAMILY = ["sh", "-c", "setsid sleep 600 & echo started; wait"]

#: A session of tests that is killed while its process runs.
KILLED = f"""
import os
from pathlib import Path
from tests.process import Process

process = Process({FAMILY!r}, log=Path("{{log}}")).start()
process.says("started")
print(process.pid, flush=True)
os.kill(os.getpid(), 9)
"""


def test_killing_a_process_takes_children_in_groups_of_their_own(tmp_path: Path) -> None:
    process = Process(FAMILY, log=tmp_path / "family.log").start()
    process.says("started")
    children = until(lambda: psutil.Process(process.pid).children(), what="the child to be there")
    assert children[0].pid != process.pid
    process.kill()
    assert not process.running
    assert not guardian.alive(children[0].pid)


def test_a_process_started_again_has_said_nothing_yet_and_keeps_its_log(tmp_path: Path) -> None:
    process = Process(["sh", "-c", "echo started; sleep 600"], log=tmp_path / "one.log").start()
    process.says("started")
    process.restart()
    process.says("started")
    assert process.text == "started\n"
    process.kill()
    assert process.log.read_text() == "started\n" * 2


def test_a_killed_session_leaves_no_process(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED.format(log=tmp_path / "family.log")],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == -9, done.stderr
    group = int(done.stdout)
    until(lambda: not guardian.group_alive(group), what="the guardian to end what was left")
