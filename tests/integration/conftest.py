"""Commands run in the process of the test, and a runner that gives them jobs to show."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobrunner import JobRunner, cli
from tests.apps import SHOP, new_runner, nobody
from tests.commands import Ended, Run


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobRunner]:
    """Return a runner on the database of `run`, without a tracker or workers."""
    runner = new_runner(tmp_path)
    yield runner
    runner.database.close()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run commands in a folder with a user's module `shop` and, once there is one, the database `jobs.db`."""
    (tmp_path / "shop.py").write_text(SHOP.format(broker=nobody(tmp_path)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("APP", "BROKER", "RESULT_BACKEND", "HOME"):
        monkeypatch.delenv(f"JOBRUNNER_{name}", raising=False)
    monkeypatch.setenv("JOBRUNNER_DATABASE", f"sqlite:///{tmp_path / 'jobs.db'}")

    def command(*arguments: str) -> Ended:
        monkeypatch.setattr("sys.argv", ["jobrunner", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return Ended(ended.value.code, out, err)

    yield command
    sys.modules.pop("shop", None)
