"""Fetch values from the result backend, by the Celery ids under which they lie."""

from collections.abc import Iterator, Sequence
from typing import Any

from celery import states
from celery.backends.base import BaseKeyValueStoreBackend

from jobrunner.errors import ValueLostError
from jobrunner.wire import NOTHING, Inputs

#: Keys per request to the backend: bounds a reply's size.
_MGET = 1_000


def fetch(backend: BaseKeyValueStoreBackend, inputs: Inputs) -> Any:
    """Return the value that `inputs` names: one value for an id, a list for a list, nested likewise.

    Raises:
        ValueLostError: the backend no longer has some of the values.
        Exception: the backend is away; the errors are those of its client.
    """
    ids = [one for one in _leaves(inputs) if one != NOTHING]
    values: dict[str, Any] = {NOTHING: None}
    for start in range(0, len(ids), _MGET):
        chunk = ids[start : start + _MGET]
        stored = backend.mget([backend.get_key_for_task(one) for one in chunk])
        metas = {celery_id: backend.decode_result(one) for celery_id, one in zip(chunk, stored, strict=True) if one}
        values |= {celery_id: meta["result"] for celery_id, meta in metas.items() if meta["status"] == states.SUCCESS}
    lost = [one for one in ids if one not in values]
    if lost:
        raise ValueLostError(_lost(lost), celery_ids=lost)
    return _fill(inputs, values)


def _lost(celery_ids: Sequence[str]) -> str:
    more = f", and {len(celery_ids) - 1} more," if len(celery_ids) > 1 else ""
    return f"The value of task {celery_ids[0]}{more} is no longer in the result backend."


def _leaves(inputs: Inputs) -> Iterator[str]:
    if isinstance(inputs, str):
        yield inputs
    else:
        for one in inputs:
            yield from _leaves(one)


def _fill(inputs: Inputs, values: dict[str, Any]) -> Any:
    return values[inputs] if isinstance(inputs, str) else [_fill(one, values) for one in inputs]
