"""Steps of the worker's start: somebody must hear its events, and it must know all orders before it takes a task."""

from typing import Any

from celery import bootsteps
from celery.worker import state
from celery.worker.consumer.heart import Heart
from celery.worker.consumer.tasks import Tasks

from workers.slots import give_back_in_a_loop
from workers.snapshot import Reader

#: Seconds between two looks whether a worker that waits for its result backend is to end.
_LOOK = 0.2


class Telling(bootsteps.StartStopStep):
    """Gives the consumer a dispatcher if it has none: with task events, heartbeats and gossip all switched off.

    The log hears of its tasks all the same, and monitors still hear nothing.
    """

    requires = (Tasks,)

    def start(self, c: Any) -> None:
        """Make the dispatcher, and have the tasks' strategies use it; nothing is consumed before the last step."""
        if c.event_dispatcher is None:
            c.event_dispatcher = c.app.events.Dispatcher(hostname=c.hostname, enabled=False)
            c.update_strategies()


class Gating(bootsteps.StartStopStep):
    """Keeps the gate of a worker informed; the worker consumes when it has read the snapshot and said so.

    The order of it leaves no gap: a snapshot stored after the acknowledgement is waited for by the tracker, which then
    knows this worker; one stored before is read here.
    """

    requires = (Telling, Heart)  # which says that the worker is there

    def __init__(self, c: Any, **options: Any) -> None:
        super().__init__(c, **options)
        self._reader: Reader | None = None

    def start(self, c: Any) -> None:
        """Read, acknowledge, read once more; also when the broker was lost and found."""
        reader = self._reader
        if reader is None:
            reader = self._reader = Reader(c.app, c.pool, c.hostname)
            c.app.jobrunner_gate = reader.gate
            give_back_in_a_loop(c.controller)
            reader.start()
        while not reader.answered.wait(_LOOK):
            state.maybe_shutdown()
        reader.gate.later = c.timer.call_after if reader.gate.forks and c.hub is not None else None
        reader.introduce()
        reader.refresh()
