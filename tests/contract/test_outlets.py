"""What every outlet keeps to: what `send` has returned from is on the broker, and what is not is told."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from kombu import Connection, Queue

from jobrunner.records import Letter
from jobrunner.servers import TIMEOUTS
from jobrunner.wire import INPUTS_IN_HEADER, Inputs
from tests.builders import MIDNIGHT
from tests.servers.redis import Redis
from tests.waiting import PATIENCE, until
from tracker.dispatch import Dispatch
from tracker.outbox import BROKER_ERRORS
from tracker.outlets import Outlet, Sending, TooLateError, Untaken, open_outlet
from tracker.sending import Outgoing

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


ALL_TAKEN = Untaken()

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
    assert outlet.send([sending(number) for number in range(300)]) == ALL_TAKEN
    assert outlet.send([sending(300)]) == ALL_TAKEN
    assert ids_in(connection) == [f"task-{number}" for number in range(301)]


def test_a_queue_is_empty_when_it_holds_nothing_or_is_not_there(connection: Connection) -> None:
    app = Celery("outlet", broker=connection.as_uri(include_password=True), set_as_current=False)
    dispatch = Dispatch(app, "tracker", no_items)
    assert dispatch.is_empty("work")
    open_outlet(connection).send([sending()])
    assert not dispatch.is_empty("work")
    ids_in(connection)
    assert dispatch.is_empty("work")
    dispatch.close()
    app.close()


def test_without_a_result_backend_a_task_with_few_inputs_is_sent_and_one_with_many_fails(
    connection: Connection,
) -> None:
    app = Celery("outlet", broker=connection.as_uri(include_password=True), set_as_current=False)
    dispatch = Dispatch(app, "tracker", no_items)
    published = dispatch.publish(
        [outgoing("few", ["a"]), outgoing("many", ["a"] * (INPUTS_IN_HEADER + 1))], until=time.monotonic() + PATIENCE
    )
    assert [one.letter.task_id for one in published.taken] == ["few"]
    ((failed, why),) = published.failed
    assert (failed.letter.task_id, "the tracker knows no result backend" in why) == ("many", True)
    dispatch.close()
    app.close()


def outgoing(task_id: str, inputs: Inputs) -> Outgoing:
    headers = {"expires": None, "parent_id": None, "task": "work", "argsrepr": "", "kwargsrepr": "", "eta": None}
    letter = Letter(
        task_id=task_id, job_id="job", queue="work", run=1, delivery=1, first_retries=0, takes_task=None,
        takes_group="group", body=b"{}", content_type="application/json",
        content_encoding="utf-8", headers=json.dumps(headers),
        properties=json.dumps({"exchange": "", "routing_key": "work"}),
    )  # fmt: skip
    return Outgoing(letter=letter, inputs=inputs, queued_at=MIDNIGHT)


def no_items(letter: Letter) -> str:
    raise LookupError(letter.task_id)


def test_messages_go_to_several_queues(connection: Connection) -> None:
    open_outlet(connection).send([sending(1, "one"), sending(2, "two"), sending(3, "one")])
    assert ids_in(connection, "one") == ["task-1", "task-3"]
    assert ids_in(connection, "two") == ["task-2"]


def test_what_is_too_late_does_not_go_out(connection: Connection) -> None:
    outlet = open_outlet(connection)
    assert outlet.send([sending(1)], until=time.monotonic() + PATIENCE) == ALL_TAKEN
    with pytest.raises(TooLateError):
        outlet.send([sending(2), sending(3)], until=time.monotonic() - 0.001)
    assert ids_in(connection) == ["task-1"]


@rabbitmq_only
def test_a_queue_that_is_missing_is_made_durable_and_as_the_app_wants_it(connection: Connection) -> None:
    declaration = {"queue_arguments": {"x-max-priority": 10}}
    assert open_outlet(connection).send([sending(declaration=declaration)]) == ALL_TAKEN
    with connection.channel() as channel:
        Queue("work", durable=True, queue_arguments={"x-max-priority": 10}, channel=channel).queue_declare()
    assert ids_in(connection) == ["task-1"]


@rabbitmq_only
def test_a_queue_behind_an_exchange_is_made_with_both(connection: Connection) -> None:
    declaration = {"exchange": {"name": "topics", "type": "topic"}, "routing_key": "work.#"}
    properties = {"exchange": "topics", "routing_key": "work.hard"}
    assert open_outlet(connection).send([sending(declaration=declaration, properties=properties)]) == ALL_TAKEN
    assert ids_in(connection) == ["task-1"]


@rabbitmq_only
def test_a_queue_that_is_there_is_left_as_it_is(connection: Connection) -> None:
    """A worker has made it with other arguments: to declare it again would close our channel, or the worker's."""
    with connection.channel() as channel:
        Queue("work", durable=True, queue_arguments={"x-max-length": 10}, channel=channel).queue_declare()
    assert open_outlet(connection).send([sending(declaration={"queue_arguments": {"x-max-priority": 5}})]) == ALL_TAKEN
    assert ids_in(connection) == ["task-1"]


