"""Child processes of `jobrunner up`, `demo` and `worker`: started, watched, started again, and never left behind.

    with hold_lock(home) as lock, Supervisor(home=home, lock=lock) as supervisor:
        process = supervisor.start(Child(name="broker", argv=broker.command(home), last=True))
        broker.wait_until_ready(home, process, give_up=supervisor.interrupted)
        supervisor.start(Child(name="tracker", argv=[...]))
        supervisor.run_until()

Each child leads a session and process group of its own, so the terminal's Ctrl-C reaches the supervisor alone, which
ends the children in order. What it cannot do when killed itself, the guardian does. Leaving the `with` block ends
everything; the exit code is the caller's.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Self

from jobrunner.embedded import guardian
from jobrunner.embedded.lock import pid_file, write_pid_file

_logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.05
_FIRST_DELAY_SECONDS = 0.5
_LONGEST_DELAY_SECONDS = 10.0
#: A child that ran this long was healthy: its next end counts as the first.
_HEALTHY_SECONDS = 30.0
#: The first signal asks us to stop, the second one to stop at once.
_SIGNALS_OF_HURRY = 2
#: Seconds that a child has then which can be told so, to say what it leaves undone; a third signal ends them.
_HURRY_SECONDS = 5.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Holds a child back until the guardian knows its group: were we killed in between, nobody would ever end the child.
#: When we die, `read` fails instead. The program takes the shell's place, and with it its pid.
_GATE = 'read -r _ && exec "$0" "$@" </dev/null'


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A program to keep running."""

    name: str
    argv: Sequence[str]
    #: Added to our own environment.
    environment: Mapping[str, str] = field(default_factory=dict)
    #: Start it again whenever it ends, whatever its exit code.
    restart: bool = True
    #: It is ended after all others: they need it to the end (the broker).
    last: bool = False
    #: What a second signal to us is for it: it is killed only if it has not ended a moment later. Else it is killed.
    hurry: signal.Signals | None = None


@dataclass(slots=True)
class _Slot:
    """A child's place: a running process, or the moment of its next start."""

    child: Child
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    delay: float = 0.0
    due: float = 0.0


def log_restart(name: str, code: int, delay: float) -> None:
    """Log that a child has ended and will be started again after `delay` seconds."""
    _logger.warning(
        "%s ended with code %d and is started again in %.1f s",
        name,
        code,
        delay,
        extra={"action": "child_restarted", "child": name, "code": code},
    )


