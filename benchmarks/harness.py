"""What every benchmark shares: a private house to measure in, rounds, and the figures as one line of JSON.

A house is a broker, a database and processes of its own in a temporary folder. Houses of several sides may stand side
by side: what idles costs next to nothing, and each side has its own broker with the same options.
"""

import gc
import json
import os
import signal
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from subprocess import Popen
from types import FrameType
from typing import Self, TypeVar

from benchmarks import postgres
from jobrunner.embedded import broker
from jobrunner.embedded.supervisor import Child, Supervisor
from jobrunner.store.upgrade import upgrade

#: Tasks at a time, on either side.
CONCURRENCY = 2
#: Seconds between two looks at a condition: what a figure may be late by.
LOOK = 0.005
#: Seconds that a process of a house gets to end by itself.
_GRACE = 10.0
#: Seconds that a server may take to answer.
_START = 30.0
#: A private broker has one worker: nobody to mingle or gossip with. `jobrunner up` gives its worker the same.
_WORKER = ("--without-mingle", "--without-gossip", "-l", "WARNING", "-c", str(CONCURRENCY))
#: Celery prefers these to what an app was made with; a private house must not end up on somebody's broker.
_CELERY_OVERRIDES = ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND")

Figures = Mapping[str, float]
_T = TypeVar("_T")


