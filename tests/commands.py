"""Commands as tests run them: in this process, with what they printed and their exit code; and one that ends badly."""

import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from jobrunner import cli


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    code: object
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ended]


def run_here(*arguments: str) -> Ended:
    """Run a `jobrunner` command in this process: starting one for it takes most of a second."""
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr("sys.argv", ["jobrunner", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return Ended(ended.value.code, out.getvalue(), err.getvalue())


#: A script of shell that ignores TERM, as all its children do, half of which leave its session: `FILE DEPTH`, in each
#: line of the file the pid of one of them.
FAMILY = """
trap '' TERM
echo $$ >> "$1"
if [ "$2" -gt 0 ]; then
    sh "$0" "$1" $(($2 - 1)) &
    setsid sh "$0" "$1" $(($2 - 1)) &
fi
exec sleep 1000
"""


def pids_in(path: Path) -> list[int]:
    """Return the pids in a file; none while it is not there."""
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []
