"""Fetch values from the result backend, by the Celery ids under which they lie."""

from collections.abc import Iterator
from typing import Any

from celery import states
from celery.backends.base import BaseKeyValueStoreBackend

from jobrunner.errors import InputLostError
from jobrunner.wire import Inputs

#: Keys per request to the backend: bounds a reply's size.
_MGET = 1_000


def fetch(backend: BaseKeyValueStoreBackend, inputs: Inputs) -> Any:
    """Return the value that `inputs` names: one value for an id, a list for a list, nested likewise.

    Raises:
        InputLostError: the backend no longer has a value; the error names the Celery id of its producer.
    """
    ids = list(_leaves(inputs))
    values: dict[str, Any] = {}
    for start in range(0, len(ids), _MGET):
        chunk = ids[start : start + _MGET]
        for celery_id, stored in zip(
            chunk, backend.mget([backend.get_key_for_task(one) for one in chunk]), strict=True
        ):
            values[celery_id] = _value(backend, celery_id, stored)
    return _fill(inputs, values)


def _leaves(inputs: Inputs) -> Iterator[str]:
    if isinstance(inputs, str):
        yield inputs
    else:
        for one in inputs:
            yield from _leaves(one)


def _fill(inputs: Inputs, values: dict[str, Any]) -> Any:
    return values[inputs] if isinstance(inputs, str) else [_fill(one, values) for one in inputs]


def _value(backend: BaseKeyValueStoreBackend, celery_id: str, stored: Any) -> Any:
    meta = backend.decode_result(stored) if stored else None
    if meta is None or meta["status"] != states.SUCCESS:
        msg = f"The value of task {celery_id} is no longer in the result backend."
        raise InputLostError(msg, "Raise result_expires above the time that a job may take, and requeue the job.")
    return meta["result"]
