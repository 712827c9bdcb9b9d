"""The one thread of a worker process that writes events: into the event log, and to Celery's exchange for monitors."""

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from celery import Celery, signals

from jobrunner.errors import EventLogFullError, RefusedError, UnreachableError
from jobrunner.event_log import EventLogWriter, open_writer
from jobrunner.servers import TIMEOUTS
from workers.backlog import Backlog
from workers.batches import LONGEST, EncodedEvent, Series, encode, fitting
from workers.monitors import Monitors
from workers.telling import Telling

if TYPE_CHECKING:
    from kombu.connection import Connection

logger = logging.getLogger(__name__)

#: A batch is written when it is this long (events), or when the rest after the last one is over: so many seconds for
#: each event of that, at most `_AGE`. Alone, an event is out at once; under load a write costs the worker's loop the
#: same half a millisecond and more, for one event as for fifty.
_LENGTH = 200
_REST = 0.005
_AGE = 0.05
#: Events kept while the broker is away, or its log full; what comes on top is dropped and counted.
_CAPACITY = 100_000
#: Characters that may wait of what tasks log, to be written or for a broker that is away.
_LOGGED = 10_000_000
#: Seconds between two tries to reach a broker that is away: from the first, doubling, to the last.
_FIRST_RETRY = 0.1
_LAST_RETRY = 2.0
#: Seconds until a log that was full is tried again.
_PATIENCE = 1.0
#: Seconds of silence after which a worker's main process says that it lives: a pool that blocks its loop, or a worker
#: without heartbeats, is not lost.
_BEAT = 5.0
#: Seconds that the end of a process waits for the last events.
_FAREWELL = 5.0


class _Logged(dict[str, Any]):
    """An event with what a task has logged, which counts as long as it waits."""


