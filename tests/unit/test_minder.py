"""The minder of a command: however that ends, its whole family ends with it; what it writes is bounded."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobrunner.embedded.guardian import alive
from tests.commands import FAMILY, pids_in
from tests.waiting import PATIENCE, until
from workers.minder import PROGRAM
from workers.minder.output import TAIL
from workers.minder.progress import ProgressLines


class Minded:
    """A minder as the body of a task has it: a process with two pipes."""

    def __init__(self, folder: Path, argv: list[str], **more: Any) -> None:
        os.mkfifo(folder / "progress")
        paths = {name: str(folder / name) for name in ("stdout", "stderr", "progress")}
        usual = {"environment": dict(os.environ), "cwd": str(folder), "timeout": None, "grace": 0.2, "limit": 1_000}
        self.popen = subprocess.Popen(
            [sys.executable, "-I", "-S", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self.say(json.dumps({"argv": argv, **paths, **usual, **more}))

    def say(self, line: str) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(f"{line}\n".encode())

    def leave(self) -> None:
        """Do what the end of the body's process does."""
        assert self.popen.stdin is not None
        self.popen.stdin.close()

    def told(self) -> list[dict[str, Any]]:
        """Return all that it tells, to its end."""
        assert self.popen.stdout is not None
        with self.popen:  # closes the pipes
            told = [json.loads(line) for line in self.popen.stdout]
        assert self.popen.returncode == 0
        return told

    def end(self) -> dict[str, Any]:
        return self.told()[-1]


@pytest.fixture
def family(tmp_path: Path) -> Iterator[tuple[list[str], Path]]:
    """Return a command whose children and grandchildren ignore TERM, half of them in sessions of their own."""
    (tmp_path / "family.sh").write_text(FAMILY)
    pids = tmp_path / "pids"
    yield ["sh", str(tmp_path / "family.sh"), str(pids), "2"], pids
    for pid in pids_in(pids):
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def is_complete(pids: Path) -> list[int]:
    """Wait until all seven of a family are there, and return them."""
    until(lambda: len(pids_in(pids)) == 7, timeout=PATIENCE, what="the family to be complete")
    return pids_in(pids)


# ---- the end of a family -----------------------------------------------------------------------------------------


def test_a_time_out_ends_children_and_grandchildren_that_ignore_term(
    tmp_path: Path, family: tuple[list[str], Path]
) -> None:
    argv, pids = family
    last = Minded(tmp_path, argv, timeout=2.0, grace=0.2).end()
    assert (last["code"], last["ended_by"]) == (-signal.SIGKILL, "timeout")
    assert last["seconds"] >= 2.2
    assert len(pids_in(pids)) > 1
    assert not any(alive(pid) for pid in pids_in(pids))


def test_an_order_ends_them_after_its_grace(tmp_path: Path, family: tuple[list[str], Path]) -> None:
    argv, pids = family
    minded = Minded(tmp_path, argv)
    members = is_complete(pids)
    minded.say("end 0.1")
    last = minded.end()
    assert (last["code"], last["ended_by"]) == (-signal.SIGKILL, "order")
    assert not any(alive(pid) for pid in members)


def test_who_hears_term_ends_by_itself_within_the_grace(tmp_path: Path) -> None:
    minded = Minded(tmp_path, ["sh", "-c", "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.01; done"])
    until(lambda: (tmp_path / "stdout").exists() and (tmp_path / "stdout").read_text(), what="it to be up")
    minded.say("end 60")
    last = minded.end()
    assert (last["code"], last["stdout"]["tail"]) == (3, "up\nbye\n")


def test_the_end_of_the_body_kills_them_at_once_whatever_the_grace(
    tmp_path: Path, family: tuple[list[str], Path]
) -> None:
    argv, pids = family
    minded = Minded(tmp_path, argv, grace=1_000.0)
    members = is_complete(pids)
    minded.leave()
    assert minded.end()["ended_by"] == "the worker is gone"
    assert not any(alive(pid) for pid in members)


def test_what_a_command_has_left_behind_is_ended_with_it(tmp_path: Path, family: tuple[list[str], Path]) -> None:
    argv, pids = family
    line = f"setsid {' '.join(argv)} & while [ ! -e {pids} ]; do sleep 0.01; done; echo done"
    last = Minded(tmp_path, ["sh", "-c", line]).end()
    assert (last["code"], last["ended_by"], last["stdout"]["tail"]) == (0, "itself", "done\n")
    assert not any(alive(pid) for pid in pids_in(pids))


def test_a_command_that_is_stopped_ends_as_well(tmp_path: Path) -> None:
    minded = Minded(tmp_path, ["sh", "-c", "echo up; kill -STOP $$"], timeout=0.5, grace=30.0)
    assert minded.end()["code"] == -signal.SIGTERM


def test_a_body_that_ends_before_it_has_said_anything_leaves_nothing() -> None:
    empty = subprocess.run(
        [sys.executable, "-I", "-S", PROGRAM],
        input=b'{"argv"',
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    assert (empty.stdout, empty.stderr) == (b"", b"")


# ---- what it writes ----------------------------------------------------------------------------------------------


def test_of_what_it_writes_the_beginning_and_the_end_are_kept_and_the_task_goes_on(tmp_path: Path) -> None:
    last = Minded(tmp_path, ["sh", "-c", "seq 1 100000; echo short >&2"], limit=1_000).end()
    text, whole = (tmp_path / "stdout").read_text(), "".join(f"{number}\n" for number in range(1, 100_001))
    left_out = len(whole) - 1_000
    assert text == f"{whole[:500]}\n[{left_out} bytes are left out here]\n{whole[-500:]}"
    assert (last["stdout"]["bytes"], last["stdout"]["tail"]) == (len(whole), whole[-TAIL:])
    assert (tmp_path / "stderr").read_text() == "short\n"


@pytest.mark.parametrize("length", [0, 1, 499, 500, 501, 999, 1_000])
def test_what_fits_is_kept_as_it_was_written(tmp_path: Path, length: int) -> None:
    text = "".join(str(number % 10) for number in range(length))
    last = Minded(tmp_path, ["printf", "%s", text], limit=1_000).end()
    assert (tmp_path / "stdout").read_text() == text
    assert last["stdout"] == {"bytes": length, "tail": text, "problem": None}


def test_a_gigabyte_of_output_is_bounded_and_passes_in_seconds(tmp_path: Path) -> None:
    minded = Minded(tmp_path, ["head", "-c", "1000000000", "/dev/zero"], limit=10_000_000)
    last = minded.end()
    assert (last["code"], last["stdout"]["bytes"]) == (0, 1_000_000_000)
    assert 10_000_000 < (tmp_path / "stdout").stat().st_size < 10_000_100
    assert last["seconds"] < 30


def test_what_it_writes_is_told_line_by_line_for_the_log_of_its_task(tmp_path: Path) -> None:
    told = Minded(tmp_path, ["sh", "-c", "echo one; echo error >&2; printf 'two, without end'"]).told()
    said = [one for one in told if "said" in one]
    assert sorted(line for one in said for line in one["said"].splitlines()) == ["error", "one", "two, without end"]
    assert {one["left_out"] for one in said} == {0}


def test_of_much_that_it_writes_the_last_is_told_and_how_much_was_left_out(tmp_path: Path) -> None:
    told = Minded(tmp_path, ["seq", "1", "200000"]).told()
    said = [one for one in told if "said" in one]
    assert said[-1]["said"].endswith("199999\n200000\n")
    assert sum(len(one["said"]) + one["left_out"] for one in said) == told[-1]["stdout"]["bytes"]
    assert sum(len(one["said"]) for one in said) <= 32_000 * (2 + told[-1]["seconds"] / 0.5)


def test_a_body_that_does_not_listen_does_not_hold_the_command_up(tmp_path: Path) -> None:
    said = f"for i in 1 2 3 4; do seq 1 20000; echo progress: 0.$i {'x' * 1_500}; sleep 0.6; done"
    more = f"{said}; touch {tmp_path}/done; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done"
    minded = Minded(tmp_path, ["sh", "-c", more])
    until((tmp_path / "done").exists, timeout=PATIENCE, what="the command to go on, with nobody who listens")
    (tmp_path / "go").touch()
    last = minded.end()
    assert (last["code"], last["ended_by"]) == (0, "itself")


# ---- progress ----------------------------------------------------------------------------------------------------


def progress_in(told: list[dict[str, Any]]) -> list[tuple[float, str | None]]:
    return [(one["progress"], one["message"]) for one in told if "progress" in one]


def test_a_line_of_progress_is_told_and_the_last_one_in_any_case(tmp_path: Path) -> None:
    told = Minded(tmp_path, ["printf", "progress: 0.25 a quarter\nother\nprogress: 0.5\nprogress: 1.0 all"]).told()
    assert progress_in(told)[-1] == (1.0, "all")
    assert (tmp_path / "stdout").read_text().startswith("progress: 0.25 a quarter\nother\n")


def test_of_many_lines_a_few_are_told(tmp_path: Path) -> None:
    line = "i=0; while [ $i -lt 20000 ]; do echo progress: 0.$i; i=$((i + 1)); done"
    told = Minded(tmp_path, ["sh", "-c", line]).told()
    assert progress_in(told)[-1][0] == 0.19999
    assert len(progress_in(told)) <= 2 + told[-1]["seconds"] / 0.1


def test_a_script_may_say_it_through_the_pipe_named_in_its_environment(tmp_path: Path) -> None:
    told = Minded(tmp_path, ["sh", "-c", f"echo 0.5 half > {tmp_path}/progress"]).told()
    assert progress_in(told) == [(0.5, "half")]


def test_lines_are_found_however_the_stream_is_cut() -> None:
    text = b"progress: 0.1 a\nno progress: 0.9\nprogress: 0.2\r\nprogress: much\nprogress: 1.2.3\nprogress:0.3 b c\n"
    wanted = [(0.1, "a"), (0.2, ""), (0.3, "b c")]
    for size in range(1, len(text) + 1):
        found: list[tuple[float, str]] = []
        lines = ProgressLines(b"progress:", lambda share, words, found=found: found.append((share, words)))
        for start in range(0, len(text), size):
            lines.feed(text[start : start + size])
        assert found == wanted


def test_a_line_without_end_is_not_kept_in_memory() -> None:
    found: list[tuple[float, str]] = []
    lines = ProgressLines(b"progress:", lambda share, words: found.append((share, words)))
    for _ in range(100):
        lines.feed(b"x" * 1_000)
    assert len(lines._begun) == 2_000
    lines.feed(b"progress: 0.5\nprogress: 0.6\n")
    assert found == [(0.6, "")]
