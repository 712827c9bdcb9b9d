"""A step of the worker's start that Celery leaves out when nobody is to see its events."""

from typing import Any

from celery import bootsteps
from celery.worker.consumer.tasks import Tasks


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
