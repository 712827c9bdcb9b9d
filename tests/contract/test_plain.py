"""The plain receiver on each broker: it hears what Celery's own dispatcher tells, also when the broker was away."""

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from kombu.connection import Connection

from tests.servers.redis import Redis
from tests.waiting import PATIENCE, until
from tracker import plain
from tracker.plain import PlainReceiver

if TYPE_CHECKING:
    from tests.servers.rabbitmq import RabbitMQ


@pytest.fixture(params=["redis", "rabbitmq"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the URL of an empty broker."""
    if request.param == "redis":
        yield request.getfixturevalue("redis").url
        return
    rabbitmq: RabbitMQ = request.getfixturevalue("rabbitmq")
    vhost = rabbitmq.new_vhost()
    yield vhost
    rabbitmq.delete_vhost(vhost)


@pytest.fixture
def app() -> Iterator[Celery]:
    made = Celery("stock", set_as_current=False)
    yield made
    made.close()


def tell(app: Celery, **fields: Any) -> None:
    """Tell an event as a worker of Celery does."""
    with app.connection_for_write() as connection, app.events.Dispatcher(connection, hostname="w1@host") as dispatcher:
        dispatcher.send("worker-heartbeat", **fields)


def heard(receiver: PlainReceiver) -> list[Any]:
    return [event["number"] for entry in receiver.take(100) for event in entry.events]


def listen(app: Celery, receiver: PlainReceiver) -> None:
    """Wait until something that is told is heard."""
    receiver.start()
    until(lambda: (tell(app, number=0), heard(receiver))[1], timeout=PATIENCE, what="the receiver to listen")


def test_what_is_told_is_heard_in_order_until_it_is_stopped(url: str, app: Celery) -> None:
    app.conf.broker_url = url
    receiver = PlainReceiver(app)
    listen(app, receiver)
    for number in range(1, 6):
        tell(app, number=number)
    found: list[Any] = []
    until(lambda: found.extend(heard(receiver)) or 5 in found, timeout=PATIENCE, what="the last event")
    assert [number for number in found if number] == [1, 2, 3, 4, 5]
    tell(app, number=6)
    receiver.stop()
    assert heard(receiver) == [], "it is for another tracker"
    listen(app, receiver)
    receiver.stop()


def test_it_hears_again_when_the_broker_is_back(redis: Redis, app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "_RETRY", 0.05)
    app.conf.broker_url = redis.url
    receiver = PlainReceiver(app)
    listen(app, receiver)
    redis.kill()
    until(lambda: receiver._away, timeout=PATIENCE, what="the receiver to notice")
    redis.start()
    until(lambda: not receiver._away, timeout=PATIENCE, what="the receiver to listen again")
    listen(app, receiver)
    receiver.stop()


def test_a_broker_that_goes_while_workers_are_asked_is_not_waited_for(
    redis: Redis, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.conf.broker_url = redis.url
    receiver = PlainReceiver(app)
    receiver._broadcast("heartbeat")
    reach = Connection.ensure_connection

    def reach_and_lose(connection: Any, **options: Any) -> None:
        reach(connection, **options)
        redis.kill()

    monkeypatch.setattr(Connection, "ensure_connection", reach_and_lose)
    asking = threading.Thread(target=receiver._broadcast, args=["heartbeat"], daemon=True)
    asking.start()
    asking.join(PATIENCE)
    assert not asking.is_alive()
