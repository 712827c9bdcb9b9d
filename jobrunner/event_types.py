"""Every event that workers and the tracker send, as data: its fields, where each is kept, and what it does to a task.

`docs/events.md` shows the table. Tests hold it against Celery's sources, the schema, the fold and a running house. It
knows no clock, database or broker.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an event.

    `kept` names columns as `table.column`, with the key in brackets where the column holds JSON; without any, `note`
    says why nothing is kept. `h3` tells whether HySDS lists it (H3).
    """

    name: str
    kept: tuple[str, ...] = ()
    note: str = ""
    h3: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EventType:
    """One type of event. `told` are the fields that a line about it shows, besides who, what and when."""

    name: str
    sent_by: str
    when: str
    effect: str
    fields: tuple[Field, ...] = ()
    told: tuple[str, ...] = ()
    more_to_come: bool | None = None  # H4: True is active, False inactive, None is neither
    folded: bool = False  # into the attempt, by the tracker

    @property
    def word(self) -> str:
        """The name as HySDS writes it: without `task-`."""
        return self.name.removeprefix(TASK)

    @property
    def is_h3(self) -> bool:
        """Whether HySDS lists it (H3)."""
        return any(one.h3 for one in self.fields)


TASK = "task-"

COMMON: tuple[Field, ...] = (
    Field("type", ("attempt.last_event",)),
    Field("utcoffset", note="hours; `timestamp` counts from 1970 in UTC wherever the sender is"),
    Field("clock", note="Celery's logical clock: order never depends on it, see the fold"),
)
"""Fields of every event; those whose place differs from type to type, such as `timestamp`, stand with the type."""


def _h3(name: str, *kept: str, note: str = "") -> Field:
    return Field(name, kept, note, h3=True)


_UUID = _h3("uuid", "attempt.celery_id", "task.celery_id")
_RETRIES = Field("retries", ("attempt.retries",), "added by jobrunner")
_ROOT = Field("root_id", ("task.job_id",), "added by jobrunner: the job")
_WORKER = _h3("hostname", "attempt.worker")
_PID = Field("pid", ("attempt.pid",), "the worker's main process")

_MESSAGE = (
    _h3("name", "task.name"),
    _h3("args", "message.headers[argsrepr]"),
    _h3("kwargs", "message.headers[kwargsrepr]"),
)
_PARENT = Field("parent_id", ("task.created_by",), "the task that has sent it; none in a job's plan")
_ETA = "a task of a plan waits here, in `task.not_before`, and is sent without; of a Celery retry nothing is kept"
_EXPIRES = "a number of seconds counts from each sending"


def _ended(*fields: Field, pid: Field = _PID) -> tuple[Field, ...]:
    return (_UUID, *fields, _WORKER, _h3("timestamp", "attempt.ended_at"), pid, _ROOT, _RETRIES)


_SENT = EventType(
    name="task-sent",
    sent_by=(
        "the tracker; a worker, for what a task of a job sends; outside of jobs whoever sends, with"
        " `task_send_sent_event`"
    ),
    when="the broker has the message of a delivery",
    effect=(
        "none: the tracker has committed `queued` before it sends; one that no plan knows is adopted by its job, or"
        " observed, as `queued`"
    ),
    fields=(
        _UUID, *_MESSAGE,
        _h3("retries", "task.first_retries"),
        _h3("eta", note=_ETA),
        _h3("expires", "message.headers[expires]", note=_EXPIRES),
        _h3("queue", "task.queue"),
        _h3("exchange", "message.properties[exchange]"),
        _h3("routing_key", "message.properties[routing_key]"),
        Field("hostname", ("lease.holder",), "the tracker"),
        Field("timestamp", ("task.sent_at",), "the time of the transaction that notes it, a moment later"),
        Field("pid", ("lease.holder",)),
        Field("root_id", ("task.job_id",), "the job"),
        _PARENT,
    ),
    told=("queue", "retries", "eta"),
    more_to_come=True,
)  # fmt: skip

