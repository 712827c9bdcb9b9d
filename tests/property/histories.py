"""Histories of one task as real workers make them, and what they must lead to; and any events at all.

A history is a story: deliveries by the tracker, each attempted by worker processes in Celery's way, with what goes
wrong: retries, redeliveries, requeues by the tracker, reports of processes that do not have the task, revokes.
"""

from dataclasses import asdict, dataclass, field
from itertools import count

from hypothesis import strategies as st

from jobrunner.ids import celery_id
from jobrunner.statements import Statement
from jobrunner.states import TaskState
from tests.builders import event, held_message
from tracker.fold import Event

WORKERS = ("w1@host", "w2@host", "w3@host")
ENDS = ("succeeded", "failed", "revoked", "retried")
STATES = (TaskState.COMPLETED, TaskState.PARTIAL, TaskState.SKIPPED)
TYPES = ("received", "started", "progress", "stated", *ENDS, "rejected", "cancelled", "held")


def told(type_: str, *, delivery: int = 1, retries: int = 0, at: int = 0, worker: str = "w1@host") -> Event:
    """An event whose text follows from who says what and when, as one process says one thing at one moment."""
    said = f"{type_} by {worker} at {at}"
    fields = {
        "stated": {"statement": asdict(Statement(state=STATES[at % 3], why=said))},
        "progress": {"progress": at % 3 / 2, "message": said},
        "succeeded": {"result": said, "runtime": float(at)},
        "failed": {"exception": said, "traceback": said},
        "retried": {"exception": said, "traceback": said},
        "revoked": {"terminated": at % 2 == 0, "expired": False},
        "rejected": {"requeue": True},
        "held": {"reason": ("paused", "redelivered")[at % 2], "message": held_message()},
    }.get(type_, {})
    known = {"uuid": celery_id("task", delivery), "retries": retries, "pid": 1, "source": f"{worker}/1"}
    return event(type_, at=at, worker=worker, fields=fields, **known)


@dataclass(kw_only=True)
class History:
    """Events in the order in which they happened, the state that they lead to, and what went wrong in them."""

    events: list[Event] = field(default_factory=list)
    state: TaskState | None = None
    delivery: int = 1
    kinds: set[str] = field(default_factory=set)


_sometimes = st.sampled_from([False, False, True])


@st.composite
def stories(draw: st.DrawFn) -> History:
    """What workers tell of a task, nothing of it missing."""
    history, clock = History(), count(1)
    for delivery in range(1, draw(st.sampled_from([1, 1, 2, 3])) + 1):
        if delivery > 1:
            history.kinds.add("requeue")
        history.delivery = delivery
        history.state = _delivered(draw, history, clock)
    return history


def _delivered(draw: st.DrawFn, history: History, clock: "count[int]") -> TaskState:
    """One delivery: attempts until one of them does not end in a retry."""
    for retries in range(4):
        if retries:
            history.kinds.add("retry")
        state = _attempted(draw, _Speaker(history, clock, retries))
        if state is not None:
            return state
    return TaskState.SOFT_FAILED


_ATTEMPT_ENDS = ("succeeded", "failed", "revoked", "discarded", "open", "waiting", "held", *["retried"] * 3)


def _attempted(draw: st.DrawFn, say: "_Speaker") -> TaskState | None:
    """One attempt, and the state that it leads to if it is the last one."""
    end = draw(st.sampled_from(_ATTEMPT_ENDS))
    worker = draw(st.sampled_from(WORKERS))
    if draw(_sometimes):
        _handed_back(draw, say, worker)
    if end == "discarded":  # by each that is given the message
        for one in draw(st.lists(st.sampled_from(WORKERS), min_size=1, max_size=3, unique=True)):
            say("revoked", one)
        return TaskState.CANCELED
    say("received", worker)
    if end == "held":
        _refused(draw, say, worker)
    if end in {"held", "waiting"}:
        return TaskState.SOFT_FAILED if say.retries or say.handed_back or say.started else TaskState.QUEUED
    say("started", worker)
    _reported(draw, say, worker)
    _given_in_vain(draw, say)
    strangers = [one for one in WORKERS if one not in say.heard]
    if strangers and draw(_sometimes):
        say.history.kinds.add("foreign")
        say(draw(st.sampled_from(["succeeded", "failed", "retried"])), draw(st.sampled_from(strangers)))
    stated = _stated(draw, say, worker) if end != "open" else None
    others = [one for one in WORKERS if one not in say.heard]  # a stranger does not turn up with the message after all
    if others and end in {"succeeded", "failed", "open"} and draw(_sometimes):
        return _executed_twice(draw, say, {worker: end}, {worker: stated}, draw(st.sampled_from(others)))
    if end == "open":
        return TaskState.ACTIVE
    say(end, worker)
    if end == "revoked" and draw(st.booleans()):
        say("revoked", draw(st.sampled_from([one for one in WORKERS if one != worker])))
    return {"succeeded": stated or TaskState.COMPLETED, "failed": TaskState.FAILED, "revoked": TaskState.CANCELED}.get(
        end
    )


