"""The gate of a worker: before a task starts it says whether it may, and it knows what has passed and what runs.

It judges by the snapshot that the reader brings (`workers.snapshot`) and asks nobody while that is fresh. One lock
orders all of it: what passes under a snapshot has told so before a later one is acknowledged.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary, WeakSet

from jobrunner.ids import is_uuid7
from jobrunner.snapshot import Refusal, Sent, Snapshot
from jobrunner.wire import HEADER, RUN_HEADER, TaskHeader

#: Seconds after which what was read last is no longer trusted: less than it takes until a worker counts as lost.
_FRESH = 10.0
#: A clock that goes on while the machine sleeps, where there is one.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> float:
    """Return seconds on a clock that never jumps."""
    return time.clock_gettime(_CLOCK)


class Headers(Protocol):
    """What messages say of themselves: the headers as Celery has them, or the request of a task."""

    def get(self, key: str, default: Any = None, /) -> Any:
        """Return a header, or the default."""


class Execution(Protocol):
    """A task message in a worker's hands, as the gate needs to know it."""

    sent: Sent
    is_of_job: bool

    @property
    def is_waiting(self) -> bool:
        """Whether it goes to the pool, and nobody has taken it there."""

    @property
    def is_running(self) -> bool:
        """Whether somebody has taken it, and not ended it."""


class Acknowledgement(NamedTuple):
    """A version that holds from here on; `left` are the Celery ids of what was to end and runs on."""

    version: int
    left: list[str]


class Gate:
    """Judges what starts in one worker, of this name.

    `forks` tells of a pool of processes: what has passed begins there, and what runs can be ended. Elsewhere what has
    passed may still wait for a thread, and is judged again there; `stop` is what then ends that thread's work on it
    silently. `refresh` has the snapshot read, there and then.
    """

    def __init__(self, *, worker: str, forks: bool, stop: type[BaseException], refresh: Callable[[], bool]) -> None:
        self.snapshot: Snapshot | None = None
        self.worker, self.forks, self.stop = worker, forks, stop
        #: Calls something after so many seconds in the thread that has the messages, if that can do so.
        self.later: Callable[[float, Callable[[], object]], object] | None = None
        self._pid = os.getpid()
        self._refresh = refresh
        self._read_at = float("-inf")
        self._lock = threading.RLock()
        #: How many snapshots there have been, since a version may come back; and the one under which each has passed.
        self._applied = 0
        self._passed: WeakKeyDictionary[Execution, int] = WeakKeyDictionary()
        self._running: WeakSet[Execution] = WeakSet()

    @property
    def is_here(self) -> bool:
        """Whether this is its process, and not a copy in a process of the pool, which nobody keeps up to date."""
        return self._pid == os.getpid()

    def apply(self, snapshot: Snapshot, read_at: float) -> None:
        """Judge by this snapshot from now on, which was stored at a time of `now`, or later."""
        with self._lock:
            self._read_at = read_at
            if snapshot is not self.snapshot:
                self.snapshot = snapshot
                self._applied += 1

    # ---- what starts ---------------------------------------------------------------------------------------

    def let_pass(self, one: Execution) -> Refusal | None:
        """Return why a message must not go to the pool; None if it does now."""

        def go() -> None:
            if self.forks:
                self._passed[one] = self._applied

        return self._unless_refused(one, go)

    def let_begin(self, one: Execution, begin: Callable[[], None]) -> Refusal | None:
        """Return why the one who has taken a message must not begin; None if `begin` has told that he does."""

        def go() -> None:
            begin()
            self._passed.pop(one, None)
            self._running.add(one)

        if self.forks:  # the child has begun
            with self._lock:
                go()
            return None
        return self._unless_refused(one, go)

    def end(self, one: Execution) -> None:
        """Note that it has ended, before the one who had it gets another."""
        with self._lock:
            self._running.discard(one)

    def _unless_refused(self, one: Execution, go: Callable[[], None]) -> Refusal | None:
        for last in (False, True):
            with self._lock:
                refusal = self._refusal(one)
                if refusal is None:
                    go()
            if refusal is not Refusal.UNINFORMED or last or not self._refresh():
                break
        return refusal

    def _refusal(self, one: Execution) -> Refusal | None:
        if one.is_of_job and (self.snapshot is None or now() - self._read_at > _FRESH):
            return Refusal.UNINFORMED
        if self.snapshot is None or not (one.is_of_job or speaks_of(self.snapshot, one.sent)):
            return None
        return self.snapshot.refusal(one.sent, self.worker)

    # ---- what that means for the snapshot ------------------------------------------------------------------

    def acknowledgement(self) -> Acknowledgement | None:
        """Return what can be acknowledged; None while something that passed under an older snapshot may yet begin."""
        with self._lock:
            waiting = (one.is_waiting for one, applied in self._passed.items() if applied < self._applied)
            if self.snapshot is None or any(waiting):
                return None
            doomed = self._doomed(self.snapshot) if not self.forks else ()
            return Acknowledgement(self.snapshot.version, [one.sent.celery_id for one, _ in doomed])

    @contextmanager
    def doomed(self) -> Iterator[list[tuple[Execution, float]]]:
        """Give what runs and is to be ended, with its seconds of grace; none of it gives way to another meanwhile."""
        with self._lock:
            yield list(self._doomed(self.snapshot)) if self.snapshot else []

    def _doomed(self, snapshot: Snapshot) -> Iterator[tuple[Execution, float]]:
        for one in self._running:
            grace = snapshot.grace(one.sent)
            if grace is not None and one.is_running:
                yield one, grace


def speaks_of(snapshot: Snapshot, sent: Sent) -> bool:
    """Whether a snapshot has an entry for a message, or for its job: any other plain task is none of our business."""
    return sent.root_id in snapshot.jobs or sent.celery_id in snapshot.void


def sent_of(headers: Headers) -> Sent:
    """Return a message as gates judge it.

    A retry is none of the batch that the tracker has published: whoever retries has had the message of that.
    """
    ours: TaskHeader | None = headers.get(HEADER)
    run = ours["run"] if ours else headers.get(RUN_HEADER)
    return Sent(
        root_id=headers.get("root_id"),
        celery_id=headers.get("id"),
        name=headers.get("task") or "",
        run=run if isinstance(run, int) else None,
        batch=ours.get("batch") if ours and is_from_tracker(headers) else None,
        redelivered=bool((headers.get("delivery_info") or {}).get("redelivered")),
        avoid=tuple(ours.get("avoid") or ()) if ours else (),
    )


def is_of_job(headers: Headers) -> bool:
    """Whether a message is of a job that has a plan, or was sent by a task of one."""
    return headers.get(HEADER) is not None or is_uuid7(headers.get("root_id"))


def is_from_tracker(headers: Headers) -> bool:
    """Whether the tracker has published this very message, and could again."""
    ours: TaskHeader | None = headers.get(HEADER)
    return ours is not None and (headers.get("retries") or 0) <= ours.get("first", 0)
