"""Benchmarks run and clean up after themselves; how fast they say we are is not a test's business."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import postgres
from tests.waiting import until

ROOT = Path(__file__).parents[2]

needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes with Linux's /proc")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a temporary folder with a path that is short enough for a socket below it, which pytest's own is not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o711)  # a server that does not run as root must find its own folder in it
        yield Path(name)


def run(name: str, *options: str, folder: Path, timeout: float = 90) -> "subprocess.CompletedProcess[str]":
    """Run a benchmark with `folder` as its temporary folder, so that whatever it leaves can be found."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *options]
    environment = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
    )


def processes_of(folder: Path) -> list[str]:
    """Return the commands of the processes that were started with this temporary folder, and their descendants."""
    return [command for environment, command in _all_processes() if f"TMPDIR={folder}".encode() in environment]


def _all_processes() -> Iterator[tuple[list[bytes], str]]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            yield process.joinpath("environ").read_bytes().split(b"\0"), process.joinpath("cmdline").read_text()
        except OSError:  # it has ended meanwhile, or is not ours to look at
            continue


@needs_proc
def test_join_prints_its_figures_as_the_last_line_and_leaves_nothing_behind(folder: Path) -> None:
    done = run("join", "--quick", "--tasks", "50", "--rounds", "1", folder=folder)

    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert list(figures) == ["name", "ours", "theirs", "ratios", "skipped"]
    assert (figures["name"], figures["skipped"]) == ("join", [])
    assert set(figures["ours"]) == {"tasks_per_s", "completed_tasks_per_s"}
    assert set(figures["theirs"]) == {"chord_tasks_per_s", "chord_get_tasks_per_s"}
    assert set(figures["ratios"]) == {"chord", "chord_get"}
    assert all(value > 0 for side in ("ours", "theirs", "ratios") for value in figures[side].values())
    # The guardian is the last to go: it looks after the others.
    until(lambda: not processes_of(folder), what=f"the end of {processes_of(folder)}")
    assert not list(folder.iterdir())


@needs_proc
def test_submit_prints_its_figures_and_names_the_database_that_is_not_installed(folder: Path) -> None:
    done = run("submit", "--quick", "--tasks", "50", "--rounds", "1", folder=folder)

    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert list(figures) == ["name", "ours", "theirs", "ratios", "skipped"]
    databases = {"sqlite"} if postgres.find() is None else {"sqlite", "postgresql"}
    assert set(figures["ours"]) == {f"{database}_tasks_per_s" for database in databases}
    assert figures["skipped"] == sorted({"sqlite", "postgresql"} - databases)
    assert set(figures["theirs"]) == {"group_apply_async_tasks_per_s"}
    assert set(figures["ratios"]) == {"group_apply_async"}
    assert all(value > 0 for side in ("ours", "theirs", "ratios") for value in figures[side].values())
    until(lambda: not processes_of(folder), what=f"the end of {processes_of(folder)}")
    assert not list(folder.iterdir())


@needs_proc
def test_ingest_prints_its_figures_and_names_what_is_not_installed(folder: Path) -> None:
    done = run("ingest", "--quick", "--tasks", "50", "--rounds", "1", folder=folder)

    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert list(figures) == ["name", "ours", "theirs", "ratios", "skipped"]
    skipped = ["postgresql"] if postgres.find() is None else []
    others = {"flower"} if skipped else {"flower", "commit_per_event"}
    assert figures["skipped"] == skipped
    assert set(figures["ours"]) == {f"{name}_events_per_s" for name in {"sqlite", "postgresql"} - set(skipped)}
    assert set(figures["theirs"]) == {f"{name}_events_per_s" for name in others}
    assert set(figures["ratios"]) == others
    assert all(value > 0 for side in ("ours", "theirs", "ratios") for value in figures[side].values())
    until(lambda: not processes_of(folder), what=f"the end of {processes_of(folder)}")
    assert not list(folder.iterdir())


@pytest.mark.chaos
@needs_proc
def test_worker_prints_its_figures_and_leaves_nothing_behind(folder: Path) -> None:
    done = run("worker", "--quick", "--tasks", "50", "--rounds", "1", folder=folder)

    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert list(figures) == ["name", "ours", "theirs", "ratios", "skipped"]
    assert (figures["name"], figures["skipped"]) == ("worker", [])
    assert set(figures["ours"]) == {"tasks_per_s"}
    assert set(figures["theirs"]) == {"events_off_tasks_per_s", "events_on_tasks_per_s"}
    assert set(figures["ratios"]) == {"events_off", "events_on"}
    assert all(value > 0 for side in ("ours", "theirs", "ratios") for value in figures[side].values())
    until(lambda: not processes_of(folder), what=f"the end of {processes_of(folder)}")
    assert not list(folder.iterdir())


