"""Which event log an app has: that of its broker."""

from celery import Celery

from jobrunner.servers import TIMEOUTS
from tracker.eventlog.entries import EventLog
from tracker.eventlog.rabbitmq_queue import HEARTBEAT, RabbitMQQueue
from tracker.eventlog.redis_stream import RedisStream


def open_log(app: Celery) -> EventLog:
    """Return a reader of the app's event log, over a connection of its own that is made when it is first read."""
    connection = app.connection_for_read(heartbeat=HEARTBEAT, transport_options=TIMEOUTS)
    return RabbitMQQueue(connection) if connection.transport.driver_type == "amqp" else RedisStream(connection)
