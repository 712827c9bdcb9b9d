"""A private house for tests: folder, broker, database, trackers and workers, all of them real processes.

Without more, its database is a SQLite file and its broker a Redis, both in its folder; each can be that of a server
which houses share, where each has a part of its own. Nothing listens on a network, so sessions may run side by side.
Whatever a test forgets is ended by `close`.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import redis
from celery import Signature
from sqlalchemy import select, text

from jobrunner.embedded import broker
from jobrunner.embedded.lock import hold_lock
from jobrunner.handle import Job
from jobrunner.records import Attempt
from jobrunner.states import TaskState
from jobrunner.store import leases, tracking
from jobrunner.store.schema import metadata
from jobrunner.store.schema import worker as workers
from tests.apps import new_database
from tests.commands import Ended, run_here
from tests.process import ROOT, Process
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis import Redis
from tests.servers.server import Server
from tests.waiting import PATIENCE, until

if TYPE_CHECKING:
    from jobrunner import JobRunner

PROJ = "tests.integration.proj"

_SETTINGS = ("JOBRUNNER_HOME", "JOBRUNNER_DATABASE", "JOBRUNNER_BROKER", "JOBRUNNER_RESULT_BACKEND", "JOBRUNNER_APP")


#: For tests that are about the files of one folder, or about what no database has a part in.
on_sqlite = pytest.mark.house_on("sqlite-redis")
#: For tests of promises that no server may break: every database with every broker.
everywhere = pytest.mark.house_on("sqlite-redis", "sqlite-rabbitmq", "postgresql-redis", "postgresql-rabbitmq")
#: For tests about brokers, each with one of the databases.
on_each_broker = pytest.mark.house_on("sqlite-redis", "postgresql-rabbitmq")


class House:
    """One folder and what runs on it; `proj` is a copy of the tasks' module whose app is bound to this folder."""

    def __init__(self, home: Path, *, database_url: str | None = None, rabbitmq: RabbitMQ | None = None) -> None:
        """Make the folder, and a database unless one with a schema is given; with RabbitMQ, Redis keeps the results."""
        self.home = home
        home.mkdir(exist_ok=True)
        self._redis = Redis(home)
        self._rabbitmq = rabbitmq
        self._vhost = rabbitmq.new_vhost() if rabbitmq else None
        if database_url is None:
            new_database(home, "jobrunner.db")
        settings = {
            "JOBRUNNER_HOME": str(home),
            "JOBRUNNER_DATABASE": database_url,
            "JOBRUNNER_BROKER": self._vhost,
            "JOBRUNNER_RESULT_BACKEND": self._redis.url if rabbitmq else None,
        }
        chosen = {name: value for name, value in settings.items() if value}
        ours = {name: value for name, value in os.environ.items() if name not in _SETTINGS}
        self.environment = ours | chosen
        self.proj = _fresh(chosen)
        self.jobs: JobRunner = self.proj.jobs
        self.app = self.jobs.app
        self._processes: list[Process] = []

    # ---- processes -----------------------------------------------------------------------------------------

    def start(self, name: str, argv: Sequence[str], **settings: str) -> Process:
        """Start any process of this house, writing to `NAME.log` in its folder."""
        process = Process(argv, log=self.home / f"{name}.log", environment=self.environment | settings).start()
        self._processes.append(process)
        return process

    def broker(self) -> Server:
        """Start the broker, with what it had stored before, and wait until it answers; results can be kept then too."""
        self._redis.start()
        return self._rabbitmq.start() if self._rabbitmq else self._redis

    def tracker(self, name: str = "tracker", *, ready: str | None = "Tracking;", **settings: str) -> Process:
        """Start a tracker, without any code of ours, and wait until it says what it should.

        `settings` are environment variables.
        """
        process = self.start(name, [sys.executable, "-m", "jobrunner.cli", "tracker"], **settings)
        if ready:
            process.says(ready)
        return process

    def worker(
        self,
        name: str = "worker",
        *,
        queues: str = "celery",
        module: str = "workers",
        pool: str = "prefork",
        more: Sequence[str] = (),
        **settings: str,
    ) -> Process:
        """Start a worker of two processes and wait until it takes tasks; `settings` are environment variables.

        `more` are further options of Celery's worker.
        """
        command = ["jobrunner.cli", "worker"] if module == "jobrunner" else [module]
        options = [
            "--without-mingle",
            "--without-gossip",
            "-P",
            pool,
            "-c",
            "2",
            "-l",
            "INFO",
            "-Q",
            queues,
            "-n",
            f"{name}@house",
            *more,
        ]
        process = self.start(name, [sys.executable, "-m", *command, "-A", PROJ, *options], **settings)
        process.says(f"{name}@house ready.")
        return process

    def cli(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a `jobrunner` command to its end, in a process of its own."""
        command = [sys.executable, "-m", "jobrunner.cli", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    def ask(self, *arguments: str) -> Ended:
        """Run a `jobrunner` command that needs no user code, in this process: many are asked until they say something.

        With user code it would be that of the house which first imported it.
        """
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(ROOT)
            for name in _SETTINGS:
                patch.delenv(name, raising=False)
                if name in self.environment:
                    patch.setenv(name, self.environment[name])
            return run_here(*arguments)

    def close(self) -> None:
        """End everything that still runs."""
        for process in reversed(self._processes):
            process.kill()
        self._redis.kill()
        with hold_lock(self.home):  # waits for what a killed `up` has left to the guardian
            pass
        self.app.backend.client.close()
        self.app.backend.client.connection_pool.disconnect()
        self.app.close()
        self.jobs.database.close()
        if self._rabbitmq and self._vhost:
            self._rabbitmq.delete_vhost(self._vhost)

    @contextmanager
    def nobody_writes(self) -> Iterator[None]:
        """Let everybody read the database and hold back every write until the end of the block."""
        with self.jobs.database.write() as connection:  # on SQLite this is all
            if not self.jobs.database.is_sqlite:
                tables = ", ".join(f'"{name}"' for name in metadata.tables)
                connection.execute(text(f"LOCK TABLE {tables} IN EXCLUSIVE MODE"))
            yield

    # ---- what the database says ----------------------------------------------------------------------------

    def attempts(self, job: Job) -> dict[str, list[Attempt]]:
        """Return all executions of a job's tasks of which somebody has told, by task id, in order."""
        told: dict[str, list[Attempt]] = {task.id: [] for task in job.tasks()}
        with self.jobs.database.read() as connection:
            found = tracking.attempts_of(connection, told)
        for one in sorted(found, key=lambda one: (one.delivery, one.retries, one.process)):
            told[one.task_id] += [one] * (one.last_event is not None)
        return told

    def ended_attempts(self, job: Job) -> list[list[Attempt]]:
        """Return the attempts of each task once all are known to have ended: `retried` may be told after a success."""

        def ended() -> list[list[Attempt]]:
            attempts = list(self.attempts(job).values())
            return attempts if all(one.outcome for ones in attempts for one in ones) else []

        return until(ended, timeout=PATIENCE, what="the ends of all attempts to be known")

    def received(self, job: Job) -> int:
        """Return how many attempts of a job some worker is known to have had in hand."""
        return sum(one.received_at is not None for ones in self.attempts(job).values() for one in ones)

    def check_completed_once(self, job: Job) -> None:
        """See that every task of a job is completed, by one success of its present delivery."""
        view = job.view
        assert view.counts == {TaskState.COMPLETED: view.total}
        attempts = self.attempts(job)
        for task in job.tasks():
            assert task.state is TaskState.COMPLETED
            present = [one for one in attempts[task.id] if one.delivery == task.delivery]
            assert [one.outcome for one in present].count("succeeded") == 1

    def tracker_holder(self) -> str | None:
        """Return who holds the lease, host:pid, while it runs."""
        with self.jobs.database.read() as connection:
            status = leases.tracker_status(connection)
        return status.holder if status and status.alive else None

    def waiting(self, queue: str = "celery") -> int:
        """Return how many messages of a queue no worker has in hand."""
        with self.app.connection_for_read() as connection, connection.channel() as channel:
            try:
                return int(channel.queue_declare(queue, passive=True).message_count)
            except connection.channel_errors:  # on Redis an empty queue is none
                return 0

    def workers_online(self) -> set[str]:
        """Return the names of the workers that the tracker knows to be online."""
        with self.jobs.database.read() as connection:
            return set(connection.execute(select(workers.c.name).where(workers.c.online)).scalars())

    def events_of(self, canvas: Signature, number: int) -> tuple[Job, list[dict[str, Any]]]:
        """Submit a canvas and return so many of its events, as Flower or any other monitor of Celery sees them."""
        told: list[dict[str, Any]] = []
        receiver = self.app.events.Receiver(self.app.connection_for_read(), handlers={"*": told.append})
        with receiver.consumer_context(wakeup=False) as (connection, _channel, _consumers):

            def of_job(job_id: str) -> list[dict[str, Any]]:
                with suppress(TimeoutError):
                    connection.drain_events(timeout=0.05)
                return [event for event in told if event.get("root_id") == job_id]

            of_job("")  # subscribes
            job = self.jobs.submit(canvas)
            enough: Callable[[], Any] = lambda: len(found := of_job(job.id)) >= number and found  # noqa: E731
            return job, until(enough, timeout=PATIENCE, what=f"{number} events of the job")

    # ---- files and other small things ----------------------------------------------------------------------

    def path(self, name: str) -> str:
        """Return a path in this house as text, for an argument."""
        return str(self.home / name)

    def lines(self, name: str) -> list[str]:
        """Return the lines that tasks have appended to a file."""
        path = self.home / name
        return path.read_text().splitlines() if path.exists() else []

    def gate(self, name: str) -> "Gate":
        """Return a gate for `proj.hold`."""
        return Gate(self.home / name)

    def redis(self) -> "redis.Redis":
        """Return a client of Redis, where results are and, without RabbitMQ, messages; the caller closes it."""
        return redis.Redis(unix_socket_path=str(broker.socket_path(self.home)), decode_responses=True)


class Gate:
    """Holds `proj.hold` tasks until it is opened; who waits before it has left a file with its pid."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def open(self) -> None:
        """Let everybody through."""
        self.path.touch()

    def waiting(self) -> list[int]:
        """Return the pids of the processes that have come to it, in the order in which they came."""
        path = self.path.with_suffix(".pids")
        return [int(pid) for pid in path.read_text().split()] if path.exists() else []

    def reached(self, number: int = 1) -> list[int]:
        """Wait until so many have come, and return their pids."""
        enough: Callable[[], Any] = lambda: len(self.waiting()) >= number and self.waiting()  # noqa: E731
        return list(until(enough, timeout=PATIENCE, what=f"{number} tasks to reach {self.path.name}"))


def _fresh(settings: Mapping[str, str]) -> ModuleType:
    """Import the tasks' module once more: an app of its own, bound by these settings."""
    spec = spec_from_file_location(PROJ, ROOT / "tests/integration/proj.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        for name in _SETTINGS:
            patch.delenv(name, raising=False)
        for name, value in settings.items():
            patch.setenv(name, value)
        spec.loader.exec_module(module)
    return module
