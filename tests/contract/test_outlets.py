"""What every outlet keeps to: what `send` has returned from is on the broker, and what is not is told."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from kombu import Connection, Queue

from tests.servers.redis import Redis
from tracker.dispatch import Dispatch
from tracker.loop import _BROKER_ERRORS
from tracker.outlets import Sending, open_outlet

if TYPE_CHECKING:
    from tests.servers.rabbitmq import RabbitMQ

REDIS, RABBITMQ = "redis", "rabbitmq"


@pytest.fixture(params=[REDIS, RABBITMQ])
def connection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connection]:
    """Return a connection to an empty broker."""
    if request.param == REDIS:
        server = Redis(tmp_path).start()
        with Connection(server.url) as made:
            yield made.ensure_connection(max_retries=3)
        server.close()
        return
    rabbitmq: RabbitMQ = request.getfixturevalue("rabbitmq")
    url = rabbitmq.new_vhost()
    with Connection(url) as made:
        yield made.ensure_connection(max_retries=3)
    rabbitmq.delete_vhost(url)


rabbitmq_only = pytest.mark.parametrize("connection", [RABBITMQ], indirect=True)


def sending(number: int = 1, queue: str = "work", **known: Any) -> Sending:
    """A message for a queue, published as Celery does: straight to it."""
    return Sending(
        **{
            "celery_id": f"task-{number}",
            "queue": queue,
            "declaration": {},
            "body": b"[]",
            "headers": {"id": f"task-{number}"},
            "properties": {
                "exchange": "",
                "routing_key": queue,
                "delivery_mode": 2,
                "content_type": "application/json",
                "content_encoding": "utf-8",
            },
            **known,
        }
    )


def ids_in(connection: Connection, queue: str = "work") -> list[str]:
    """Return the Celery ids of the messages in a queue, and take them out."""
    found = []
    with connection.channel() as channel:
        while (message := Queue(queue, channel=channel, no_declare=True).get(no_ack=True)) is not None:
            assert message.properties["correlation_id"] == message.headers["id"]
            found.append(message.headers["id"])
    return found


def test_all_messages_of_a_batch_are_there_in_order(connection: Connection) -> None:
    outlet = open_outlet(connection)
    assert outlet.send([sending(number) for number in range(300)]) == []
    assert outlet.send([sending(300)]) == []
    assert ids_in(connection) == [f"task-{number}" for number in range(301)]


def test_a_queue_is_empty_when_it_holds_nothing_or_is_not_there(connection: Connection) -> None:
    app = Celery("outlet", broker=connection.as_uri(include_password=True), set_as_current=False)
    dispatch = Dispatch(app, "tracker")
    assert dispatch.is_empty("work")
    open_outlet(connection).send([sending()])
    assert not dispatch.is_empty("work")
    ids_in(connection)
    assert dispatch.is_empty("work")
    dispatch.close()
    app.close()


def test_messages_go_to_several_queues(connection: Connection) -> None:
    open_outlet(connection).send([sending(1, "one"), sending(2, "two"), sending(3, "one")])
    assert ids_in(connection, "one") == ["task-1", "task-3"]
    assert ids_in(connection, "two") == ["task-2"]


@rabbitmq_only
def test_a_queue_that_is_missing_is_made_durable_and_as_the_app_wants_it(connection: Connection) -> None:
    declaration = {"queue_arguments": {"x-max-priority": 10}}
    assert open_outlet(connection).send([sending(declaration=declaration)]) == []
    with connection.channel() as channel:
        Queue("work", durable=True, queue_arguments={"x-max-priority": 10}, channel=channel).queue_declare()
    assert ids_in(connection) == ["task-1"]


@rabbitmq_only
def test_a_queue_behind_an_exchange_is_made_with_both(connection: Connection) -> None:
    declaration = {"exchange": {"name": "topics", "type": "topic"}, "routing_key": "work.#"}
    properties = {"exchange": "topics", "routing_key": "work.hard"}
    assert open_outlet(connection).send([sending(declaration=declaration, properties=properties)]) == []
    assert ids_in(connection) == ["task-1"]


@rabbitmq_only
def test_a_queue_that_is_there_is_left_as_it_is(connection: Connection) -> None:
    """A worker has made it with other arguments: to declare it again would close our channel, or the worker's."""
    with connection.channel() as channel:
        Queue("work", durable=True, queue_arguments={"x-max-length": 10}, channel=channel).queue_declare()
    assert open_outlet(connection).send([sending(declaration={"queue_arguments": {"x-max-priority": 5}})]) == []
    assert ids_in(connection) == ["task-1"]


@rabbitmq_only
def test_a_message_that_no_queue_takes_is_returned_and_the_others_are_there(connection: Connection) -> None:
    for exchange in ("amq.topic", "not-there"):
        lost = sending(2, properties={"exchange": exchange, "routing_key": "nobody"})
        assert open_outlet(connection).send([sending(1), lost, sending(3)]) == [lost]
        assert ids_in(connection) == ["task-1", "task-3"]


@rabbitmq_only
def test_a_message_that_rabbitmq_drops_without_a_word_is_an_error(connection: Connection) -> None:
    """A header of more than a frame, 128 kB, closes the connection; without confirms nobody would know."""
    large = sending(headers={"id": "task-1", "large": "x" * 200_000})
    with pytest.raises(_BROKER_ERRORS):
        open_outlet(connection).send([large])
