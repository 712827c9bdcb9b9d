"""What is told of a queue, so that a tracker can make it as the user's own client would."""

from typing import Any

import pytest
from celery import Celery
from kombu import Exchange, Queue

from jobrunner.declaration import declaration

TOPICS = Exchange("topics", type="topic")


def celerys_own(**settings: Any) -> Queue:
    return Celery("shop", set_as_current=False, **settings).amqp.queues["celery"]


@pytest.mark.parametrize(
    ("queue", "told"),
    [
        (celerys_own(), {}),
        (celerys_own(task_default_queue_type="quorum"), {"queue_arguments": {"x-queue-type": "quorum"}}),
        (celerys_own(task_queue_max_priority=10), {"queue_arguments": {"x-max-priority": 10}}),
        (Queue("a", durable=False, auto_delete=True), {"durable": False, "auto_delete": True}),
        (Queue("a", TOPICS, routing_key="a.#", message_ttl=5), {"message_ttl": 5}),
    ],
    ids=["plain", "quorum", "priorities", "transient", "time"],
)
def test_of_a_queue_that_messages_reach_directly_only_what_is_not_plain_is_told(
    queue: Queue, told: dict[str, Any]
) -> None:
    assert declaration(queue, "") == told


def test_of_a_queue_behind_an_exchange_that_is_told_too() -> None:
    assert declaration(Queue("a", TOPICS, routing_key="a.#"), "topics") == {
        "routing_key": "a.#",
        "exchange": {"name": "topics", "type": "topic", "durable": True, "auto_delete": False, "arguments": None},
    }


def test_kombu_makes_the_same_queue_from_what_is_told() -> None:
    queue = Queue("a", TOPICS, routing_key="a.#", max_priority=7, queue_arguments={"x-queue-mode": "lazy"})
    told = declaration(queue, "topics")
    again = Queue("a", **{**told, "exchange": Exchange(**told["exchange"])})
    assert again.as_dict(recurse=True) == queue.as_dict(recurse=True)
