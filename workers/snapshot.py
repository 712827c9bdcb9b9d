"""Reading the snapshot: one thread of a worker's main process looks once a second and tells which version holds.

The tracker stores it in the result backend. A worker that cannot read it goes on with what it knows for a while, which
is the gate's to say, and tells once that it is so.
"""

import logging
import os
import threading
from typing import Any

from celery import Celery, signals
from celery.concurrency import prefork
from celery.events.event import Event
from celery.exceptions import TaskRevokedError

from jobrunner.errors import JobrunnerError
from jobrunner.masking import mask_text
from jobrunner.wire import SNAPSHOT_APPLIED
from workers.ending import end_doomed
from workers.gate import Gate, now
from workers.stored import Stored

logger = logging.getLogger(__name__)

#: Seconds between two looks.
_REST = 1.0
#: Seconds that one who needs to know at once waits for a look.
_AT_ONCE = 3.0
#: Seconds until the version that holds is told again: the event log may have lost it.
_REMIND = 30.0
#: Seconds that the start of a worker waits for the event log.
_PATIENCE = 5.0


class Reader:
    """The thread, and the gate that it keeps informed."""

    def __init__(self, app: Celery, pool: Any, hostname: str) -> None:
        forks = isinstance(pool, prefork.TaskPool)
        self.gate = Gate(worker=hostname, forks=forks, stop=_stop_of(pool), refresh=self.refresh)
        #: Whether the backend has answered, even if no tracker has ever stored anything.
        self.answered = threading.Event()
        self._app, self._pool, self._hostname = app, pool, hostname
        self._stored = Stored(app)
        self._looked = threading.Condition()
        self._begun = self._ended = 0
        self._is_good = self._is_told_broken = self._is_introduced = self._has_failed = self._stopped = False
        self._nudge, self._telling = threading.Event(), threading.Lock()
        self._told: tuple[int, list[str]] | None = None
        self._told_at = float("-inf")
        self._thread = threading.Thread(target=self._run, name="jobrunner-snapshot", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        if self._thread.ident is None:
            self._thread.start()
            signals.worker_shutdown.connect(self._stop)

    def _stop(self, **_: Any) -> None:
        self._stopped = True
        self._nudge.set()

    def refresh(self) -> bool:
        """Have it read now; False if it cannot be, or not soon, or nothing is there."""
        with self._looked:
            wanted = self._begun + 1
            self._nudge.set()
            return self._looked.wait_for(lambda: self._ended >= wanted, _AT_ONCE) and self._is_good

    def introduce(self) -> None:
        """Acknowledge what holds, and return when the event log has it; if that takes too long, say so.

        What will hold later is acknowledged from here on, too.
        """
        with self._telling:
            self._is_introduced, self._told = True, None
            event = self._acknowledgement()
            if event is None:
                return
            try:
                self._app.events.flusher.tell([event], timeout=_PATIENCE)
            except JobrunnerError as error:
                logger.warning("The tracker will know late which orders hold here: %s", error)
                self._app.events.flusher.add(event, monitored=False)
            self._note_told(event)

    # ---- the thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        rest = 0.0
        while not self._stopped:
            self._nudge.wait(rest)
            self._nudge.clear()
            self._look()
            rest = self._act()

    def _look(self) -> None:
        with self._looked:
            self._begun += 1
        began = now()
        is_good = False
        try:
            snapshot = self._stored.read()
            if snapshot is not None:
                self.gate.apply(snapshot, began)
                is_good = True
            self.answered.set()
            self._tell_broken(None)
        except Exception as error:  # noqa: BLE001  whatever ails the backend: the thread must live, and look again
            self._tell_broken(error)
        with self._looked:
            self._ended, self._is_good = self._begun, is_good
            self._looked.notify_all()

    def _tell_broken(self, error: Exception | None) -> None:
        if (error is not None) is self._is_told_broken:
            return
        self._is_told_broken = error is not None
        if error is None:
            logger.warning("Orders can be read again.", extra={"action": "snapshot-read"})
        else:
            so = "no task of a job starts" if self.answered.is_set() else "this worker takes no tasks yet"
            msg = "Orders cannot be read from the result backend, so %s: %s"
            logger.warning(msg, so, mask_text(repr(error)), extra={"action": "snapshot-unreadable"})

    def _act(self) -> float:
        """End what is to end and acknowledge what holds; return the seconds until the next look."""
        try:
            rest = end_doomed(self.gate, self._pool) if self.gate.forks else _REST
            if self._telling.acquire(blocking=False):  # one at a time, so that an older version is never told last
                try:
                    self._tell_news()
                finally:
                    self._telling.release()
        except Exception:  # the thread must live
            if not self._has_failed:
                logger.exception("Orders cannot be carried out; it is tried again every second.")
            self._has_failed = True
            return _REST
        self._has_failed = False
        return min(rest, _REST)

    def _tell_news(self) -> None:
        event = self._acknowledgement() if self._is_introduced else None
        if event is not None and self._is_news(event):
            self._app.events.flusher.add(event, monitored=False)
            self._note_told(event)

    def _acknowledgement(self) -> dict[str, Any] | None:
        holds = self.gate.acknowledgement()
        if holds is None:
            return None
        fields = holds._asdict() | {"queues": sorted(self._app.amqp.queues.consume_from)}
        event: dict[str, Any] = Event(SNAPSHOT_APPLIED, hostname=self._hostname, pid=os.getpid(), **fields)
        return event

    def _is_news(self, event: dict[str, Any]) -> bool:
        return (event["version"], event["queues"]) != self._told or now() - self._told_at > _REMIND

    def _note_told(self, event: dict[str, Any]) -> None:
        self._told, self._told_at = (event["version"], event["queues"]), now()


def _stop_of(pool: Any) -> type[BaseException]:
    """Return the exception that a pool of this kind makes no noise about."""
    if not pool.is_green:
        return TaskRevokedError
    from greenlet import GreenletExit  # noqa: PLC0415  such pools alone need it

    return GreenletExit
