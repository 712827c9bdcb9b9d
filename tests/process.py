"""Real processes that tests start, stop, kill and start again.

Whatever a test forgets, and whatever a killed test session leaves, is ended by the guardian that also watches over
`jobrunner up`: one per session, told of every process.
"""

import functools
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from pwd import getpwnam
from typing import Self

import psutil

from jobrunner.embedded import guardian
from tests.waiting import PATIENCE, until

ROOT = Path(__file__).parents[1]


class Process:
    """One command with a group and a log of its own, which can be started as often as it has ended."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        last: bool = False,
    ) -> None:
        """Describe it; `user` is whom root runs it as, and the guardian ends what is `last` after all others."""
        self.argv = list(argv)
        self.log = log
        self.environment = dict(os.environ if environment is None else environment)
        self._user = user
        self._stop_signal = stop_signal
        self._last = last
        self._skip = 0
        self._watched = False

    def start(self) -> Self:
        """Start it; what it writes is added to its log."""
        assert not self._watched, f"{self.log.name} has been started and neither stopped nor killed"
        with self.log.open("ab") as output:
            self._skip = output.tell()
            self.popen = subprocess.Popen(
                self.argv,
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=self._user,
                group=self._user and getpwnam(self._user).pw_gid,
                extra_groups=[] if self._user else None,
            )
        _tell_guardian(f"+ {self.pid} {int(not self._last)}")
        self._watched = True
        return self

    @property
    def pid(self) -> int:
        """The process that runs, or ran last."""
        return self.popen.pid

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended, by itself or by us."""
        return self._watched and self.popen.poll() is None

    @property
    def text(self) -> str:
        """What it has written since it was started last."""
        return self.log.read_bytes()[self._skip :].decode(errors="replace")

    def says(self, sentence: str) -> None:
        """Wait until it has written this; fail at once if it ends before."""

        def said() -> bool:
            ended = not self.running
            if sentence in self.text:
                return True
            assert not ended, f"{self.log.name} ended with {self.popen.returncode}:\n{self.text}"
            return False

        until(said, timeout=PATIENCE, what=f"{self.log.name} to say {sentence!r}")

    def kill(self) -> None:
        """Kill it and its whole family: kill -9. Does nothing if it does not run."""
        if not self._watched:
            return
        family = self._family()
        guardian.kill(self.pid)
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        self.popen.wait()
        guardian.wait_until_gone([self.pid])
        until(lambda: not any(guardian.alive(one.pid) for one in family), what=f"the family of {self.log.name} to end")
        _tell_guardian(f"- {self.pid}")
        self._watched = False

    def stop(self) -> int:
        """Ask it to end, wait until it has, and return its exit code."""
        self.popen.send_signal(self._stop_signal)
        code = self.popen.wait(PATIENCE)
        self.kill()
        return code

    def restart(self) -> Self:
        """Stop it, and start it again."""
        self.stop()
        return self.start()

    def _family(self) -> list[psutil.Process]:
        """Freeze it, so that it has no more children, and return those it has, whatever group they are in."""
        if not self.running:
            return []
        self.popen.send_signal(signal.SIGSTOP)
        return psutil.Process(self.pid).children(recursive=True)


@functools.cache
def _guardian() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-I", guardian.__file__], stdin=subprocess.PIPE, bufsize=0, start_new_session=True
    )


def _tell_guardian(line: str) -> None:
    pipe = _guardian().stdin
    assert pipe is not None
    pipe.write(f"{line}\n".encode())


def dismiss_guardian() -> None:
    """Let the guardian end what is left, and end itself; for the end of the session."""
    if _guardian.cache_info().currsize:
        _guardian().communicate()
        _guardian.cache_clear()