class House:
    """A broker in a temporary folder, and what is started beside it; leaving the `with` block ends all of it.

    Were this process killed, the supervisor's guardian would end the others.
    """

    def __enter__(self) -> Self:
        with ExitStack() as resources:
            # The path of a socket is short, so the folder stands directly in the temporary folder.
            self.home = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            self.database_url = f"sqlite:///{self.home / 'jobrunner.db'}"
            self.url = self.results_url = broker.url(self.home)
            self.processes: dict[str, Popen[bytes]] = {}
            self._supervisor = resources.enter_context(Supervisor(home=self.home, grace=_GRACE))
            _let_signals_raise(resources)
            server = self._start(broker.NAME, broker.command(self.home), last=True)
            broker.wait_until_ready(self.home, server)
            self._resources = resources.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def start_tracker(self) -> None:
        """Create the database and start a tracker on it."""
        upgrade(self.database_url)
        self._start(
            "tracker",
            [
                sys.executable,
                "-m",
                "jobrunner.cli",
                "tracker",
                "-b",
                self.url,
                "--result-backend",
                self.results_url,
                "-l",
                "WARNING",
            ],
        )

    def start_postgresql(self) -> str | None:
        """Start a PostgreSQL with an up-to-date database and return its URL; None if it is not installed."""
        programs, folder = postgres.find(), self.home / "postgres"
        if programs is None:
            return None
        self._start("postgres", postgres.prepare(programs, folder), last=True)
        self.wait_for(lambda: postgres.answers(programs, folder), timeout=_START, what="PostgreSQL")
        upgrade(postgres.url(folder))
        return postgres.url(folder)

    def start_worker(self, app: str, *options: str, name: str = "worker", **settings: str) -> None:
        """Start a worker of ours for the app of a module; settings are environment variables."""
        command = [sys.executable, "-m", "workers", "-A", app, *_WORKER, "-n", f"{name}@%h", *options]
        self._start(name, command, **settings)

    def start_bare_worker(self, app: str, *options: str) -> None:
        """Start Celery's own worker for the app of a module, with the same options."""
        self._start("bare-worker", [sys.executable, "-m", "celery", "-A", app, "worker", *_WORKER, *options])

    def start_monitor(self, app: str, path: Path) -> None:
        """Start Celery's own monitor, which writes a line for each event that it gets."""
        dump = 'exec "$0" -m celery -A "$1" events --dump > "$2"'
        self._start("monitor", ["sh", "-c", dump, sys.executable, app, str(path)])

    def stop(self, name: str) -> None:
        """End a process of the house, and do without it."""
        process = self.processes.pop(name)
        process.terminate()
        process.wait(_GRACE)

    def _start(self, name: str, argv: Sequence[str], *, last: bool = False, **settings: str) -> Popen[bytes]:
        environment = {
            "JOBRUNNER_HOME": str(self.home),
            "JOBRUNNER_DATABASE": self.database_url,
            **dict(zip(_CELERY_OVERRIDES, (self.url, self.results_url), strict=True)),
            **settings,
        }
        child = Child(name=name, argv=argv, environment=environment, restart=False, last=last)
        self.processes[name] = self._supervisor.start(child)
        return self.processes[name]

    def wait_for(self, condition: Callable[[], _T], *, timeout: float, what: str, look: float = LOOK) -> _T:
        """Look every `look` seconds until `condition` returns something true, and return that.

        Raises:
            RuntimeError: it took longer, or a process of the house has ended; with the end of its log.
        """
        deadline = time.monotonic() + timeout
        while not (value := condition()):
            ended = [name for name, process in self.processes.items() if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                why = f"{ended[0]} ended" if ended else f"not within {timeout:g} s"
                msg = f"Waiting for {what}: {why}.\n{self._log_tail()}"
                raise RuntimeError(msg)
            time.sleep(look)
        return value

    def _log_tail(self) -> str:
        lines = (self.home / "up.log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-20:])


def _let_signals_raise(resources: ExitStack) -> None:
    """A supervisor notes a signal for its own loop to see; a benchmark has none, and must not wait out a round."""

    def stop(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        resources.callback(signal.signal, number, signal.signal(number, stop))


def parser(name: str, *, rounds: int | None) -> ArgumentParser:
    """Return the options that every benchmark takes; without a number of rounds it measures what needs none."""
    for variable in _CELERY_OVERRIDES:
        os.environ.pop(variable, None)
    made = ArgumentParser(prog=f"python -m benchmarks.{name}")
    made.add_argument("--quick", action="store_true", help="stay under a minute")
    if rounds is not None:
        made.add_argument("--rounds", type=int, default=rounds, help=f"rounds per side (default: {rounds})")
    return made


def in_turn(rounds: int, sides: Mapping[str, Callable[[], Figures]]) -> dict[str, Figures]:
    """Measure all sides once per round, and return the median of each figure by side."""
    measured: dict[str, list[Figures]] = {side: [] for side in sides}
    for number in range(1, rounds + 1):
        for side, measure in sides.items():
            figures = measure()
            measured[side].append(figures)
            tell(f"round {number}/{rounds}  {side:12}", _text(figures))
            gc.collect()  # results that were never asked for give up their subscriptions when they are collected
    return {side: medians(figures) for side, figures in measured.items()}


def medians(rounds: Sequence[Figures]) -> Figures:
    """Return the median of each figure over some rounds."""
    return {key: median(figures[key] for figures in rounds) for key in rounds[0]}


def peak_mb(process: Path) -> float:
    """Return the most memory in MB that a process has had, from Linux's folder of it; some it may have given back."""
    (line,) = (line for line in (process / "status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


def tell(*words: str) -> None:
    """Show progress to people: standard output is for the figures."""
    print(*words, file=sys.stderr, flush=True)


def report(name: str, *, ours: Figures, theirs: Figures, ratios: Figures, skipped: Sequence[str] = ()) -> None:
    """Print the figures as one JSON object, the last line of a benchmark; a ratio is ours ÷ theirs."""
    sides = {"ours": _rounded(ours, 1), "theirs": _rounded(theirs, 1), "ratios": _rounded(ratios, 3)}
    print(json.dumps({"name": name, **sides, "skipped": list(skipped)}), flush=True)


def _rounded(figures: Figures, digits: int) -> Figures:
    return {key: round(value, digits) for key, value in figures.items()}


def _text(figures: Figures) -> str:
    return "  ".join(f"{key} {value:,.1f}" for key, value in figures.items())
