"""The events of a worker: collected by Celery's dispatcher, written in batches by one thread of our own.

Stock Celery flushes its buffer on every pass of the worker's loop and loses what nobody is listening to. Here the loop
only appends to a buffer; a thread with a connection of its own writes batches into the event log, which the tracker
reads when it can, and publishes the same events to Celery's exchange, so that Flower and every other monitor keep
working.
"""

import logging
import os
import uuid
from typing import Any

from celery import signals
from celery.app import events
from celery.events.dispatcher import EventDispatcher
from celery.events.event import Event, group_from
from celery.utils.time import utcoffset

from jobrunner.ids import is_uuid7
from workers.flusher import Flusher
from workers.stamp import stamp_runs

logger = logging.getLogger(__name__)

#: Seconds that a task's end waits until the log knows what the task has sent.
_PATIENCE = 5.0


class Events(events.Events):
    """Celery's `app.events` with our dispatcher; keeps the one flusher of this process.

    `source` names the worker, its pool processes included: they inherit it when they are forked.
    """

    dispatcher_cls = "workers.events:Dispatcher"

    def __init__(self, app: Any = None) -> None:
        super().__init__(app)
        self.source = str(uuid.uuid4())
        self._main = os.getpid()
        self._flusher: Flusher | None = None
        self.worker = ""
        #: Whether the app has monitors told what a worker sends; None anywhere but in a worker.
        self.shows_sent: bool | None = None
        signals.worker_ready.connect(self._on_ready)

    def _on_ready(self, sender: Any, **_: Any) -> None:
        if sender.app is self.app:
            self.flusher.introduce(sender.hostname)

    def follow_sent(self, worker: str) -> None:
        """Let the log know, from now on and in this worker, what tasks of jobs send themselves; and stamp it."""
        self.worker, self.shows_sent = worker, bool(self.app.conf.task_send_sent_event)
        self.app.conf.task_send_sent_event = True  # so that Celery makes the event
        stamp_runs()

    def tell_first(self, event: dict[str, Any], *, monitored: bool) -> None:
        """Tell something of the task that runs, and in a pool's process have it wait for the log at its end.

        The main process, which tells the end, need not: it writes in the order in which things were told.
        """
        self.flusher.add(event, monitored=monitored)
        if not self.is_main:
            signals.task_postrun.connect(self._on_postrun)  # from task to task: most tell nothing, and pay nothing

    def _on_postrun(self, sender: Any, **_: Any) -> None:
        signals.task_postrun.disconnect(self._on_postrun)
        if not self.flusher.drain(_PATIENCE):
            msg = "What task %s has told will be known late: the event log could not be written."
            logger.warning(msg, sender.request.id, extra={"action": "told-late", "task": sender.request.id})

    @property
    def is_main(self) -> bool:
        """Whether this is the process that made the app, as a worker's is, and none of its pool."""
        return os.getpid() == self._main

    @property
    def flusher(self) -> Flusher:
        """The flusher of this process; a child of a fork gets its own."""
        if self._flusher is None or self._flusher.pid != os.getpid():
            limit = self.app.jobrunner.settings.event_log_limit
            self._flusher = Flusher(self.app, self.source, beats=self.is_main, limit=limit)
        return self._flusher


class Dispatcher(EventDispatcher):
    """Never blocks and never raises into the worker's loop: `send` appends to the flusher's buffer.

    Always enabled, because Celery asks that before it makes an event; whether monitors are to see any is kept apart.
    """

    def __init__(
        self, connection: Any = None, hostname: str | None = None, enabled: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        self._monitored = enabled
        super().__init__(connection, hostname, True, *args, **kwargs)

    def send(self, type: str, blind: bool = False, Event: Any = Event, **fields: Any) -> None:  # noqa: A002, N803
        """Hand an event to the flusher. Which groups are enabled decides about the copy for monitors only."""
        fields.pop("retry", None), fields.pop("retry_policy", None)
        clock = None if blind else self.clock.forward()
        event = Event(type, hostname=self.hostname, utcoffset=utcoffset(), pid=self.pid, clock=clock, **fields)
        monitored = self._monitored and (not self.groups or group_from(type) in self.groups)
        self.app.events.flusher.add(event, monitored=monitored)

    def publish(self, type: str, fields: dict[str, Any], producer: Any, **options: Any) -> None:  # noqa: A002
        """Publish `task-sent`, which is all that Celery publishes this way; in a worker, put a job's into the log.

        That must be written however the app is configured: the job is to wait for this task.
        """
        events = self.app.events
        if events.shows_sent is not None and self._is_news(fields):
            fields |= {"hostname": events.worker, "utcoffset": utcoffset(), "pid": os.getpid()}
            events.tell_first(Event(type, clock=self.clock.forward(), **fields), monitored=bool(events.shows_sent))
        elif events.shows_sent is not False:
            super().publish(type, fields, producer, **options)

    def _is_news(self, fields: dict[str, Any]) -> bool:
        """Whether a task of a job was sent, and not by itself, as a retry is."""
        sender = self.app.current_worker_task
        return is_uuid7(fields.get("root_id")) and not (sender and sender.request.id == fields["uuid"])

    def flush(self, errors: bool = True, groups: bool = True) -> None:
        """Nothing to do: the flusher knows when."""

    def disable(self) -> None:
        """Stay enabled: tasks that end while the worker stops, or reconnects, still have something to tell."""
        for callback in self.on_disabled:
            callback()

    def close(self) -> None:
        """Wait a moment for what was buffered, if it can be written; the flusher goes on with what could not be yet."""
        self.app.events.flusher.drain(timeout=1.0)
