"""Valkey or Redis, started as `jobrunner up` starts it: a unix socket in a folder, and an append-only file."""

from pathlib import Path

from jobrunner.embedded import broker
from tests.process import Process
from tests.servers.server import Server, version_of


class Redis(Server):
    """The broker and result backend of one folder."""

    name = "Redis"

    def __init__(self, home: Path) -> None:
        self.home = home
        self.process = Process(broker.command(home), log=home / f"{broker.NAME}.log", last=True)

    @property
    def url(self) -> str:
        """For Celery's `broker_url` and `result_backend` alike."""
        return broker.url(self.home)

    def answers(self) -> bool:
        """Tell whether it has loaded its data."""
        return broker.ping(self.home)


def version() -> str:
    """Return which server `Redis` would run."""
    binary = broker.server_binary()
    return f"{binary.name} {version_of(binary)}"