_RECEIVED = EventType(
    name="task-received",
    sent_by="a worker",
    when="the message has reached a worker, which may hold it back",
    effect="none to its state; of a retry: stays `soft-failed` until it starts; one that no plan knows is observed",
    fields=(
        _UUID, *_MESSAGE,
        _h3("retries", "attempt.retries"),
        _h3("eta", note=_ETA),
        Field("expires", ("message.headers[expires]",), _EXPIRES),
        _WORKER,
        _h3("timestamp", "attempt.received_at"),
        _PID,
        Field("root_id", ("task.job_id",), "the job"),
        _PARENT,
    ),
    told=("retries", "eta"),
    more_to_come=True,
    folded=True,
)  # fmt: skip

_STARTED = EventType(
    name="task-started",
    sent_by="a worker",
    when="a process of the pool has taken it",
    effect="`active`",
    fields=(
        _UUID, _WORKER, _h3("timestamp", "attempt.started_at"),
        _h3("pid", "attempt.pid", note="the worker's main process, as Celery has it"),
        _ROOT, _RETRIES,
    ),
    told=("pid",),
    more_to_come=True,
    folded=True,
)  # fmt: skip

_PROGRESS = EventType(
    name="task-progress",
    sent_by="the body of a task, by `current.progress`, `send_event` or `update_state`",
    when="it says how far it is; at most twice a second, the first and the last time always",
    effect="none to its state; a report of a process that does not have the task shows nowhere (A5)",
    fields=(
        replace(_UUID, h3=False),
        Field("progress", ("attempt.progress", "task.progress"), "from 0.0 to 1.0; never goes back within an attempt"),
        Field("message", ("attempt.said",), "cut at 1,000 characters"),
        Field("done, total", note="as reported, of which `progress` is made; without a total `done` is a share"),
        replace(_WORKER, h3=False),
        Field("timestamp", ("attempt.touched_at",), "when it was reported"),
        _ROOT, _RETRIES,
    ),
    told=("progress", "message"),
    folded=True,
)  # fmt: skip

_SUCCEEDED = EventType(
    name="task-succeeded",
    sent_by="a worker",
    when="the body has returned",
    effect="`completed`; or what its body has stated: `partial`, `skipped`",
    fields=_ended(
        _h3("result", "attempt.result", note="Celery's shortened repr; the value itself is in the result backend"),
        _h3("runtime", "attempt.runtime", note="seconds from sending to the pool until the result handler"),
    ),
    told=("runtime", "result"),
    more_to_come=False,
    folded=True,
)

_ERROR = (_h3("exception", "attempt.exception"), _h3("traceback", "attempt.traceback"))

_LOST = Field("lost", ("attempt.outcome",), "added by jobrunner if what it takes is lost: the Celery ids of the values")

_FAILED = EventType(
    name="task-failed",
    sent_by="a worker",
    when="the body has raised, a time limit was passed, what it takes is lost, or no task of this name is known there",
    effect="`failed`; of a worker that does not know it: `soft-failed`, and sent again after a while",
    fields=_ended(*_ERROR, _LOST),
    told=("exception",),
    more_to_come=False,
    folded=True,
)

_REVOKED = EventType(
    name="task-revoked",
    sent_by="a worker, likely more than one",
    when="it was revoked, terminated or has expired",
    effect="`canceled`, once, however many workers say so",
    fields=_ended(
        _h3("terminated", "attempt.exception", "task.reason", note="as the word `terminated`"),
        _h3("signum", "attempt.exception", note="as the name of the signal, after that word"),
        _h3("expired", "attempt.exception", "task.reason", note="as the word `expired`"),
    ),
    told=("terminated", "signum", "expired"),
    more_to_come=False,
    folded=True,
)

_RETRIED = EventType(
    name="task-retried",
    sent_by="a worker",
    when="an attempt has failed and Celery has sent the next one",
    effect="`soft-failed`",
    fields=_ended(*_ERROR),
    told=("exception",),
    more_to_come=False,
    folded=True,
)

_HANDED_BACK = tuple(replace(one, h3=False) for one in _ended())

_REJECTED = EventType(
    name="task-rejected",
    sent_by="a worker",
    when="the message was handed back to the broker, or dropped: the body raised `Reject`, or its process was killed",
    effect="`soft-failed`, if handed back, until it is received again; with what was dropped comes `task-failed`",
    fields=(*_HANDED_BACK, Field("requeue", ("attempt.outcome",), "whether the broker has it back")),
    told=("requeue",),
    folded=True,
)