def _handed_back(draw: st.DrawFn, say: "_Speaker", worker: str) -> None:
    """The broker gets the message back and gives it to somebody, maybe to the same process."""
    first = draw(st.sampled_from([worker, *WORKERS]))
    say("received", first)
    if draw(st.booleans()):
        _refused(draw, say, first)  # and the tracker has forwarded it
        return
    say.history.kinds.add("redelivery")
    say.handed_back.add(first)
    if draw(st.booleans()):
        say.started.add(first)
        say("started", first)
    say(draw(st.sampled_from(["rejected", "cancelled"])), first)


def _refused(draw: st.DrawFn, say: "_Speaker", worker: str) -> None:
    """A gate does not let the task start; that of a thread speaks after the pool has told that it has."""
    say.history.kinds.add("held")
    say.handed_back.discard(worker)  # of what a process passes on, the last counts
    if draw(st.booleans()):
        say.started.add(worker)
        say("started", worker)
    say("held", worker)


def _reported(draw: st.DrawFn, say: "_Speaker", worker: str) -> None:
    """The body says how far it is; and so does a process that does not have the task."""
    for _ in range(draw(st.integers(0, 3))):
        say.history.kinds.add("progress")
        say("progress", worker)
    idle = [one for one in WORKERS if one not in say.heard]
    if idle and draw(_sometimes):
        say("progress", draw(st.sampled_from(idle)))


def _given_in_vain(draw: st.DrawFn, say: "_Speaker") -> None:
    """The broker may give somebody else a copy, which does not start."""
    idle = [one for one in WORKERS if one not in say.heard]
    if idle and draw(_sometimes):
        other = draw(st.sampled_from(idle))
        say("received", other)
        _refused(draw, say, other)


def _stated(draw: st.DrawFn, say: "_Speaker", worker: str) -> TaskState | None:
    """The body states what came of its work, maybe in an earlier execution too, which came to nothing."""
    if not draw(_sometimes):
        return None
    say.history.kinds.add("statement")
    for _ in range(draw(st.integers(1, 2))):
        say("stated", worker)
    state = say.history.events[-1].fields["statement"]["state"]
    return TaskState(state)


def _executed_twice(
    draw: st.DrawFn, say: "_Speaker", ends: dict[str, str], stated: dict[str, TaskState | None], other: str
) -> TaskState:
    """The broker has given the message to another process as well, while the first one was at work."""
    say.history.kinds.add("redelivery")
    say("received", other)
    say("started", other)
    ends = ends | {other: draw(st.sampled_from(["succeeded", "failed", "open"]))}
    for one in draw(st.permutations(list(ends))):
        if ends[one] != "open":
            say(ends[one], one)
    if "succeeded" in ends.values():
        decides = max(one for one, end in ends.items() if end == "succeeded")
        return stated.get(decides) or TaskState.COMPLETED
    return TaskState.ACTIVE if "open" in ends.values() else TaskState.FAILED


@dataclass
class _Speaker:
    history: History
    clock: "count[int]"
    retries: int
    handed_back: set[str] = field(default_factory=set)
    started: set[str] = field(default_factory=set)
    heard: set[str] = field(default_factory=set)

    def __call__(self, type_: str, worker: str) -> None:
        one = told(type_, delivery=self.history.delivery, retries=self.retries, at=next(self.clock), worker=worker)
        self.history.events.append(one)
        self.heard.add(worker)
        revokers = {known.worker for known in self.history.events if known.type == "task-revoked"}
        if len(revokers) > 1:
            self.history.kinds.add("revokes")


@st.composite
def anything(draw: st.DrawFn) -> list[Event]:
    """Any events at all about the deliveries and retries of one task; clocks are skewed, coarse and of no use."""
    one = st.builds(
        told,
        st.sampled_from(TYPES),
        delivery=st.integers(1, 3),
        retries=st.integers(0, 3),
        at=st.integers(0, 4),
        worker=st.sampled_from(WORKERS),
    )
    return draw(st.lists(one, max_size=12))
