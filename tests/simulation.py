"""A tracker, a broker, an event log, a result backend and workers in memory: what happens between them, step by step.

The database is a real one, and so are the turns of the tracker and what a gate decides. Everything else is a list, and
whoever runs the simulation decides what happens next: who is killed, how far the log is read, what of the outbox goes
out. Time passes only from turn to turn, and then by more than anything is held back for.
"""

import base64
import json
from dataclasses import asdict, dataclass, field, replace
from enum import Enum, auto
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobrunner.order_kinds import OrderKind
from jobrunner.records import HeldMessage
from jobrunner.snapshot import Refusal, Sent, Snapshot
from jobrunner.store import tracking
from jobrunner.wire import HEADER, RUN_HEADER, SNAPSHOT_APPLIED
from tests.apps import new_runner, order
from tests.builders import event, moment
from tracker.absorb import absorb
from tracker.chores import do_chores
from tracker.eventlog import Entry
from tracker.fold import Event
from tracker.items import items_of
from tracker.orders import apply_orders
from tracker.prerequisites import tell_dependents
from tracker.recover import QueueWatch, Voided, give_up_worker, resend_outbox, void_outbox
from tracker.roster import Roster
from tracker.sending import Outgoing, take_held, take_ready
from tracker.turn import Turn
from workers.statements import in_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobrunner.statements import ItemError, Statement

#: Seconds between two turns: longer than any task is held back.
_BETWEEN = 100


@dataclass(frozen=True, kw_only=True)
class Message:
    """A task message on the broker; of what the tracker has not sent, `first` is None."""

    task_id: str
    celery_id: str
    root_id: str
    name: str = "subtask"
    retries: int = 0
    run: int | None = None
    batch: str | None = None
    first: int | None = None
    parent: str | None = None
    avoid: tuple[str, ...] = ()
    redelivered: bool = False

    @property
    def is_from_tracker(self) -> bool:
        """Whether the tracker has sent it as it is, and can do so again."""
        return self.first is not None and self.retries == self.first

    @property
    def sent(self) -> Sent:
        """What a gate sees of it."""
        return Sent(
            root_id=self.root_id,
            celery_id=self.celery_id,
            name=self.name,
            run=self.run,
            batch=self.batch if self.is_from_tracker else None,
            redelivered=self.redelivered,
            avoid=self.avoid,
        )

    def whole(self) -> dict[str, Any]:
        """What goes back to the tracker."""
        ours = {
            "v": 1,
            "task": self.task_id,
            "run": self.run,
            "first": self.first,
            "batch": self.batch,
            "avoid": self.avoid,
        }
        headers = {
            "id": self.celery_id,
            "task": self.name,
            "root_id": self.root_id,
            "retries": self.retries,
            "parent_id": self.parent,
        }
        return {
            "body": base64.b64encode(b"[]").decode(),
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "headers": headers | ({HEADER: ours} if self.first is not None else {RUN_HEADER: self.run}),
            "properties": {"exchange": "", "routing_key": "celery"},
            "queue": "celery",
        }

    @classmethod
    def read(cls, headers: str) -> "Message":
        """Make a message of what the tracker forwards."""
        told = json.loads(headers)
        ours = told.get(HEADER, {})
        return cls(
            task_id=ours.get("task", told["id"]),
            celery_id=told["id"],
            root_id=told["root_id"],
            name=told["task"],
            retries=told["retries"],
            run=ours.get("run", told.get(RUN_HEADER)),
            batch=ours.get("batch"),
            first=ours.get("first"),
            parent=told["parent_id"],
            avoid=tuple(ours.get("avoid", ())),
        )


@dataclass
class Execution:
    """What a process of a pool is at; once `dying`, it was sent a signal."""

    message: Message
    dying: bool = False


@dataclass
class Worker:
    """A worker process. What it has said and not yet written is `untold`; `tasks` it has had."""

    name: str
    source: str
    #: Whether its pool can end what it runs.
    terminates: bool = True
    snapshot: Snapshot | None = None
    consumes: bool = False
    tasks: set[str] = field(default_factory=set)
    prefetched: list[Message] = field(default_factory=list)
    running: list[Execution] = field(default_factory=list)
    untold: list[Event] = field(default_factory=list)