@needs_proc
@pytest.mark.chaos  # as long as the one before
def test_worker_prints_its_figures_beside_a_neighbour_that_logs_all_the_time(folder: Path) -> None:
    done = run("worker", "--chatter", "--quick", "--tasks", "50", "--rounds", "1", folder=folder, timeout=180)

    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    sides = {"alone_tasks_per_s", "log_kept_tasks_per_s", "log_not_kept_tasks_per_s"}
    assert (figures["name"], set(figures["ours"]), set(figures["ratios"])) == ("worker --chatter", sides, {"log_kept"})
    assert processes_of(folder) == []
    assert list(folder.iterdir()) == []


@needs_proc
def test_command_prints_how_long_much_output_takes_and_that_what_is_kept_of_it_is_bounded(folder: Path) -> None:
    done = run("command", "--bytes", "30000000", "--rounds", "1", folder=folder)

    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert (figures["ours"]["kept_mb"], figures["theirs"]["kept_mb"]) == (10.0, 30.0)
    assert set(figures["ratios"]) == {"seconds", "kept_mb"}
    assert processes_of(folder) == []
    assert list(folder.iterdir()) == []


@pytest.mark.chaos
@needs_proc
def test_growth_prints_its_figures_for_each_size_and_names_what_is_not_installed(folder: Path) -> None:
    done = run("growth", "--quick", "--tasks", "50", "--rounds", "1", folder=folder)

    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert list(figures) == ["name", "ours", "theirs", "ratios", "skipped"]
    assert figures["skipped"] == (["postgresql"] if postgres.find() is None else [])
    databases = {"sqlite", "postgresql"} - set(figures["skipped"])
    keys = {"events_per_s", "job_page_ms", "tracker_us_per_task", "tracker_mb"}
    assert set(figures["ours"]) == {
        f"{name}_{size}_{key}" for name in databases for size in (1000, 10_000) for key in keys
    }
    assert set(figures["ratios"]) == {f"{name}_{key}" for name in databases for key in keys}
    assert all(value > 0 for side in ("ours", "ratios") for value in figures[side].values())
    until(lambda: not processes_of(folder), what=f"the end of {processes_of(folder)}")
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    "only", [pytest.param([], id="each", marks=pytest.mark.chaos), pytest.param(["--broker", "redis"], id="redis")]
)
@needs_proc
def test_loss_prints_how_many_events_have_arrived_and_leaves_nothing_behind(folder: Path, only: list[str]) -> None:
    done = run("loss", "--quick", "--tasks", "50", *only, folder=folder)

    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert list(figures) == ["name", "ours", "theirs", "ratios", "skipped"]
    brokers = {"redis", "rabbitmq"} - set(figures["skipped"])
    assert "redis" in brokers
    keys = {f"{broker}_{absence}_events" for broker in brokers for absence in ("down", "stalled")}
    assert set(figures["ours"]) == set(figures["theirs"]) == {"sent_events", *keys}
    assert set(figures["ours"].values()) == {150}
    assert {figures["theirs"][f"{broker}_down_events"] for broker in brokers} == {0}
    until(lambda: not processes_of(folder), what=f"the end of {processes_of(folder)}")
    assert not list(folder.iterdir())


@pytest.mark.chaos
@needs_proc
def test_bytes_tells_that_a_job_sends_as_many_messages_as_a_chord_and_far_fewer_bytes(folder: Path) -> None:
    done = run("bytes", "--tasks", "50", folder=folder)

    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert list(figures) == ["name", "ours", "theirs", "ratios", "skipped"]
    assert figures["ours"]["messages"] == figures["theirs"]["messages"] == 100
    assert 0 < figures["ratios"]["chord"] <= 0.15
    until(lambda: not processes_of(folder), what=f"the end of {processes_of(folder)}")
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    "tasks", [200, pytest.param(100_000, marks=[pytest.mark.chaos, pytest.mark.timeout(2_400)])], ids=str
)
@needs_proc
def test_a_large_job_and_a_restarted_tracker_need_little_memory(
    folder: Path, tasks: int, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run("large", "--tasks", str(tasks), folder=folder, timeout=90 + tasks / 50)

    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    with capsys.disabled():
        print(f"\n{figures['ours']}")  # noqa: T201  the figures are asked for
    assert list(figures) == ["name", "ours", "theirs", "ratios", "skipped"]
    assert set(figures["ours"]) == {"tasks", "seconds", "client_mb", "tracker_mb"}
    assert figures["ours"]["tasks"] == tasks + 1
    assert figures["ours"]["client_mb"] <= 300
    assert figures["ours"]["tracker_mb"] <= 400
    until(lambda: not processes_of(folder), what=f"the end of {processes_of(folder)}")
    assert not list(folder.iterdir())
