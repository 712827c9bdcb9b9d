"""A gigabyte of lines from a command: run as a command task, which bounds what is kept, and straight into a file.

A command task's minder reads what the command writes: lines of progress are looked for, the newest go to the log, the
beginning and the end are kept. Straight into a file nothing is read, and all of it is kept. There is no job and no
worker: what is measured is how long the command takes, and what it leaves on the disk.
"""

import os
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks import noop
from benchmarks.harness import Figures, in_turn, parser, report, tell
from jobrunner import CommandResult, JobRunner
from jobrunner.commands import NAME
from jobrunner.embedded import broker
from jobrunner.store.upgrade import upgrade

_BYTES, _QUICK_BYTES = 1_000_000_000, 100_000_000
_ROUNDS = 3
_MEGABYTE = 1_000_000


def main() -> None:
    """Run the benchmark."""
    options = parser("command", rounds=_ROUNDS)
    options.add_argument("--bytes", type=int, help=f"of output (default: {_BYTES:,}, quick: {_QUICK_BYTES:,})")
    chosen = options.parse_args()
    length = chosen.bytes or (_QUICK_BYTES if chosen.quick else _BYTES)
    tell(f"command: {length:,} bytes of output, {chosen.rounds} rounds")
    line = f"yes a line of what it has to say | head -c {length}"
    sides = in_turn(chosen.rounds, {"ours": partial(_ours, line, length), "theirs": partial(_theirs, line)})
    ours, theirs = sides["ours"], sides["theirs"]
    ratios = {name: ours[name] / theirs[name] for name in ("seconds", "kept_mb")}
    report("command", ours=ours, theirs=theirs, ratios=ratios)


def _ours(line: str, length: int) -> Figures:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        os.environ["JOBRUNNER_HOME"] = folder
        database = f"sqlite:///{folder}/jobrunner.db"
        upgrade(database)
        jobs = JobRunner(noop.make(broker.url(Path(folder))), database=database)
        jobs.prepare_tasks()
        began = time.perf_counter()
        record = CommandResult.read(jobs.app.tasks[NAME](**jobs.command(line, shell=True).kwargs))  # noqa: S604  ours
        took = time.perf_counter() - began
        jobs.database.close()
        if record.stdout_bytes != length:
            msg = f"The command has written {record.stdout_bytes:,} bytes, not {length:,}."
            raise RuntimeError(msg)
        return {"seconds": took, "kept_mb": _megabytes(Path(record.work_directory) / ".command/stdout")}


def _theirs(line: str) -> Figures:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        path = Path(folder) / "stdout"
        began = time.perf_counter()
        with path.open("wb") as file:
            subprocess.run(line, shell=True, stdout=file, check=True)  # noqa: S602  ours
        return {"seconds": time.perf_counter() - began, "kept_mb": _megabytes(path)}


def _megabytes(path: Path) -> float:
    return path.stat().st_size / _MEGABYTE


if __name__ == "__main__":
    main()
