"""A private RabbitMQ node: loopback only, with a name, a data folder, ports and an epmd of its own.

Starting one takes 4-7 s, so there is one for the session, and each house has a virtual host of its own on it: nothing
that one test declared is seen by the next, whatever it was. A virtual host costs 0.05 s through Erlang's
`erl_call`; `rabbitmqctl` would take 2 s for it.
"""

import contextlib
import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Self

from kombu import Connection

from tests.process import Process
from tests.servers.server import AbsentError, Server, accepts, free_ports
from tests.waiting import PATIENCE

_USER = "guest"
#: Make a virtual host in which guest may do everything.
_ADD = """
    rabbit_vhost:add(<<"{name}">>, <<"guest">>),
    rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"{name}">>, <<".*">>, <<".*">>, <<".*">>, <<"guest">>).
"""
_DELETE = 'rabbit_vhost:delete(<<"{name}">>, <<"guest">>).'


class RabbitMQ(Server):
    """A node, and as many virtual hosts on it as tests want."""

    name = "RabbitMQ"

    def __init__(self) -> None:
        server = _server_script()
        self.folder = Path(tempfile.mkdtemp(prefix="jobrunner-rabbitmq-"))
        self.port, distribution, epmd_port = free_ports(3)
        self._node = f"jobrunner{self.port}@localhost"
        self._numbers = count(1)
        environment = os.environ | self._settings(distribution, epmd_port)
        self.process = Process(
            [str(server)],
            log=self.folder / "rabbitmq.log",
            environment=environment,
            last=True,
        )
        self._epmd = Process(
            ["epmd", "-port", str(epmd_port), "-address", "127.0.0.1"],
            log=self.folder / "epmd.log",
            environment=environment,
            last=True,
        )

    def _settings(self, distribution: int, epmd_port: int) -> dict[str, str]:
        """Write the node's files, and return the variables that keep it away from those of the machine's own node."""
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\nlog.console = true\nlog.file = false\n"
        )
        (self.folder / "enabled_plugins").write_text("[].\n")
        return {
            "HOME": str(self.folder),  # where Erlang keeps its cookie
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_DIST_PORT": str(distribution),
            # One scheduler that never spins: two cores are shared with everything else.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none",
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP": str(self.folder / "crash"),
        }

    @property
    def url(self) -> str:
        """The virtual host that every node has."""
        return self._url_of("")

    def start(self) -> Self:
        """Start it and wait until it answers; one that runs is left alone."""
        if not self._epmd.running:
            self._epmd.kill()
            self._epmd.start()
        super().start()
        return self

    def answers(self) -> bool:
        """Tell whether a client can log in: the port is open before that."""
        if not accepts(self.port):
            return False
        try:
            with Connection(self.url, connect_timeout=PATIENCE) as connection:
                connection.connect()
        except OSError:
            return False
        return True

    def new_vhost(self) -> str:
        """Make a virtual host, and return the URL of a broker in which nobody has declared anything."""
        self.start()
        name = f"house{next(self._numbers)}"
        self._evaluate(_ADD.format(name=name))
        return self._url_of(name)

    def delete_vhost(self, url: str) -> None:
        """Remove a virtual host and all queues in it."""
        self.start()
        self._evaluate(_DELETE.format(name=url.rpartition("/")[2]))

    @contextlib.contextmanager
    def memory_alarm(self) -> Iterator[None]:
        """Let it block publishers as if its memory were full, until the end of the block."""
        alarm = "{resource_limit, memory, node()}"
        self._evaluate(f"rabbit_alarm:set_alarm({{{alarm}, []}}).")
        try:
            yield
        finally:
            self._evaluate(f"rabbit_alarm:clear_alarm({alarm}).")

    def close(self) -> None:
        """End it with its epmd, and remove what it has stored."""
        super().close()
        self._epmd.kill()
        shutil.rmtree(self.folder)

    def _evaluate(self, expression: str) -> None:
        cookie = (self.folder / ".erlang.cookie").read_text()
        done = subprocess.run(
            ["erl_call", "-n", self._node, "-c", cookie, "-e"],
            input=f"{expression}\n", env=self.process.environment, capture_output=True, text=True, timeout=PATIENCE,
            check=False,
        )  # fmt: skip
        assert done.stdout.startswith("{ok, "), (done.stdout, done.stderr)

    def _url_of(self, vhost: str) -> str:
        return f"amqp://{_USER}:{_USER}@127.0.0.1:{self.port}/{vhost}"


def version() -> str:
    """Return which server `RabbitMQ` would run, by its folder: asking the server itself takes seconds.

    Raises:
        AbsentError: there is none.
    """
    plugins = _server_script().parents[1] / "plugins"
    found = next(re.search(r"^rabbit-([\d.]*\d)", path.name) for path in plugins.glob("rabbit-*"))
    assert found
    return f"RabbitMQ {found[1]}"


@functools.cache
def _server_script() -> Path:
    """Return the server's own script: the one on PATH may be Debian's, which changes to the user rabbitmq."""
    for folder in _folders():
        if (folder / "rabbitmq-server").exists() and (folder / "rabbitmq-env").exists():
            return (folder / "rabbitmq-server").resolve()
    msg = "RabbitMQ is not installed: install Debian's package rabbitmq-server"
    raise AbsentError(msg)


def _folders() -> list[Path]:
    on_path = shutil.which("rabbitmq-server")
    newest_first = sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin"), reverse=True)
    return [*([Path(on_path).resolve().parent] if on_path else []), *newest_first]