_SHUT_DOWN = Field(
    "shut_down", ("attempt.outcome", "attempt.exception"), "added by jobrunner if the worker is shut down: lost"
)

_CANCELLED = EventType(
    name="task-cancelled",
    sent_by="a worker",
    when="a worker that lost its broker ended what it was running, because the message will come again; or one that is "
    "shut down without waiting",
    effect="`soft-failed` until it is received again; if its worker is shut down it is sent again, and has used up a "
    "retry; without one left it is `failed`, reason `lost`",
    fields=(*_HANDED_BACK, _SHUT_DOWN),
    folded=True,
)

_ADDED = EventType(
    name="task-added",
    sent_by="a task of a job",
    when="its body adds tasks to the job; in parts, and before the call returns. Monitors get no copy",
    effect="none; what was added is `pending` until the task has succeeded, and else deleted (A3, A4)",
    fields=(
        replace(_UUID, h3=False, kept=("task.created_by",)),
        replace(_WORKER, h3=False, kept=(), note="the worker that runs the task"),
        Field("timestamp", note="when it was added, by the worker's clock"),
        _ROOT, replace(_RETRIES, kept=("addition.retries",)),
        Field("part", ("block.addition_id", "task.addition_id", "addition.told"), "rows"),
    ),
)  # fmt: skip

_STATED = EventType(
    name="task-stated",
    sent_by="a worker, for the body of a task of a job",
    when=(
        "the body has returned a `Partial`, raised `Skip` or called `current.skip_next`, before its end is told: first"
        " its item errors, in parts, and at last the statement. Monitors get no copy"
    ),
    effect="none until the execution has succeeded; then its task is `partial` or `skipped`, as it states, and so is"
    " `skipped` what it says of what comes next (N2)",
    fields=(
        replace(_UUID, h3=False),
        Field(
            "statement",
            ("attempt.statement", *(f"item_count.{name}" for name in ("processed", "skipped", "failed", "aborted"))),
            "what the task becomes, why, and how many items were processed, skipped, failed or not reached; why what"
            " comes next is to be skipped, and which branches of it",
        ),
        Field(
            "errors",
            ("item_error.item", "item_error.label", "item_error.type", "item_error.message", "item_error.details"),
            "item errors; of one execution 10,000 are kept",
        ),
        Field("first", ("item_error.number",), "the number of the first one of them"),
        replace(_WORKER, h3=False),
        Field("timestamp", ("attempt.statement[at]",), "of two statements of one execution the later one stands"),
        _ROOT, _RETRIES,
    ),
    folded=True,
)  # fmt: skip

_LOGGED = EventType(
    name="task-logged",
    sent_by="a worker, for the body of a task of a job",
    when="its body has logged or printed something; twice a second at most, unless it is much. Monitors get no copy",
    effect="none",
    fields=(
        replace(_UUID, h3=False, kept=("log_part.task_id", "log_part.delivery")),
        replace(_WORKER, h3=False, kept=(), note="the worker that runs the task"),
        Field("timestamp", ("log_part.at",), "of its first line, by the worker's clock"),
        _ROOT, replace(_RETRIES, kept=("log_part.retries",)),
        Field("number", ("log_part.number",), "of this part of the log, from 0"),
        Field("text", ("log_part.text",), "lines, each with its time and level"),
    ),
)  # fmt: skip

_HELD = EventType(
    name="task-held",
    sent_by="a worker",
    when=(
        "its gate has not let the task start: the job is paused or canceled, the message is void or redelivered, the"
        " worker does not know, or has failed this task or others of its name. Monitors get no copy"
    ),
    effect=(
        "`ready`, and sent again once nothing holds it; what the tracker has not sent itself stays `queued` or"
        " `soft-failed`, and its message is forwarded, as it is, once nothing holds it; `failed` (no-workers) if all"
        " workers that live and take tasks from its queue are blocked"
    ),
    fields=(
        *_HANDED_BACK,
        Field(
            "reason",
            ("attempt.outcome",),
            "`paused`, `canceled`, `void`, `redelivered`, `uninformed`, `avoided` or `blocked`",
        ),
        Field(
            "message",
            ("held_message.body", "held_message.headers", "held_message.properties", "held_message.queue"),
            "whole, with its body in base64, if nobody else has it",
        ),
    ),
    folded=True,
)

