"""What workers tell of the tasks of a job: the events that Celery sends, in the batches that our flusher writes."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from celery.events.event import Event

from jobrunner.event_log import WrittenBatch
from jobrunner.wire import VERSION

EventFields = dict[str, Any]

#: Events of a batch under load, and messages that a worker with two processes has received ahead.
_LENGTH, _AHEAD = 200, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Teller:
    """A worker process."""

    worker: str = "worker@host"
    source: str = "a1f4c2de-0000-4000-8000-000000000001"
    pid: int = 4711


_ONE = Teller()


def events_of(job_id: str, task_ids: Sequence[str], teller: Teller = _ONE) -> list[EventFields]:
    """Return the events of tasks that all succeed, in the order in which a worker that is never idle sends them."""
    told: list[EventFields] = []
    for number, task_id in enumerate(task_ids[:_AHEAD]):
        told.append(_received(job_id, task_id, number))
    for number, task_id in enumerate(task_ids):
        told.append(_event("task-started", job_id, task_id))
        told.append(_event("task-succeeded", job_id, task_id, result=_result(number), runtime=0.00123))
        if number + _AHEAD < len(task_ids):
            told.append(_received(job_id, task_ids[number + _AHEAD], number + _AHEAD))
    for clock, event in enumerate(told):
        event.update(clock=clock, hostname=teller.worker, pid=teller.pid)
    return told


def batches_of(told: Sequence[EventFields], teller: Teller = _ONE, *, length: int = _LENGTH) -> Iterator[WrittenBatch]:
    """Yield the events as entries of the event log."""
    for start in range(0, len(told), length):
        text = json.dumps(told[start : start + length])
        yield WrittenBatch(v=VERSION, source=teller.source, worker=teller.worker, events=text)


def _received(job_id: str, task_id: str, number: int) -> EventFields:
    return _event(
        "task-received",
        job_id,
        task_id,
        name="archive.tiles.render",
        args=f"('s3://archive/2026/scene-{number:06}.tif', {number})",
        kwargs="{'zoom': 12, 'overwrite': False}",
        parent_id=None,
        eta=None,
        expires=None,
    )


def _result(number: int) -> str:
    return f"{{'scene': {number}, 'tiles': 256, 'bytes': 3981312}}"


def _event(type_: str, job_id: str, task_id: str, **fields: Any) -> EventFields:
    return Event(type_, utcoffset=0, timestamp=time.time(), uuid=task_id, root_id=job_id, retries=0, **fields)