class Trouble(Enum):
    """What may befall a turn of the tracker."""

    NONE = auto()
    #: It is killed before the commit: nothing has happened.
    KILLED_BEFORE_COMMIT = auto()
    #: It is killed after the commit, and the snapshot is not stored.
    KILLED_AFTER_COMMIT = auto()
    #: It is killed while it publishes.
    KILLED_PUBLISHING = auto()
    #: The broker breaks while it publishes; the tracker lives.
    BROKER_BREAKS = auto()
    #: The result backend is slow: the snapshot is stored after everything was published, and only in the next turn.
    SNAPSHOT_LATE = auto()


class _KilledError(Exception):
    """The tracker is killed within a transaction."""


class World:
    """All there is; `redelivers` as in `tracker.dispatch`: the broker gives back at once what a dead worker had.

    Whether failures propagate is what the tracker is told.
    """

    def __init__(self, folder: Path, *, redelivers: bool, database: str | None = None) -> None:
        self.runner = new_runner(folder, database=database)
        self.redelivers = redelivers
        self.propagates = False
        self.gate: Callable[[Message], None] = lambda _: None
        self.queue: list[Message] = []
        self.log: list[Event] = []
        self.backend = ""
        self.workers: dict[str, Worker] = {}
        self.dead: set[str] = set()
        #: Tasks that a lost worker has had: they may run twice.
        self.lost: set[str] = set()
        self.unacked: list[Message] = []
        self.turns = 0
        self.propagates = False
        self._numbers = count(1)
        self._moments = count()
        self._position = 0
        self._take_over()

    # ---- the tracker ---------------------------------------------------------------------------------------

    def _take_over(self) -> None:
        """Begin as another tracker: it knows what was committed."""
        self._noted: list[tuple[str, int]] = []
        self._forwarded: list[str] = []
        self._in_doubt = True
        self._voided: Voided | None = None
        self._queues = QueueWatch()
        self._roster = Roster()
        self._late: str | None = None
        with self.runner.database.read() as connection:
            self._roster.know(tracking.workers_to_hear(connection), self.turns)
            self.dead |= self._roster.sources.keys() - self.workers.keys()
            self.backend = tracking.load_snapshot(connection).dumps()

    def turn(self, number: int, trouble: Trouble = Trouble.NONE, sent: int = 0) -> None:
        """Take a turn on the next `number` events of the log; in trouble, `sent` messages go out."""
        self.turns += 1
        events = self.log[self._position : self._position + number]
        try:
            with self.runner.database.write() as connection:
                turn = Turn(connection, moment(self.turns * _BETWEEN), propagates=self.propagates)
                turn.drained = self._position + len(events) == len(self.log)
                turn.stored = json.loads(self.backend)["version"]
                outgoing = self._transaction(turn, events)
                snapshot = tracking.load_snapshot(connection).dumps()
                _die_if(trouble is Trouble.KILLED_BEFORE_COMMIT)
        except _KilledError:
            self._take_over()
            return
        self._position += len(events)
        self._noted, self._forwarded = [], []
        if trouble is Trouble.KILLED_AFTER_COMMIT:
            self._take_over()
            return
        self.backend, self._late = self._late or snapshot, None
        if trouble is Trouble.SNAPSHOT_LATE:
            self._late = snapshot
        self._publish(outgoing, trouble, sent)

    def _transaction(self, turn: Turn, events: list[Event]) -> list[Outgoing | HeldMessage]:
        tracking.mark_sent(turn.connection, self._noted, turn.now)
        tracking.forget_held(turn.connection, self._forwarded)
        replaced = self._hear(turn, events)
        absorb(turn, events, self._roster.replaced)
        for name, source in replaced.items():
            give_up_worker(turn, name, living_source=source, redelivers=self.redelivers)
        if turn.drained:
            self._recover(turn)
        turn.take_up()
        apply_orders(turn)
        turn.move_on()
        do_chores(turn)
        outgoing: list[Outgoing | HeldMessage] = [*take_ready(turn), *take_held(turn)]
        turn.settle()
        tell_dependents(turn)
        return outgoing

    def _hear(self, turn: Turn, events: list[Event]) -> dict[str, str | None]:
        """Note who has come, and return the names of which replaced processes may have told something."""
        entries = [_entry(one) for one in events]
        arrivals = self._roster.hear(entries, self.turns)
        for one in arrivals:
            tracking.save_worker(turn.connection, one.name, one.source, one.pid, online=True, now=turn.now)
        return {one.name: one.source for one in arrivals} | self._roster.heard_late()

    def _recover(self, turn: Turn) -> None:
        if self._in_doubt:
            self._voided, self._in_doubt = void_outbox(turn), False
        voided = self._voided
        known = voided and turn.stored >= voided.version
        if voided and known and not tracking.unacknowledged(turn.connection, voided.version):
            resend_outbox(turn, voided)
            self._voided = None
        tracking.drop_obsolete(turn.connection)
        for name in sorted(self.dead):
            give_up_worker(turn, name, living_source=None, redelivers=self.redelivers)
            tracking.lose_worker(turn.connection, name)
            self._roster.sources.pop(name, None)
        self.dead.clear()
        if not any(one.untold for one in self.workers.values()):  # they take milliseconds, and the look seconds
            self._queues.look(turn, lambda _: not self.queue)

    def _publish(self, outgoing: list[Outgoing | HeldMessage], trouble: Trouble, sent: int) -> None:
        if trouble in {Trouble.KILLED_PUBLISHING, Trouble.BROKER_BREAKS}:
            self.queue += [self._message(one) for one in outgoing[:sent]]
            if trouble is Trouble.KILLED_PUBLISHING:
                self._take_over()
            self._in_doubt = True
        else:
            self.queue += [self._message(one) for one in outgoing]
            self._forwarded = [one.id for one in outgoing if isinstance(one, HeldMessage)]
            letters = [one.letter for one in outgoing if isinstance(one, Outgoing)]
            self._noted = [(one.task_id, one.delivery) for one in letters]

    def _message(self, one: Outgoing | HeldMessage) -> Message:
        if isinstance(one, HeldMessage):
            return Message.read(one.headers)
        letter = one.letter
        if letter.only_items is not None:
            assert json.loads(items_of(self.runner.database, letter))
        return Message(
            task_id=letter.task_id,
            celery_id=one.celery_id,
            root_id=letter.job_id,
            name=json.loads(letter.headers)["task"],
            retries=letter.first_retries,
            run=letter.run,
            batch=one.batch,
            first=letter.first_retries,
            avoid=tuple(one.avoid),
        )

    @property
    def is_read(self) -> bool:
        """Whether the tracker has nothing left to read or to note."""
        return self._position == len(self.log) and not (
            self._noted or self._forwarded or self._in_doubt or self._voided
        )

    # ---- workers -------------------------------------------------------------------------------------------

    def come(self, name: str, *, terminates: bool) -> None:
        """Start a worker, if none bears the name; it says by which snapshot it goes before it consumes."""
        if name in self.workers:
            return
        worker = Worker(name=name, source=f"{name}/{next(self._numbers)}", terminates=terminates)
        self.workers[name] = worker
        self.dead.discard(name)
        self.read(worker)
        self.say(worker, "worker-online")
        self.flush(worker)

    def kill(self, worker: Worker) -> None:
        """Kill a worker: what it has not written is lost, and what it had not begun goes back some time."""
        del self.workers[worker.name]
        self.lost |= worker.tasks
        self.dead.add(worker.name)
        back = [replace(one, redelivered=True) for one in worker.prefetched]
        if self.redelivers:
            self.queue += back
        else:
            self.unacked += back

    def order(self, kind: OrderKind, job_id: str, task_id: str | None = None, **arguments: Any) -> None:
        """Give an order."""
        order(self.runner, kind, job_id, task_id, **arguments)

    def time_out(self) -> None:
        """Let the broker give back what dead workers had (Redis: after the visibility time-out)."""
        self.queue += self.unacked
        self.unacked = []

    def read(self, worker: Worker) -> None:
        """Let a worker read the snapshot, end what it says must end, and acknowledge it."""
        known, worker.snapshot = worker.snapshot, Snapshot.loads(self.backend)
        if worker.snapshot == known:
            return
        left = []
        for one in worker.running:
            if worker.snapshot.grace(one.message.sent) is None:
                continue
            if worker.terminates:
                one.dying = True
            else:
                left.append(one.message.celery_id)
        self.say(worker, SNAPSHOT_APPLIED, version=worker.snapshot.version, left=left)

    def prefetch(self, worker: Worker, message: Message) -> None:
        """Hand a message to a worker."""
        self.queue.remove(message)
        worker.tasks.add(message.task_id)
        worker.prefetched.append(message)
        self.tell(worker, "received", message)

    def start(self, worker: Worker, message: Message) -> None:
        """Let a worker begin what it has prefetched, if its gate does not refuse it."""
        worker.prefetched.remove(message)
        refusal = self._refusal(worker, message)
        if refusal is not None:
            self.hold(worker, message, refusal)
            return
        self.gate(message)
        self.tell(worker, "started", message)
        worker.running.append(Execution(message))

    def _refusal(self, worker: Worker, message: Message) -> Refusal | None:
        return worker.snapshot.refusal(message.sent, worker.name) if worker.snapshot else Refusal.UNINFORMED

    def hold(self, worker: Worker, message: Message, refusal: Refusal) -> None:
        """Let a gate refuse a message; one that the tracker has not sent goes back to it whole, and surely so."""
        wanted = refusal not in {Refusal.CANCELED, Refusal.VOID} and not message.is_from_tracker
        self.tell(worker, "held", message, reason=refusal.value, **({"message": message.whole()} if wanted else {}))
        if wanted:
            self.flush(worker)

    def state(self, worker: Worker, one: Execution, statement: "Statement", errors: "Sequence[ItemError]" = ()) -> None:
        """Let a body state something; that is told before anything else happens."""
        for first, part in in_parts(errors):
            self.tell(worker, "stated", one.message, errors=part, first=first)
        told = json.loads(json.dumps(asdict(statement)))
        self.tell(worker, "stated", one.message, statement=told)
        self.flush(worker)

    def end(self, worker: Worker, one: Execution, how: str, *, result: str | None = None) -> None:
        """Let a task end: `succeeded`, `failed`, `retried` or, if it was sent a signal, `terminated`."""
        worker.running.remove(one)
        if how == "retried":
            again = replace(one.message, retries=one.message.retries + 1, redelivered=False)
            if again.first is not None:
                others = (name for name in again.avoid if name != worker.name)
                again = replace(again, avoid=(*others, worker.name)[-3:])
            self.queue.append(again)
        fields: dict[str, Any] = {"exception": "no"} if how in {"failed", "retried"} else {}
        if how == "succeeded" and result is not None:
            fields["result"] = result
        if how == "terminated":
            how, fields = "revoked", {"terminated": True, "signum": "SIGTERM", "expired": False}
        self.tell(worker, how, one.message, **fields)

    def call(self, worker: Worker, one: Execution) -> None:
        """Let a body send a subtask; that is told before anything else happens."""
        celery_id = f"subtask-{next(self._numbers)}"
        message = Message(
            task_id=celery_id,
            celery_id=celery_id,
            root_id=one.message.root_id,
            run=one.message.run,
            parent=one.message.celery_id,
        )
        self.tell(worker, "sent", message, queue="celery")
        self.flush(worker)
        self.queue.append(message)

    # ---- what workers say ----------------------------------------------------------------------------------

    def tell(self, worker: Worker, type_: str, message: Message, /, **fields: Any) -> None:
        """Let a worker say something of a task."""
        if message.parent is not None and type_ in {"sent", "received"}:
            fields |= {"name": "subtask", "parent_id": message.parent}
        self.say(worker, f"task-{type_}", message, **fields, root_id=message.root_id)
        if message.first is None:
            # What was begun and never told of looks like a message that the broker keeps for a worker that is gone:
            # its job waits for it for ever. It takes a worker that dies within milliseconds.
            self.flush(worker)

    def say(self, worker: Worker, type_: str, message: Message | None = None, /, **fields: Any) -> None:
        """Let a worker say something."""
        at = self.turns * _BETWEEN + next(self._moments) / 10_000
        told = event(type_, at=at, worker=worker.name, source=worker.source, fields=fields)
        told = replace(told, type=type_, uuid=message.celery_id if message else "")
        worker.untold.append(replace(told, retries=message.retries if message else None))

    def flush(self, worker: Worker) -> None:
        """Write what a worker has said into the log."""
        self.log += worker.untold
        worker.untold.clear()

    # ---- the end -------------------------------------------------------------------------------------------

    def work_on(self) -> None:
        """Let everybody who lives do all there is to do, without any trouble."""
        self.time_out()
        self.come("last", terminates=True)
        for worker in list(self.workers.values()):
            self.read(worker)
            worker.consumes = True
        for message in list(self.queue):
            self.prefetch(self.workers["last"], message)
        for worker in self.workers.values():
            for message in list(worker.prefetched):
                self.start(worker, message)
            for one in list(worker.running):
                self.end(worker, one, "terminated" if one.dying else "succeeded")
            self.flush(worker)
        self.turn(len(self.log))

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is left to do for anybody but the tracker."""
        return self.is_read and not self.queue and not any(one.prefetched for one in self.workers.values())


def _entry(event: Event) -> Entry:
    """Return what the log has of one event, as far as it says who lives."""
    return Entry(source=event.source, worker=event.worker, events=[{"type": event.type, "pid": event.pid}])


def _die_if(condition: bool) -> None:
    if condition:
        raise _KilledError