_SOFTWARE = Field("sw_ident, sw_ver, sw_sys", note="which software the worker is, for monitors")
_LOAD = Field("active, processed, loadavg", note="for monitors; `jobrunner workers` counts from the attempts")
_FREQ = Field("freq", note="seconds between two heartbeats; a worker is lost after 30 s without any event")


def _of_worker(timestamp: str, *fields: Field) -> tuple[Field, ...]:
    return (
        Field("hostname", ("worker.name",)), Field("pid", ("worker.pid",)),
        Field("timestamp", (timestamp,), "by the tracker's clock"), *fields,
    )  # fmt: skip


_ONLINE = EventType(
    name="worker-online",
    sent_by="a worker",
    when="a worker has reached the broker, the first time or again",
    effect="what this process had received and not started is in nobody's hands",
    fields=_of_worker("worker.online_at", _FREQ, _LOAD, _SOFTWARE),
)
_HEARTBEAT = EventType(
    name="worker-heartbeat",
    sent_by="a worker",
    when="every 2 s, unless it runs `--without-heartbeat`; any other event shows as well that it lives",
    effect="none",
    fields=_of_worker("worker.seen_at", _FREQ, _LOAD, _SOFTWARE),
    told=("active", "processed"),
)
_OFFLINE = EventType(
    name="worker-offline",
    sent_by="a worker",
    when="a worker stops",
    effect="none: it hands back what it has not started",
    fields=_of_worker("worker.seen_at", _FREQ, _LOAD, _SOFTWARE),
)
_ELECT = EventType(
    name="worker-elect",
    sent_by="a worker",
    when="workers that gossip choose one of them for a user's own action",
    effect="none",
    fields=_of_worker("worker.seen_at", Field("id, topic, action, cver", note="what they choose somebody for")),
    told=("topic",),
)
_ELECT_ACK = EventType(
    name="worker-elect-ack",
    sent_by="a worker",
    when="a worker has heard of that",
    effect="none",
    fields=_of_worker("worker.seen_at", Field("id", note="of the choice")),
)

_APPLIED = EventType(
    name="snapshot-applied",
    sent_by="a worker",
    when=(
        "it knows a new version of the snapshot, before it takes its first task, takes tasks from other queues, and now"
        " and then again; after all that was started before. Monitors get no copy"
    ),
    effect="none; a job is `paused` or `canceled` when all live workers have said so and none of it runs",
    fields=(
        Field("hostname", ("worker.name",)), Field("pid", ("worker.pid",)),
        Field("timestamp", ("worker.seen_at",), "by the tracker's clock"),
        Field("version", ("worker.snapshot",), "of the snapshot that holds from here on"),
        Field("queues", ("worker.queues",), "from which it takes tasks"),
        Field("left", note="Celery ids of what was to end and runs on, because a pool of this kind cannot end it"),
    ),
)  # fmt: skip

EVENT_TYPES: Mapping[str, EventType] = MappingProxyType(
    {
        one.name: one
        for one in (
            _SENT, _RECEIVED, _STARTED, _PROGRESS, _SUCCEEDED, _FAILED, _REVOKED, _RETRIED, _REJECTED, _CANCELLED,
            _HELD, _ADDED, _STATED, _LOGGED, _ONLINE, _HEARTBEAT, _OFFLINE, _ELECT, _ELECT_ACK, _APPLIED,
        )
    }
)  # fmt: skip
"""Every event type by its name, those of tasks first."""

ACTIVE_EVENTS: tuple[str, ...] = tuple(one.word for one in EVENT_TYPES.values() if one.more_to_come is True)
"""Celery's task events after which more must come (H4)."""

INACTIVE_EVENTS: tuple[str, ...] = tuple(one.word for one in EVENT_TYPES.values() if one.more_to_come is False)
"""Celery's task events after which nothing more comes for that attempt (H4)."""


def event_named(word: str) -> str | None:
    """Return the type of the task event that a person means, of those that H4 sorts; None if there is no such event.

    It may be written with or without `task-`; HySDS once writes `retired` for `retried`.
    """
    plain = word.removeprefix(TASK)
    plain = "retried" if plain == "retired" else plain
    return TASK + plain if plain in ACTIVE_EVENTS + INACTIVE_EVENTS else None
