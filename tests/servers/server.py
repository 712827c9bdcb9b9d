"""What all servers of the tests have in common, and the processes that use them."""

import re
import socket
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from tests.process import Process
from tests.waiting import PATIENCE, until


class AbsentError(Exception):
    """A server that is not installed; says what to install."""


class Service(ABC):
    """A process that others rely on: started, it is waited for; killed or stopped, it can be started again."""

    #: What people call it.
    name: str
    process: Process

    @abstractmethod
    def answers(self) -> bool:
        """Tell whether it does its work now."""

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return self.process.running

    def start(self) -> Self:
        """Start it and wait until it answers; one that runs is left alone."""
        if not self.running:
            self.kill()
            self.process.start()
            until(self._answers_or_has_ended, timeout=PATIENCE, what=f"{self.name} to answer")
        return self

    def _answers_or_has_ended(self) -> bool:
        assert self.running, f"{self.name} ended with {self.process.popen.returncode}:\n{self.process.text}"
        return self.answers()

    def kill(self) -> None:
        """Kill it and its children, with what they have not stored yet."""
        self.process.kill()

    def stop(self) -> None:
        """Let it end in its own way."""
        self.process.stop()

    def restart(self) -> Self:
        """Stop it, and start it again."""
        self.stop()
        return self.start()


class Server(Service):
    """A service that keeps something in a place of its own, and has it again after a kill."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients reach it."""

    def close(self) -> None:
        """End it and remove what it has stored."""
        self.kill()


class Program(Service):
    """A service of ours, which says when it is ready."""

    def __init__(self, name: str, process: Process, *, ready: str) -> None:
        self.name = name
        self.process = process
        self._ready = ready

    def answers(self) -> bool:
        """Tell whether it has said so since its start."""
        return self._ready in self.process.text


def version_of(binary: Path) -> str:
    """Return the version that a program tells with `--version`, without starting anything."""
    told = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=PATIENCE, check=True).stdout
    found = re.search(r"\d+(\.\d+)+", told)
    assert found, told
    return found[0]


def free_ports(number: int) -> list[int]:
    """Return loopback ports that nobody uses, all different."""
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def accepts(port: int) -> bool:
    """Tell whether somebody listens on a loopback port."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