class Supervisor:
    """Keeps children running until it is told to stop. To be used in the main thread, where signals arrive.

    With `home`, output goes to `home/up.log` and `home/up.json` names the processes; without, children write where we
    do. `lock` is a descriptor that stays open until the guardian has ended too. `grace` is how many seconds each child
    gets between SIGTERM and SIGKILL, `None` for as long as it takes; a second signal ends that patience.
    """

    def __init__(
        self,
        *,
        home: Path | None = None,
        lock: int | None = None,
        grace: float | None = 10.0,
        on_restart: Callable[[str, int, float], None] = log_restart,
    ) -> None:
        self._home = home
        self._lock = lock
        self._grace = grace
        self._on_restart = on_restart
        self._slots: dict[str, _Slot] = {}
        self._received: list[int] = []
        self._resources = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as resources:  # undone here if the rest fails, else in __exit__
            self._catch_signals(resources)
            self._output = self._open_log(resources)
            self._guardian = self._start_guardian()
            resources.callback(self._dismiss_guardian)
            self._write_pid_file()
            self._resources = resources.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._resources:
            self.stop(self._grace)
            if self._home:
                pid_file(self._home).unlink(missing_ok=True)

    def interrupted(self) -> bool:
        """Tell whether a signal has asked us to stop."""
        return bool(self._received)

    def start(self, child: Child) -> subprocess.Popen[bytes]:
        """Start a child and watch it from now on. Children are ended in reverse order of start."""
        slot = self._slots[child.name] = _Slot(child)
        return self._launch(slot)

    def run_until(self, ended: Callable[[], bool] = lambda: False) -> int | None:
        """Watch until a signal arrives (returned), `ended()` is true, or no child is left to watch."""
        while not self._received and not ended() and self._slots:
            self._watch()
            time.sleep(_POLL_SECONDS)
        return self._received[0] if self._received else None

    def stop(self, grace: float | None) -> None:
        """End all children, one after the other; at a second signal at once."""
        for slot in self._in_order_of_end():
            if slot.process:
                self._ask_to_end(slot.process, grace)
                if slot.child.hurry is not None and slot.process.poll() is None and self._is_hurried:
                    self._hurry(slot.process, slot.child.hurry)
                self._bury(slot, slot.process)
        self._slots.clear()

    def _in_order_of_end(self) -> list[_Slot]:
        latest_first = list(reversed(self._slots.values()))
        return sorted(latest_first, key=lambda slot: slot.child.last)  # sorting keeps the order of equals

    def _ask_to_end(self, process: subprocess.Popen[bytes], grace: float | None) -> None:
        deadline = None if grace is None else time.monotonic() + grace
        process.terminate()
        while process.poll() is None and not self._is_hurried:
            if deadline is not None and time.monotonic() > deadline:
                return
            time.sleep(_POLL_SECONDS)

    @property
    def _is_hurried(self) -> bool:
        return len(self._received) >= _SIGNALS_OF_HURRY

    def _hurry(self, process: subprocess.Popen[bytes], how: signal.Signals) -> None:
        deadline, received = time.monotonic() + _HURRY_SECONDS, len(self._received)
        process.send_signal(how)
        while process.poll() is None and time.monotonic() < deadline and len(self._received) == received:
            time.sleep(_POLL_SECONDS)

    def _watch(self) -> None:
        if self._guardian.poll() is not None:
            self._replace_guardian()
        for slot in list(self._slots.values()):
            if slot.process is None:
                if time.monotonic() >= slot.due:
                    self._launch(slot)
            elif slot.process.poll() is not None:
                self._plan_restart(slot, self._bury(slot, slot.process))

    def _plan_restart(self, slot: _Slot, code: int) -> None:
        if not slot.child.restart:
            del self._slots[slot.child.name]
            return
        now = time.monotonic()
        slot.delay = next_delay(slot.delay, ran=now - slot.started)
        slot.due = now + slot.delay
        self._on_restart(slot.child.name, code, slot.delay)

    def _launch(self, slot: _Slot) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(  # noqa: S603  the caller's own command
            ["/bin/sh", "-c", _GATE, *slot.child.argv],
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=subprocess.STDOUT if self._output else None,
            bufsize=0,
            env={**os.environ, **slot.child.environment},
            start_new_session=True,
        )
        slot.process, slot.started = process, time.monotonic()
        self._tell_guardian(_line(slot))
        self._write_pid_file()
        with contextlib.suppress(BrokenPipeError):  # it has ended already: the next look will tell
            _pipe(process).write(b"\n")
        _pipe(process).close()
        return process

    def _bury(self, slot: _Slot, process: subprocess.Popen[bytes]) -> int:
        """Kill what is left of a child's group, and return the child's exit code.

        A worker's pool processes survive its death and go on with their tasks, next to those of the worker started in
        its place.
        """
        guardian.kill(process.pid)
        code = process.wait()
        guardian.wait_until_gone([process.pid])
        slot.process = None
        self._tell_guardian(f"- {process.pid}\n")
        self._write_pid_file()
        return code

    def _start_guardian(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603  our own file
            [sys.executable, "-I", guardian.__file__, *filter(None, map(_line, self._slots.values()))],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._output,
            bufsize=0,  # a line is one write, and is in the pipe when `write` returns
            start_new_session=True,
            pass_fds=() if self._lock is None else (self._lock,),
        )

    def _replace_guardian(self) -> None:
        """Start another guardian after somebody killed ours."""
        self._dismiss_guardian()
        self._guardian = self._start_guardian()

    def _tell_guardian(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # it was killed: its replacement is told
            _pipe(self._guardian).write(line.encode())

    def _dismiss_guardian(self) -> None:
        _pipe(self._guardian).close()
        self._guardian.wait()

    def _catch_signals(self, resources: contextlib.ExitStack) -> None:
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # ignored on purpose: nohup, or a shell's `&`
                resources.callback(signal.signal, number, signal.signal(number, self._receive))

    def _receive(self, number: int, _: FrameType | None) -> None:
        self._received.append(number)

    def _open_log(self, resources: contextlib.ExitStack) -> IO[bytes] | None:
        return resources.enter_context((self._home / "up.log").open("ab")) if self._home else None

    def _write_pid_file(self) -> None:
        if self._home:
            running = {name: slot.process.pid for name, slot in self._slots.items() if slot.process}
            write_pid_file(self._home, running)


def next_delay(last: float, *, ran: float) -> float:
    """Return the seconds before a child's next start: 0.5, 1, 2, 4, 8, 10, 10, … and 0.5 again after it ran well."""
    if not last or ran >= _HEALTHY_SECONDS:
        return _FIRST_DELAY_SECONDS
    return min(last * 2, _LONGEST_DELAY_SECONDS)


def _line(slot: _Slot) -> str:
    return f"+ {slot.process.pid} {0 if slot.child.last else 1}\n" if slot.process else ""


def _pipe(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdin is not None, "both guardian and gate are started with a pipe"  # noqa: S101
    return process.stdin