@rabbitmq_only
def test_a_message_that_no_queue_takes_is_returned_and_the_others_are_there(connection: Connection) -> None:
    for exchange in ("amq.topic", "not-there"):
        lost = sending(2, properties={"exchange": exchange, "routing_key": "nobody"})
        assert open_outlet(connection).send([sending(1), lost, sending(3)]) == Untaken(again=[lost])
        assert ids_in(connection) == ["task-1", "task-3"]


@rabbitmq_only
def test_a_message_that_rabbitmq_drops_without_a_word_is_an_error(connection: Connection) -> None:
    """A header of more than a frame, 128 kB, closes the connection; without confirms nobody would know."""
    large = sending(headers={"id": "task-1", "large": "x" * 200_000})
    with pytest.raises(BROKER_ERRORS):
        open_outlet(connection).send([large])


def test_a_message_that_cannot_be_made_is_told_and_the_others_are_there(connection: Connection) -> None:
    odd = sending(2, properties={**sending().properties, "compression": "of another world"})
    untaken = open_outlet(connection).send([sending(1), odd, sending(3)])
    ((one, why),) = untaken.never
    assert (one, untaken.again) == (odd, [])
    assert "of another world" in why
    assert ids_in(connection) == ["task-1", "task-3"]


@rabbitmq_only
def test_what_a_full_queue_refuses_is_told_and_the_others_are_there(connection: Connection) -> None:
    full = {"x-max-length": 1, "x-overflow": "reject-publish"}
    with connection.channel() as channel:
        Queue("full", durable=True, queue_arguments=full, channel=channel).queue_declare()
    outlet = open_outlet(connection)
    assert outlet.send([sending(1, "full")]) == ALL_TAKEN
    refused = sending(3, "full")
    assert outlet.send([sending(2), refused, sending(4)]) == Untaken(again=[refused])
    assert ids_in(connection) == ["task-2", "task-4"]
    assert ids_in(connection, "full") == ["task-1"]
    assert outlet.send([refused]) == ALL_TAKEN


@rabbitmq_only
def test_an_app_that_asks_for_confirms_of_its_own_is_served_too(connection: Connection) -> None:
    with Connection(
        connection.as_uri(include_password=True), transport_options={"confirm_publish": True}
    ) as confirming:
        assert open_outlet(confirming.ensure_connection()).send([sending(1), sending(2)]) == ALL_TAKEN
    assert ids_in(connection) == ["task-1", "task-2"]


@rabbitmq_only
def test_a_broker_that_blocks_publishers_holds_nobody_up_for_long(connection: Connection, rabbitmq: "RabbitMQ") -> None:
    with Connection(connection.as_uri(include_password=True), transport_options=TIMEOUTS) as blocked:
        outlet = open_outlet(blocked.ensure_connection())
        outlet.send([sending(1)])
        with rabbitmq.memory_alarm():
            until(lambda: not taken(outlet), timeout=PATIENCE, what="the alarm to be heard")
            began = time.monotonic()
            with contextlib.suppress(*BROKER_ERRORS):
                blocked.close()
            assert time.monotonic() - began < 2 * TIMEOUTS["read_timeout"]


def taken(outlet: Outlet) -> bool:
    """Send a message, and tell whether it was taken in time."""
    began = time.monotonic()
    try:
        outlet.send([sending(2)])
    except BROKER_ERRORS:
        assert time.monotonic() - began < TIMEOUTS["read_timeout"]
        return False
    return True
