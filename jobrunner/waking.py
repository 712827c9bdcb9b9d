"""Waking the tracker, so that it need not look so often for what clients have written."""

import contextlib

from celery import Celery

from jobrunner.event_log import open_writer

#: Nobody who submits or orders waits long for a broker that is away: seconds, and no second try.
_HASTY = {
    "socket_connect_timeout": 1,
    "socket_timeout": 1,
    "read_timeout": 1,
    "write_timeout": 1,
    "max_retries": 0,
}


def wake_tracker(app: Celery) -> None:
    """Drop an empty entry into the event log; without it the tracker looks a moment later by itself.

    Never raises: what was written is safe in the database, and whatever ails the broker is not for the one who submits
    or orders.
    """
    options = {**app.conf.broker_transport_options, **_HASTY}
    with (
        contextlib.suppress(Exception),
        app.connection_for_write(connect_timeout=1, transport_options=options) as connection,
    ):
        open_writer(connection).wake()
