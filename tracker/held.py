"""Messages that the tracker has not made, as a gate hands them back: subtasks, links and retries of a job (C3).

What is odd about one is the same as if it had not come: the tracker sends its own, or the task is lost.
"""

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

from jobrunner.records import Attempt, HeldMessage, Task
from jobrunner.snapshot import FINAL, Refusal
from jobrunner.text import NAME, bounded
from jobrunner.wire import TASK_HELD
from tracker.avoiding import MOST_HANDED_BACK, for_anybody
from tracker.fold import PASSING, Event

_RESTS = frozenset({Refusal.PAUSED, Refusal.UNINFORMED, Refusal.AVOIDED, Refusal.BLOCKED})
#: Properties with which it goes out again: one of the others is made anew, and others only its sender may set.
_PROPERTIES = ("exchange", "routing_key", "priority", "reply_to", "delivery_mode", "message_id", "type", "app_id")


def is_final(why: str) -> bool:
    """Whether the message is of no use to anybody any more."""
    return why in FINAL


def rests(why: str) -> bool:
    """Whether what was refused should rest before it goes again: workers may not know yet that it may start."""
    return why in _RESTS


def is_repeated(event: Event, known: Attempt | None) -> bool:
    """Whether a refusal was told before: its message is kept, or was forwarded since."""
    return known is not None and known.ended_at is not None and known.outcome in PASSING and event.at <= known.ended_at


def held_messages(events: Iterable[Event], tasks: Mapping[str, Task]) -> list[HeldMessage]:
    """Return the whole messages that events hand back of these tasks, by Celery id; one for each try."""
    found = (_message(event, tasks[event.uuid]) for event in events if event.type == TASK_HELD and event.uuid in tasks)
    return list({one.id: one for one in found if one is not None}.values())


def _message(event: Event, task: Task) -> HeldMessage | None:
    told = event.fields.get("message")
    if event.uuid != task.celery_id or event.fields.get("reason") in FINAL or not isinstance(told, dict):
        return None
    try:
        return _read(told, task, event.retries or 0)
    except (AttributeError, LookupError, TypeError, ValueError):
        return None


def _read(told: Mapping[str, Any], task: Task, retries: int) -> HeldMessage:
    """Raise one of several errors if there is something wrong with it."""
    properties = {name: told["properties"][name] for name in _PROPERTIES if told["properties"].get(name) is not None}
    headers = {**told["headers"]}
    queue = told.get("queue") or properties.get("routing_key") or ""
    return HeldMessage(
        id=f"{task.celery_id}:{retries}",
        job_id=task.job_id,
        task_id=task.id,
        celery_id=task.celery_id,
        retries=retries,
        queue=bounded(queue, NAME),
        body=base64.b64decode(told["body"], validate=True),
        content_type=bounded(told["content_type"], NAME),
        content_encoding=bounded(told["content_encoding"], NAME),
        headers=json.dumps(for_anybody(headers) if task.handed_back >= MOST_HANDED_BACK else headers),
        properties=json.dumps({"exchange": "", "routing_key": queue, **properties}),
    )
