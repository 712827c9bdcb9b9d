"""Valid objects for tests: each builder takes only what a test is about, and nothing here connects to anything."""

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count
from typing import Any

from celery import Celery, Task
from celery.canvas import Signature

from jobrunner import plan, records
from jobrunner.plan import BlockKind, Leaf, Plan
from jobrunner.states import TaskState
from tracker.eventlog import Entry
from tracker.eventlog.entries import Numbered
from tracker.fold import Event

#: When time begins in tests.
MIDNIGHT = datetime(2026, 11, 22, tzinfo=UTC)


def moment(seconds: float = 0.0) -> datetime:
    """A moment this long after midnight."""
    return MIDNIGHT + timedelta(seconds=seconds)


@cache
def app() -> Celery:
    """A Celery app with one task, `work`, registered in memory."""
    made = Celery("builders", broker="memory://", backend="cache+memory://", set_as_current=False)
    made.task(_work, name="work", shared=False)
    return made


def _work(*given: object) -> list[object]:
    return list(given)


def work() -> Task:
    """The task of `app`, which takes anything."""
    return app().tasks["work"]


def leaf(label: str = "a", *, immutable: bool = False, **options: Any) -> Signature:
    """A signature of `work` that is told apart by its first argument."""
    return work().signature((label,), immutable=immutable, **options)


def plan_of(canvas: object) -> Plan:
    """The plan of a canvas, with ids that count up; the job is `id0`."""
    numbers = count()
    return plan.from_canvas(canvas, new_id=lambda: f"id{next(numbers)}")


def labels(planned: Plan) -> dict[str, Leaf]:
    """The leaves of a plan by the label that `leaf` gave them."""
    return {one.args[0]: one for one in planned.leaves}


def block(
    id_: str = "root",
    kind: BlockKind = BlockKind.CHAIN,
    *,
    size: int = 1,
    remaining: int | None = None,
    inside: tuple[str, int] | None = None,
) -> records.Block:
    """A block of a job; `inside` is the block around it and its position there."""
    parent, position = inside or (None, 0)
    return records.Block(
        id=id_,
        job_id="job",
        kind=kind,
        parent_id=parent,
        position=position,
        size=size,
        remaining=size if remaining is None else remaining,
    )


def blocks(planned: Plan) -> dict[str, records.Block]:
    """The blocks of a plan as the store keeps them, before anything has ended."""
    return {
        one.id: block(one.id, one.kind, size=one.size, inside=one.place and (one.place.block, one.place.position))
        for one in planned.blocks
    }


def task(**known: Any) -> records.Task:
    """A task that was sent once."""
    return records.Task(
        **{
            "id": "task",
            "job_id": "job",
            "celery_id": "task",
            "block_id": "job",
            "position": 0,
            "state": TaskState.QUEUED,
            "reason": None,
            "note": None,
            "delivery": 1,
            "first_retries": 0,
            "sent_at": MIDNIGHT,
            "started_at": None,
            "ended_at": None,
            **known,
        }
    )


def attempt(**known: Any) -> records.Attempt:
    """The first attempt of `task`, of which nothing has been heard."""
    return records.Attempt(**{"task_id": "task", "delivery": 1, "retries": 0, "celery_id": "task", **known})


def event(type_: str, *, at: float = 0.0, worker: str = "w1@host", **known: Any) -> Event:
    """An event of a worker about `task`, this many seconds after midnight; `type_` goes without its `task-`."""
    return Event(
        **{
            "type": f"task-{type_}",
            "uuid": "task",
            "worker": worker,
            "at": moment(at),
            "source": f"{worker}/1",
            "pid": 1,
            "retries": 0,
            **known,
        }
    )


def raw_event(**fields: Any) -> dict[str, Any]:
    """An event as a worker writes it into the log."""
    return {
        "type": "task-started",
        "uuid": "task",
        "hostname": "w1@host",
        "timestamp": MIDNIGHT.timestamp(),
        "pid": 1,
        "retries": 0,
        **fields,
    }


def held_message(**known: Any) -> dict[str, Any]:
    """A message as a gate hands it back whole."""
    return {
        "body": base64.b64encode(b"[[], {}, {}]").decode(),
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "headers": {"task": "work", "id": "task"},
        "properties": {"exchange": "", "routing_key": "q", "priority": 3, "correlation_id": "task"},
        "queue": "q",
        **known,
    }


def entry(*events: object, source: str | None = "process-1", worker: str = "w1@host") -> Entry:
    """A batch of raw events of one worker process."""
    return Entry(source=source, worker=worker, events=events)


def by_process(*events: Mapping[str, Any]) -> list[Entry]:
    """A batch for each of these raw events, from the only process of its worker."""
    return [entry(one, source=f"process of {one['hostname']}", worker=one["hostname"]) for one in events]


def numbered(number: int, *, series: str = "series-1", dropped: int = 0, worker: str = "w1@host") -> Entry:
    """A batch without events that has a number."""
    place = Numbered(series=series, number=number, dropped=dropped)
    return Entry(source="process-1", worker=worker, numbered=place)


def heartbeat(name: str = "w1@host", *, source: str | None = "process-1", **fields: Any) -> Entry:
    """A batch with which a worker process says that it lives."""
    return entry(raw_event(type="worker-heartbeat", hostname=name, **fields), source=source, worker=name)


def counts(**numbers: int) -> Mapping[TaskState, int]:
    """The tasks of a job by state; states are named as in `TaskState`, in small letters."""
    return dict.fromkeys(TaskState, 0) | {TaskState[name.upper()]: number for name, number in numbers.items()}


def paths(leaves: Sequence[Leaf]) -> list[str]:
    """Where leaves stand, for people."""
    return [one.path for one in leaves]
