"""The one thread of a worker process that writes events: into the event log, and to Celery's exchange for monitors."""

import atexit
import json
import logging
import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from celery import Celery, signals
from celery.events.event import get_exchange
from kombu.messaging import Producer

from jobrunner.event_log import EventLogWriter, WrittenBatch, open_writer
from jobrunner.servers import TIMEOUTS
from jobrunner.wire import VERSION

if TYPE_CHECKING:
    from kombu.connection import Connection

logger = logging.getLogger(__name__)

#: A batch is written when it is this long (events), or when the rest after the last one is over: so many seconds for
#: each event of that, at most `_AGE`. Alone, an event is out at once; under load a write costs the worker's loop the
#: same half a millisecond and more, for one event as for fifty.
_LENGTH = 200
_REST = 0.005
_AGE = 0.05
#: Events kept while the broker is away; what comes on top is dropped and counted.
_CAPACITY = 100_000
#: Seconds between two tries to reach a broker that is away: from the first, doubling, to the last.
_FIRST_RETRY = 0.1
_LAST_RETRY = 2.0
#: Seconds for which monitors get nothing after their exchange took nothing.
_SULK = 10
#: Seconds of silence after which a worker's main process says that it lives: a pool that blocks its loop, or a worker
#: without heartbeats, is not lost.
_BEAT = 5.0
#: Seconds that the end of a process waits for the last events.
_FAREWELL = 5.0

_Buffered = tuple[dict[str, Any], bool]


class Flusher:
    """Buffer and thread of one process; `source` names its worker in every batch, so that a successor is told apart.

    `beats` tells the main process, which alone may say that the worker lives.
    """

    def __init__(self, app: Celery, source: str, *, beats: bool) -> None:
        self.pid = os.getpid()
        self.source = source
        self._worker = ""
        self._beat = _BEAT if beats else None
        self.dropped = 0
        self._app = app
        self._buffer: deque[_Buffered] = deque()
        self._some = threading.Event()
        self._writing = False
        self._connection: Connection | None = None
        self._log: EventLogWriter | None = None
        self._monitored_from = 0.0
        self._thread = threading.Thread(target=self._run, name="jobrunner-flusher", daemon=True)
        self._thread.start()
        signals.worker_shutdown.connect(self._farewell)
        atexit.register(self._farewell)

    def add(self, event: dict[str, Any], *, monitored: bool) -> None:
        """Buffer an event; with the buffer full it is dropped and counted. Never blocks."""
        self._worker = event["hostname"]
        if len(self._buffer) >= _CAPACITY:
            self.dropped += 1
            return
        self._buffer.append((event, monitored))
        if not self._some.is_set():
            self._some.set()

    def drain(self, timeout: float) -> bool:
        """Wait until everything is written; False if that took longer than `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self._buffer or self._writing:
            if time.monotonic() > deadline:
                return False
            time.sleep(_AGE / 4)
        return True

    def _farewell(self, **_: Any) -> None:
        if os.getpid() == self.pid and not self.drain(_FAREWELL):
            logger.error("%d events could not be written: the broker is away.", len(self._buffer))
        if os.getpid() == self.pid and self.dropped:
            logger.error("%d events were dropped: more than %d waited.", self.dropped, _CAPACITY)

    # ---- the thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        due = 0.0
        while True:
            if not self._some.wait(self._beat):
                self._deliver([])
                continue
            rest = due - time.monotonic()
            if rest > 0 and len(self._buffer) < _LENGTH:
                time.sleep(rest)
            self._some.clear()
            self._writing = True  # before anything leaves the buffer, for `drain`
            # One batch only. To go on while there is anything would make batches dwindle to what comes during a write.
            batch = [self._buffer.popleft() for _ in range(min(_LENGTH, len(self._buffer)))]
            self._deliver([one for one in map(_plain, batch) if one is not None])
            self._writing = False
            due = time.monotonic() + min(_AGE, len(batch) * _REST)
            if self._buffer:
                self._some.set()

    def _deliver(self, batch: list[_Buffered]) -> None:
        """Write a batch, trying until the broker takes it; the tracker does not mind a batch twice."""
        written = WrittenBatch(
            v=VERSION, source=self.source, worker=self._worker, events=json.dumps([event for event, _ in batch])
        )
        monitored = [event for event, is_monitored in batch if is_monitored]
        pause = _FIRST_RETRY
        while True:
            try:
                self._append(written)
            except Exception:  # whatever ails the broker: the thread must live, and the events wait
                if pause == _FIRST_RETRY:
                    logger.warning("Events wait for the broker.", exc_info=True, extra={"action": "events-waiting"})
                self._disconnect()
                time.sleep(pause)
                pause = min(2 * pause, _LAST_RETRY)
            else:
                break
        self._tell_monitors(monitored)

    def _append(self, batch: WrittenBatch) -> None:
        if self._connection is None:
            self._connection = self._app.connection_for_write(transport_options=TIMEOUTS)
        if self._log is None:
            # One try per host: kombu would sleep longer and longer between its own.
            self._connection.ensure_connection(max_retries=len(self._connection.alt))
            self._log = open_writer(self._connection)
        self._log.append(batch)

    def _tell_monitors(self, events: list[dict[str, Any]]) -> None:
        """Copy events for monitors, once: they are used to losses, and the log must not be held up by them."""
        if not events or time.monotonic() < self._monitored_from:
            return
        try:
            self._copy(events)
        except Exception:  # whatever ails their exchange
            logger.warning("Monitors miss events for %d s.", _SULK, exc_info=True, extra={"action": "monitors-missing"})
            self._monitored_from = time.monotonic() + _SULK
            self._disconnect()

    def _copy(self, events: list[dict[str, Any]]) -> None:
        """Publish to Celery's exchange, task events together, as its own dispatcher does."""
        assert self._connection is not None  # noqa: S101  the log has just been written to
        producer = Producer(self._connection.default_channel, auto_declare=False)
        exchange = get_exchange(self._connection, name=self._app.conf.event_exchange)
        tasks = [event for event in events if event["type"].startswith("task-")]
        others = [(event["type"].replace("-", "."), event) for event in events if not event["type"].startswith("task-")]
        for routing_key, body in [("task.multi", tasks)] * bool(tasks) + others:
            producer.publish(
                body,
                exchange=exchange.name,
                routing_key=routing_key,
                declare=[exchange],
                serializer=self._app.conf.event_serializer,
                headers={"hostname": (body[0] if isinstance(body, list) else body)["hostname"]},
                delivery_mode=1,
            )

    def _disconnect(self) -> None:
        connection, self._connection, self._log = self._connection, None, None
        if connection is not None:
            try:
                connection.close()
            except Exception:  # a broken connection may break once more while it is closed
                logger.debug("Closing a broken connection failed.", exc_info=True)


def _plain(buffered: _Buffered) -> _Buffered | None:
    """Return an event as JSON has it; None, and told, for one that cannot be: it must not hold up the others."""
    event, monitored = buffered
    try:
        return json.loads(json.dumps(event, default=str)), monitored
    except (TypeError, ValueError, RecursionError):
        logger.exception("An event %s was left out.", event.get("type"), extra={"action": "event-rejected"})
        return None