class Flusher:
    """Buffer and thread of one process; `source` names its worker in every batch, so that a successor is told apart.

    `beats` tells the main process, which alone may say that the worker lives. `limit` is how many entries the event log
    may have.
    """

    def __init__(self, app: Celery, source: str, *, beats: bool, limit: int) -> None:
        self.pid = os.getpid()
        self.dropped = 0
        self._logged = 0
        self._app = app
        self._worker = ""
        self._beat = _BEAT if beats else None
        self._buffer: deque[tuple[dict[str, Any], bool] | Telling] = deque()
        self._some, self._hurry = threading.Event(), threading.Event()
        self._idle = threading.Condition()
        self._writing = self._away = self._leaving = self._is_new = self._said_full = False
        self._series = Series(source)
        self._backlog = Backlog(limit)
        self._monitors = Monitors(app)
        self._connection: Connection | None = None
        self._log: EventLogWriter | None = None
        self._thread = threading.Thread(target=self._run, name="jobrunner-flusher", daemon=True)
        self._thread.start()
        signals.worker_shutdown.connect(self._farewell)
        signals.worker_process_shutdown.connect(self._farewell)  # a pool's processes end without `atexit`
        atexit.register(self._farewell)

    def add(self, event: dict[str, Any], *, monitored: bool) -> None:
        """Buffer an event; with the buffer full it is dropped and counted. Never blocks."""
        self._worker = event["hostname"]
        if self._is_full:
            self._drop()
            self._say_full()
            return
        self._buffer.append((event, monitored))
        if not self._some.is_set():
            self._some.set()

    def offer(self, event: dict[str, Any]) -> bool:
        """Buffer an event with what a task has logged; False if too much of that waits. Monitors do not get it."""
        with self._idle:
            if self._logged > _LOGGED or self._is_full:
                return False
            self._logged += len(event["text"])
        self.add(_Logged(event), monitored=False)
        return True

    def tell(self, events: Sequence[dict[str, Any]], timeout: float) -> None:
        """Write events now, behind all that was told before, and return once the broker has them: all, or none.

        They are not shown to monitors. After an error they are not written any more; only if the connection broke while
        they were written, and the broker did not come back in time, may they be in the log all the same.

        Raises:
            RefusedError: they cannot be written as one batch.
            EventLogFullError: the log has had no room for them for `timeout` seconds.
            UnreachableError: the broker was away for as long.
        """
        encoded = [one for one in (encode(event, monitored=False) for event in events) if one is not None]
        if len(encoded) < len(events) or sum(len(one.text) for one in encoded) > LONGEST:
            msg = f"What a task tells is no JSON, or is longer than {LONGEST} characters."
            raise RefusedError(msg, "Tell it in parts.")
        self._worker = events[0]["hostname"]
        telling = Telling(encoded)
        self._buffer.append(telling)
        self._wake()
        if telling.wait(timeout):
            return
        if self._backlog.is_stuck:
            msg = "The event log is full, because no tracker reads it."
            raise EventLogFullError(msg, "Start a tracker, `jobrunner tracker`.")
        msg = f"The event log could not be written for {timeout:g} s: the broker is away."
        raise UnreachableError(msg, "Try again once it is back.")

    def _wake(self) -> None:
        """Have the thread write at once."""
        self._hurry.set()
        self._some.set()

    def introduce(self, worker: str) -> None:
        """Say that a worker lives which has said nothing yet: one without heartbeats may have nothing to say."""
        self._worker, self._is_new = worker, True
        self._some.set()

    def drain(self, timeout: float) -> bool:
        """Have everything written; False if that took longer than `timeout` seconds, or cannot be now."""
        if not self._is_empty:
            self._wake()
        with self._idle:
            self._idle.wait_for(lambda: self._is_empty or self._is_stuck, timeout)
            return self._is_empty

    @property
    def _is_empty(self) -> bool:
        return not (self._buffer or self._writing or self._backlog.events)

    @property
    def _is_full(self) -> bool:
        return len(self._buffer) + self._backlog.events >= _CAPACITY

    @property
    def _is_stuck(self) -> bool:
        """Whether it makes no sense to wait, unless this is the end."""
        return (self._away or self._backlog.is_stuck) and not self._leaving

    def _drop(self) -> None:
        with self._idle:  # several threads may have something to tell
            self.dropped += 1

    def _say_full(self) -> None:
        if not self._said_full:
            self._said_full = True
            msg = "%d events wait: what comes on top is dropped."
            logger.error(msg, _CAPACITY, extra={"action": "events-dropped"})

    def _farewell(self, **_: Any) -> None:
        """Write what is left, also into a log that is full: nobody else has it."""
        if os.getpid() != self.pid:
            return
        self._leaving = True
        self._some.set()
        if not self.drain(_FAREWELL):
            left = len(self._buffer) + self._backlog.events
            logger.error("%d events were not written: the broker is away.", left)
        self._leaving = False  # in a test, say, the process goes on
        if self.dropped:
            logger.error("%d events were dropped: too many waited, or they could not be written.", self.dropped)

    # ---- the thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        due = 0.0
        while True:
            told = self._some.wait(_PATIENCE if self._backlog.events else self._beat)
            rest = due - time.monotonic()
            if told and rest > 0 and len(self._buffer) < _LENGTH:
                self._hurry.wait(rest)
            hurried = self._hurry.is_set()
            self._some.clear()
            self._hurry.clear()
            self._writing = True  # before anything leaves the buffer, for `drain`
            beat = self._beat is not None and (self._is_new or not told)
            self._is_new = False
            if self._buffer and isinstance(first := self._buffer[0], Telling):
                self._buffer.popleft()
                length = self._deliver_now(first)
            else:
                length = self._deliver_next(beat=beat)
            with self._idle:
                self._writing = False
                self._idle.notify_all()
            due = time.monotonic() + min(_AGE, length * _REST)
            if self._buffer:
                self._wake() if hurried else self._some.set()

    def _deliver_now(self, telling: Telling) -> int:
        """Write what somebody waits for, unless nobody does any more."""
        if not telling.withdrawn:
            batch = self._series.batch(self._worker, telling.events, self.dropped)
            self._backlog.add(batch, len(telling.events), telling)
        self._write()
        return len(telling.events)

    def _deliver_next(self, *, beat: bool) -> int:
        """Write the next batch, as far as to what somebody waits for; return how many events left the buffer for it.

        One batch only: to go on while there is anything would make batches dwindle to what comes during a write.
        """
        batch: list[EncodedEvent | None] = []
        while self._buffer and len(batch) < _LENGTH and not isinstance(first := self._buffer[0], Telling):
            self._buffer.popleft()
            batch.append(self._encoded(*first))
        self._deliver([one for one in batch if one is not None], beat=beat)
        return len(batch)

    def _encoded(self, event: dict[str, Any], monitored: bool) -> EncodedEvent | None:
        encoded = encode(event, monitored)
        if isinstance(event, _Logged):
            with self._idle:
                self._logged -= len(event["text"])
        if encoded is None:
            self._drop()
        return encoded

    def _deliver(self, events: Sequence[EncodedEvent], *, beat: bool) -> None:
        """Write events, or if `beat` that there are none, and tell monitors, who have them even if the log is full."""
        room = not self._backlog.is_long
        written = [event for event in events if room or not event.expendable]
        for part in fitting(written) if written else [[]] * (beat and room):
            self._backlog.add(self._series.batch(self._worker, part, self.dropped), len(part))
        connection = self._write()
        if not self._monitors.tell(connection, events):
            self._disconnect()

    def _write(self) -> "Connection":
        """Write what there is room for, trying until the broker takes it; the tracker does not mind a batch twice."""
        pause = _FIRST_RETRY
        while True:
            try:
                connection, log = self._connected()
                self._backlog.write(log, whatever=self._leaving)
            except Exception:  # whatever ails the broker: the thread must live, and the events wait
                if pause == _FIRST_RETRY:
                    logger.warning("Events wait for the broker.", exc_info=True, extra={"action": "events-waiting"})
                self._note_away(True)
                self._disconnect()
                time.sleep(pause)
                pause = min(2 * pause, _LAST_RETRY)
            else:
                self._note_away(False)
                return connection

    def _connected(self) -> tuple["Connection", EventLogWriter]:
        if self._connection is None:
            self._connection = self._app.connection_for_write(transport_options=TIMEOUTS)
        if self._log is None:
            # One try per host: kombu would sleep longer and longer between its own.
            self._connection.ensure_connection(max_retries=len(self._connection.alt))
            self._log = open_writer(self._connection)
        return self._connection, self._log

    def _note_away(self, away: bool) -> None:
        if away is not self._away:
            with self._idle:
                self._away = away
                self._idle.notify_all()

    def _disconnect(self) -> None:
        connection, self._connection, self._log = self._connection, None, None
        if connection is not None:
            try:
                connection.close()
            except Exception:  # a broken connection may break once more while it is closed
                logger.debug("Closing a broken connection failed.", exc_info=True)
