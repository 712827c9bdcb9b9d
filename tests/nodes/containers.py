"""What pytest-celery takes for containers, on processes: the part of docker-py's surface that its API uses."""

import signal as signals
import sys
import uuid
from pathlib import Path
from typing import Any, ClassVar

import celery
from pytest_celery import CeleryTestContainer, CeleryWorkerContainer, RabbitMQContainer, RedisContainer

from tests.process import ROOT, Process
from tests.servers.server import Program, Service


class ProcessContainer(CeleryTestContainer):
    """Stands before one of pytest-celery's containers and replaces what that inherits from docker's.

    The fixture that starts the service ends it; pytest-celery may tear down as often as it likes.
    """

    def __init__(self, service: Service, url: str = "") -> None:
        self.service = service
        self.url = self.host_url = url
        self._id = uuid.uuid4().hex

    @property
    def id(self) -> str:
        """What a node's host name is made of."""
        return self._id

    @property
    def name(self) -> str:
        """What people call it."""
        return self.service.name

    @property
    def status(self) -> str:
        """Docker's word for whether it runs."""
        return "running" if self.service.running else "exited"

    @property
    def celeryconfig(self) -> dict[str, Any]:
        """Inside and outside are one machine here."""
        return {"url": self.url, "host_url": self.host_url}

    def ready(self) -> bool:
        """Tell whether it can be used."""
        return self.service.running and self.service.answers()

    def logs(self) -> str:
        """Return what it has written, from its first start on."""
        return self.service.process.log.read_text(errors="replace")

    def kill(self, signal: str | int | None = None) -> None:
        """Send a signal to the process; a kill takes its whole family, as the end of a container does."""
        number = signals.Signals[signal] if isinstance(signal, str) else signals.Signals(signal or signals.SIGKILL)
        if number is signals.SIGKILL:
            self.service.kill()
        else:
            self.service.process.popen.send_signal(number)

    def restart(self, timeout: float = 10) -> None:  # noqa: ARG002  ours is that of every process
        """Stop it if it runs, start it, and wait until it can be used."""
        self.service.restart()

    def reload(self) -> None:
        """Nothing is cached."""


class LocalRedis(ProcessContainer, RedisContainer):
    """A Valkey or Redis on a unix socket."""

    url: ClassVar[Any] = None  # the container's own are properties
    host_url: ClassVar[Any] = None


class LocalRabbitMQ(ProcessContainer, RabbitMQContainer):
    """A virtual host of the session's RabbitMQ."""

    url: ClassVar[Any] = None
    host_url: ClassVar[Any] = None


class LocalWorker(ProcessContainer, CeleryWorkerContainer):
    """A worker on the folder of generated modules that a container would have as its volume."""

    @classmethod
    def command(cls, *args: str, **_: Any) -> list[str]:
        """Return what starts a worker whose app is bound to jobrunner; `%h` is the container's id."""
        options = ["--without-mingle", "--without-gossip", "-c", "2", "-l", "INFO"]
        return [
            sys.executable, "-m", "workers", "-A", "app", "-n", f"{cls.worker_name()}@%h", "-Q", cls.worker_queue(),
            *options, *args,
        ]  # fmt: skip

    @classmethod
    def version(cls) -> str:
        """Return the version of Celery."""
        return celery.__version__

    @classmethod
    def launch(
        cls, folder: Path, command: list[str], environment: dict[str, str], content: dict[str, bytes]
    ) -> "LocalWorker":
        """Write the modules, start the worker and wait until it takes tasks."""
        for path, source in content.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(source)
        process = Process([], log=folder / "worker.log", environment=environment | {"PYTHONPATH": f"{folder}:{ROOT}"})
        worker = cls(Program("worker", process, ready="ready."))
        process.argv = [part.replace("%h", worker.id[:12]) for part in command]
        worker.service.start()
        return worker
