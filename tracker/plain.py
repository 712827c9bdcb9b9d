"""The plain receiver: events of workers without jobrunner, read from Celery's own exchange, as every monitor does.

It is *lossy*. The broker keeps these events for nobody: what is told while no tracker leads, while the broker is away
or more than a buffer is behind, is gone. What workers with jobrunner publish there is a copy of what their event log
has; it is marked, and passed over unread.
"""

import json
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from celery import Celery
from celery.events import EventReceiver
from kombu.messaging import Consumer, Producer

from jobrunner.masking import mask_text
from jobrunner.servers import TIMEOUTS
from jobrunner.wire import COPY
from tracker.eventlog.entries import Entry, plain_entry

logger = logging.getLogger(__name__)

#: Events that wait for the tracker; what comes on top is dropped and counted.
_CAPACITY = 100_000
#: Seconds between two tries to reach the broker, and between two looks whether to stop.
_RETRY = 1.0
_LOOK = 0.2
#: Seconds that a thread which is to stop is waited for; one that waits for a broker takes longer, and hears no more.
_FAREWELL = 1.0
#: Seconds until a loss is told again.
_QUIET = 60.0
#: How often a worker that appears is asked for its events, each time at a heartbeat: it says that it is there before it
#: can hear anything.
_ASKS = 3
#: Workers of which it is remembered that they were asked.
_WORKERS = 10_000
#: Seconds after which RabbitMQ, and we, take a connection on which nothing comes for broken.
_HEARTBEAT = 10.0


class PlainReceiver:
    """Collects events in a thread with a connection of its own, from `start` to `stop`, for `take` to fetch.

    A worker that sends no task events, being started without `-E`, is asked for them when it is heard.
    """

    def __init__(self, app: Celery) -> None:
        self.dropped = 0
        self._app = app
        self._lock = threading.Lock()
        self._buffer: deque[Entry] = deque()
        self._waiting = 0
        self._told_dropped, self._told_at = 0, -_QUIET
        self._away = False
        self._asked: Counter[str] = Counter()
        self._to_ask: set[str] = set()
        self._stop = threading.Event()  # of the thread that runs now; each has its own
        self._thread: threading.Thread | None = None

    # ---- for the tracker -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Listen from now on."""
        if self._thread is None:
            self._stop = threading.Event()
            self._thread = threading.Thread(
                target=self._run, args=(self._stop,), name="jobrunner-plain-receiver", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Stop listening, and forget what was not fetched: another tracker hears it now."""
        if self._thread is not None:
            self._stop.set()
            self._thread.join(_FAREWELL)
            self._thread = None
            with self._lock:
                self._buffer.clear()
                self._waiting = 0

    def take(self, number: int) -> list[Entry]:
        """Return what has come, as messages came in: about so many events."""
        taken = []
        with self._lock:
            while self._buffer and number > 0:
                taken.append(self._buffer.popleft())
                number -= _size(taken[-1])
                self._waiting -= _size(taken[-1])
        self._tell_dropped(time.monotonic())
        return taken

    def _tell_dropped(self, moment: float) -> None:
        if self.dropped > self._told_dropped and moment - self._told_at > _QUIET:
            logger.warning(
                "%d events of workers without jobrunner were dropped: more than %d waited.",
                self.dropped - self._told_dropped,
                _CAPACITY,
                extra={"action": "plain-events-dropped"},
            )
            self._told_dropped, self._told_at = self.dropped, moment

    # ---- the thread ----------------------------------------------------------------------------------------

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self._listen(stop)
            except Exception as error:  # noqa: BLE001  whatever ails the broker: the thread must live
                if not self._away:
                    reason = mask_text(str(error) or type(error).__name__)
                    logger.warning("Plain events are missed: %s", reason, extra={"action": "plain-events-missed"})
                self._away = True
                stop.wait(_RETRY)

    def _listen(self, stop: threading.Event) -> None:
        with self._app.connection_for_read(heartbeat=_HEARTBEAT, transport_options=TIMEOUTS) as connection:
            # One try per host: kombu's own patience has no end.
            connection.ensure_connection(max_retries=len(connection.alt))
            channel = connection.default_channel
            queue = EventReceiver(channel, app=self._app).queue
            with Consumer(channel, queues=[queue], on_message=self._receive, no_ack=True):
                logger.info("Listening for plain events.", extra={"action": "plain-events-heard"})
                self._away = False
                self._asked.clear()
                self._broadcast("heartbeat")  # whoever lives says so at once
                while not stop.is_set():
                    with suppress(TimeoutError):
                        connection.drain_events(timeout=_LOOK)
                    connection.heartbeat_check()
                    self._ask()

    def _receive(self, message: Any) -> None:
        if COPY in (message.headers or {}):
            return
        entry = plain_entry(_text(message))
        self._see_workers(entry.events)
        with self._lock:
            if self._waiting + _size(entry) > _CAPACITY:
                self.dropped += _size(entry)
            else:
                self._buffer.append(entry)
                self._waiting += _size(entry)

    def _see_workers(self, events: Collection[Any]) -> None:
        for event in events:
            name, type_ = (event.get("hostname"), event.get("type")) if isinstance(event, dict) else (None, None)
            if not isinstance(name, str) or not isinstance(type_, str):
                continue
            if type_ == "worker-heartbeat" and self._asked[name] < _ASKS:
                self._to_ask.add(name)
            elif type_ in {"worker-online", "worker-offline"}:
                del self._asked[name]

    def _ask(self) -> None:
        """Ask those that were heard anew for their events."""
        names, self._to_ask = self._to_ask, set()
        if names:
            self._broadcast("enable_events", sorted(names))
            if len(self._asked) > _WORKERS:
                self._asked.clear()
            self._asked.update(names)

    def _broadcast(self, command: str, destination: list[str] | None = None) -> None:
        """Tell workers something; over a connection of its own, because RabbitMQ may block one that publishes.

        Celery's own broadcast tries until the broker is back: this thread would not notice that it has gone.
        """
        mailbox = self._app.control.mailbox
        told: dict[str, Any] = {
            "method": command,
            "arguments": {},
            "destination": destination,
            "pattern": None,
            "matcher": None,
        }
        try:
            with self._app.connection_for_write(transport_options=TIMEOUTS) as connection:
                connection.ensure_connection(max_retries=len(connection.alt))
                Producer(connection, mailbox.exchange, serializer=mailbox.serializer, auto_declare=False).publish(
                    told,
                    declare=[mailbox.exchange],
                    headers={"clock": self._app.clock.forward(), "expires": 0},
                    retry=False,
                )
        except Exception as error:  # noqa: BLE001  the broker, or a name that it cannot write
            logger.debug("Ignored: %s", mask_text(str(error)))


def _size(entry: Entry) -> int:
    return len(entry.events) + len(entry.malformed)


def _text(message: Any) -> Any:
    """Return a message as JSON has it, whatever serializer its worker uses; what nobody can read as it is."""
    if message.content_type == "application/json":
        return message.body
    try:
        return json.dumps(message.decode(), default=str)
    except Exception:  # noqa: BLE001  foreign data: it is rejected as no JSON, and told
        return message.body
