"""How a queue is made where the broker lacks it: what the tracker has to be told, as it has no code of the user's.

Celery's own clients make the queues that they send to. Here the tracker does, when RabbitMQ says that one is missing.
"""

from typing import Any

from kombu.entity import Queue

#: What kombu's `Queue` and `Exchange` take, and a broker keeps.
_OF_QUEUE = (
    "durable", "auto_delete", "queue_arguments", "expires", "message_ttl", "max_length", "max_length_bytes",
    "max_priority",
)  # fmt: skip
_OF_BINDING = ("routing_key", "binding_arguments")
_OF_EXCHANGE = ("name", "type", "durable", "auto_delete", "arguments")


def declaration(queue: Queue, exchange: str) -> dict[str, Any]:
    """Return what tells a queue from a plain durable one, as arguments of kombu's `Queue`; usually nothing.

    If messages reach it by an exchange, that is told too, as a mapping of the arguments of kombu's `Exchange`.
    """
    found, plain = queue.as_dict(recurse=True), Queue(queue.name).as_dict()
    told = {name: found[name] for name in _OF_QUEUE if found[name] != plain[name]}
    if exchange:
        told |= {name: found[name] for name in _OF_BINDING if found[name]}
        told["exchange"] = {name: found["exchange"][name] for name in _OF_EXCHANGE}
    return told
