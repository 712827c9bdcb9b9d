"""A private PostgreSQL: on a unix socket in a folder of its own, with every setting as installed.

It refuses to run as root, so a benchmark that root starts runs it as `postgres` or `nobody`.
"""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

_SUPERUSER = "postgres"
_PORT = "5432"


def find() -> Path | None:
    """Return the folder of its programs, the newest ones first; None if they, or the driver, are not installed."""
    if find_spec("psycopg") is None or (_as_root() and not shutil.which("setpriv")):
        return None
    return next(installed(), None)


def installed() -> Iterator[Path]:
    """Yield the folders that hold PostgreSQL's programs: those on PATH, then Debian's, the newest first."""
    yield from (folder for folder in _folders() if (folder / "initdb").exists() and (folder / "postgres").exists())


def _folders() -> Iterator[Path]:
    if found := shutil.which("pg_config"):
        yield Path(subprocess.run([found, "--bindir"], capture_output=True, text=True, check=True).stdout.strip())
    if found := shutil.which("postgres"):
        yield Path(found).resolve().parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name))


def prepare(programs: Path, folder: Path) -> list[str]:
    """Create a folder with an empty server in it, and return the command that runs it."""
    folder.mkdir()
    if _as_root():
        shutil.chown(folder, unprivileged_user())
        folder.parent.chmod(0o711)  # its user must find it
    options = ["--username", _SUPERUSER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C"]
    creation = [*_become_owner(), str(programs / "initdb"), "--pgdata", str(folder / "data"), *options]
    subprocess.run(creation, cwd="/", capture_output=True, check=True)
    server = [str(programs / "postgres"), "-D", str(folder / "data"), "-k", str(folder), "-p", _PORT]
    return [*_become_owner(), *server, "-c", "listen_addresses="]


def url(folder: Path) -> str:
    """Return the URL of the database that every server has."""
    return f"postgresql+psycopg://{_SUPERUSER}@/{_SUPERUSER}?host={quote(str(folder))}&port={_PORT}"


def answers(programs: Path, folder: Path) -> bool:
    """Tell whether it takes clients."""
    asking = [programs / "pg_isready", "--quiet", "-h", folder, "-p", _PORT, "-U", _SUPERUSER]
    return subprocess.run(asking, check=False).returncode == 0


def _as_root() -> bool:
    return os.geteuid() == 0


def unprivileged_user() -> str:
    """Return whom root runs a server as."""
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in known)


def _become_owner() -> list[str]:
    if not _as_root():
        return []
    user = pwd.getpwnam(unprivileged_user())
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
