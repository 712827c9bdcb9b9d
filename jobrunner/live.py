"""The live stream of events, as every monitor of Celery sees it: whatever is told while one listens, and no more.

What must not be missed is in the event log and the database; this is for watching.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from celery import Celery
from celery.events import EventReceiver
from kombu.connection import Connection
from kombu.exceptions import OperationalError
from kombu.messaging import Consumer

from jobrunner.errors import UnreachableError
from jobrunner.masking import mask_text

#: Seconds between two tries to reach a broker that went away, and between two looks at a connection that is quiet.
_RETRY = 1.0
_LOOK = 1.0
#: Seconds that the first look may take, which is when Redis is asked for events.
_AT_ONCE = 0.05

_Event = dict[str, Any]


class _Receiver(EventReceiver):
    """Celery's receiver, without what it does to times: it moves them by the difference of two time zones."""

    def event_from_message(self, body: Any, **_: Any) -> tuple[str, _Event]:
        """Return an event with its type; of what is none, nothing."""
        try:
            return super().event_from_message(body, localize=False)
        except (AttributeError, KeyError, TypeError):
            return "", {}


def stream(app: Celery, say: Callable[[str], object]) -> Iterator[_Event]:
    """Yield events as they come, for ever; `say` hears when that begins, and when the broker goes and comes.

    Raises:
        UnreachableError: the broker is away from the beginning. Later on it is waited for.
    """
    connection: Connection = app.connection_for_read()
    errors = (*connection.connection_errors, *connection.channel_errors, OperationalError)
    listened = waiting = False
    while True:
        try:
            for event in _listen(app, connection):
                if event is None:
                    say("The broker is back." if waiting else "Listening; Ctrl-C ends it.")
                    listened, waiting = True, False
                else:
                    yield event
        except errors as error:
            reason = mask_text(str(error))
            if not listened:
                msg = f"The broker {connection.as_uri()} cannot be reached ({reason})."
                raise UnreachableError(
                    msg, "`jobrunner config` shows which one it is; `jobrunner up` has its own."
                ) from None
            if not waiting:
                say(f"The broker has gone ({reason}): what is told until it is back is not shown.")
            waiting = True
            time.sleep(_RETRY)
        finally:
            connection.close()


def _listen(app: Celery, connection: Connection) -> Iterator[_Event | None]:
    """Connect, yield None once everything told from now on will come, and then events, until the broker goes."""
    told: deque[_Event] = deque()
    # One try per host: kombu's own patience has no end.
    connection.ensure_connection(max_retries=len(connection.alt))
    channel = connection.default_channel
    receiver = _Receiver(channel, handlers={"*": told.append}, app=app)
    make = partial(Consumer, channel, on_decode_error=receiver.on_decode_error)
    with receiver.get_consumers(make, channel)[0]:
        _drain(connection, _AT_ONCE)
        yield None
        while True:
            while told:
                if event := told.popleft():
                    yield event
            _drain(connection, _LOOK)


def _drain(connection: Connection, seconds: float) -> None:
    try:
        connection.drain_events(timeout=seconds)
    except TimeoutError:
        connection.heartbeat_check()
