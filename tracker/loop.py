"""The tracker's loop: read events, then one transaction, then publish what it made ready, again and again.

Killing it between any two steps is safe. Events count as read only when the transaction that folded them has
committed, because their position is written in it; a message is published only after the row that says so, and noted
as sent in the next transaction; what was committed but not noted is sent again by whoever leads next.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from celery import Celery

from jobrunner.errors import UnreachableError
from jobrunner.masking import mask_text
from jobrunner.store import leases, tracking
from jobrunner.store.database import Database
from tracker.absorb import absorb, absorb_apart
from tracker.chores import do_chores
from tracker.dispatch import Dispatch, Parcel
from tracker.eventlog import Batch, Entry, EventLog
from tracker.events import Told, read_events
from tracker.folding import fold
from tracker.hearing import Hearing
from tracker.items import items_of
from tracker.orders import apply_orders
from tracker.outbox import BROKER_ERRORS, Outbox
from tracker.outlets import TooLateError
from tracker.plain import PlainReceiver
from tracker.prerequisites import tell_dependents
from tracker.rejects import Tally
from tracker.release import Release
from tracker.resending import Resending
from tracker.sending import take_held, take_ready
from tracker.snapshot import SnapshotStore
from tracker.turn import Turn

if TYPE_CHECKING:
    from sqlalchemy import Connection

logger = logging.getLogger(__name__)

#: Seconds that the lease runs; a standby takes over this long after the leader's last turn.
LEASE = 5.0
_RENEW = LEASE / 3
#: Seconds that an idle turn waits for events; also how late a submission without a wake-up is seen.
_WAIT = 0.2
#: Seconds between two looks for a lease, a broker or a database that is away.
_RETRY = 0.5
#: Under load, seconds from the begin of one turn to the next: a turn costs the same for one event as for fifty.
_PACE = 0.05
_LOAD = 10
#: Plain events that one turn takes.
_PLAIN = 5_000


class LeaseLostError(Exception):
    """Another tracker leads now; what this one had not committed is void."""


class Tracker:
    """Leads, or waits to. `holder` names this process in the lease; `database`, `app` and `log` are what it works on.

    Whether failures propagate is for jobs that do not say so themselves.
    """

    def __init__(
        self, *, database: Database, app: Celery, log: EventLog, holder: str, propagate_failures: bool = False
    ) -> None:
        self._database = database
        self._propagates = propagate_failures
        self._log = log
        self._holder = holder
        self._dispatch = Dispatch(app, holder, partial(items_of, database))
        self._outbox = Outbox(self._dispatch)
        self._stop = threading.Event()
        self._leading = self._standing_by = False
        self._apart = False
        self._tally = Tally()
        self._plain = PlainReceiver(app)
        self._release = Release(app, database)
        self._snapshots = SnapshotStore(app)
        self._heard: list[Entry] = []
        self._reset()

    def _reset(self) -> None:
        self._position: str | None = None
        self._hearing = Hearing()
        self._outbox.reset()
        self._resending = Resending(self._dispatch, self._outbox, self._hearing)
        self._trouble: str | None = None
        self._unsent = self._goes_on = False
        self._renewed = time.monotonic()
        self._drained_at: float | None = None

    def stop(self) -> None:
        """End the loop after the present turn; may be called from a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Lead whenever the lease is free, until stopped."""
        while not self._stop.is_set():
            try:
                if self._leading or self._take_lease():
                    self._turn()
                else:
                    self._stand_by()
            except LeaseLostError:
                logger.warning("Another tracker has taken the lease.", extra={"action": "lease-lost"})
                self._step_down()
            except UnreachableError as error:
                self._step_down()  # what this process remembers may not be what was committed: begin anew
                self._say_trouble(str(error))
                self._stop.wait(_RETRY)
            except Exception:  # whatever an odd event may lead to: it is looked for, once
                if self._apart:
                    raise
                logger.exception("A turn failed; its events are folded apart.", extra={"action": "folding-apart"})
                self._step_down()  # begin anew, as above
                self._apart = True
        self._give_back()

    # ---- the lease -----------------------------------------------------------------------------------------

    def _take_lease(self) -> bool:
        asked = time.monotonic()
        with self._database.write() as connection:
            if not leases.acquire(connection, self._holder, LEASE):
                return False
            self._note_sent(connection, _now())  # true whoever has led since
            self._reset()
            self._renewed = asked
            self._position = leases.read_position(connection, self._log.name)
            self._hearing.know(connection)
            self._resending.has_held = tracking.has_held_messages(connection)
            snapshot = tracking.load_snapshot(connection)
        self._snapshots.until = asked + LEASE
        self._snapshots.start(snapshot)
        self._plain.start()
        self._release.start()
        self._outbox.forget_sent()
        self._leading, self._standing_by = True, False
        logger.info("Tracking; event log from %s.", self._position or "its beginning", extra={"action": "lease-taken"})
        return True

    def _renew(self, connection: "Connection") -> None:
        """Extend our lease within a transaction that only the leader may commit."""
        asked = time.monotonic()  # it runs from here at the latest, however long the transaction takes
        trouble = self._trouble or (self._snapshots.trouble if self._unsent else None)
        if not leases.renew(connection, self._holder, LEASE, trouble, self._drained_ago()):
            raise LeaseLostError
        self._renewed = asked
        self._snapshots.until = asked + LEASE

    def _stand_by(self) -> None:
        self._deafen()
        if not self._standing_by:
            logger.info("Another tracker leads; standing by.", extra={"action": "standing-by"})
            self._standing_by = True
        self._stop.wait(_RETRY)

    def _deafen(self) -> None:
        """Leave plain events, the snapshot, and values that nobody needs any more, to the tracker that leads."""
        self._plain.stop()
        self._release.stop()
        self._snapshots.stop()
        self._heard = []

    def _step_down(self) -> None:
        self._leading = False
        self._snapshots.stop()
        self._quietly(self._log.close)  # RabbitMQ's queue has one reader: the next tracker waits for this one to go

    def _give_back(self) -> None:
        if self._leading:
            with self._database.write() as connection:
                self._note_sent(connection, _now())
                leases.release(connection, self._holder)
        self._log.close()
        self._dispatch.close()
        self._plain.stop()
        self._release.stop()
        self._snapshots.stop()

    # ---- one turn ------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        began, stored = time.monotonic(), self._snapshots.stored or 0
        batch = self._read()
        self._heard = self._heard or self._plain.take(_PLAIN)  # kept until they are committed: nobody else has them
        if batch is None and not self._heard and not self._due():
            return
        with self._database.write() as connection:
            self._renew(connection)
            drained = self._drained_at is not None and self._drained_at >= began
            turn = Turn(connection, _now(), drained=drained, stored=stored, propagates=self._propagates)
            told = self._hear(turn, batch)
            outgoing = self._move(turn)
            snapshot = self._snapshots.newer(connection)
            if time.monotonic() - self._renewed > _RENEW:  # a long turn must not end with the lease used up
                self._renew(connection)
        if snapshot is not None:
            self._snapshots.keep(snapshot)
        self._note_committed(turn, told, batch)
        self._publish(([] if self._trouble else self._outbox.take_due()) + outgoing)
        if len(told.events) > _LOAD:
            self._stop.wait(max(0.0, began + _PACE - time.monotonic()))

    def _hear(self, turn: Turn, batch: Batch | None) -> Told:
        """Take in what was told since the last turn, and what follows from what was not."""
        self._note_sent(turn.connection, turn.now)
        told = self._absorb(turn, [*(batch.entries if batch else ()), *self._heard])
        if batch is not None:
            leases.write_position(turn.connection, self._log.name, batch.position)
        if self._trouble is None and (batch is None or batch.drained):
            self._resending.decide(turn)
        self._hearing.note(turn)
        fold(turn, self._outbox.failed)
        return told

    def _move(self, turn: Turn) -> list[Parcel]:
        """Let jobs and tasks go where events and orders lead them, and return what is to be published."""
        turn.take_up()
        apply_orders(turn)
        turn.move_on()
        do_chores(turn)
        outgoing = self._take_ready(turn)
        turn.settle()
        tell_dependents(turn)
        return outgoing

    def _note_committed(self, turn: Turn, told: Told, batch: Batch | None) -> None:
        """Go on from what is in the database now, and tell people what they should know of it."""
        self._goes_on = turn.goes_on
        self._apart = self._apart and batch is None and not self._heard
        self._outbox.note()
        self._heard = []
        self._tally.note(told.rejects, told.unknown, time.monotonic())
        self._tally.note_foreign(turn.foreign)
        self._tally.note_unplaced(turn.unplaced)
        self._hearing.tell_losses()
        if batch is not None:
            self._position = batch.position
            self._quietly(lambda: self._log.trim(batch.position))

    def _note_sent(self, connection: "Connection", now: datetime) -> None:
        tracking.mark_sent(connection, self._outbox.sent(), now)
        tracking.forget_held(connection, self._outbox.forwarded())

    def _take_ready(self, turn: Turn) -> list[Parcel]:
        self._resending.has_held |= turn.has_held
        if self._trouble or self._outbox.is_full:
            return []
        if self._snapshots.stored is None:  # nobody would start it
            self._unsent = tracking.work_waiting(turn.connection, turn.now)
            return []
        self._unsent = False
        return [*take_ready(turn), *(take_held(turn) if self._resending.has_held else ())]

    def _read(self) -> Batch | None:
        asked, wait = time.monotonic(), 0 if self._outbox.is_waiting or self._goes_on else _WAIT
        try:
            batch = self._log.read(self._position, wait)
        except BROKER_ERRORS as error:
            self._broker_away(error)
            return None
        # To find nothing at once proves nothing: what is pushed to us may be on its way.
        if batch.drained if batch is not None else wait:
            self._drained_at = asked
        if self._trouble is not None:
            logger.info("The broker is back.", extra={"action": "broker-back"})
            self._trouble = None
            self._resending.excuse()
        return batch

    def _drained_ago(self) -> float | None:
        return None if self._drained_at is None else time.monotonic() - self._drained_at

    def _due(self) -> bool:
        """Whether a turn without events has anything to do: notes, a lease to renew, new rows, tasks that are due."""
        if self._goes_on or self._outbox.has_news or self._outbox.in_doubt or self._outbox.is_due:
            return True
        if time.monotonic() - self._renewed > _RENEW:
            return True
        with self._database.read() as connection:
            return tracking.work_waiting(connection, _now())

    def _absorb(self, turn: Turn, entries: Sequence[Entry]) -> Told:
        arrivals = self._hearing.arrivals(entries)
        for arrival in arrivals:
            tracking.save_worker(turn.connection, arrival.name, arrival.source, arrival.pid, online=True, now=turn.now)
        self._hearing.count(turn, entries)
        told = read_events(entries)
        self._hearing.hear_lossy(turn, [event for event in told.events if event.source is None] if self._heard else [])
        if self._apart:
            absorb_apart(turn, told, self._hearing.replaced)
            self._renew(turn.connection)  # it may have taken long
        else:
            absorb(turn, told.events, self._hearing.replaced)
        # Only now: what a process that was replaced has begun, or ended, may have been told in this very batch.
        for name, source in ({one.name: one.source for one in arrivals} | self._hearing.heard_late()).items():
            self._resending.replace(turn, name, source)
        del told.rejects.rows[self._tally.room(time.monotonic()) :]
        tracking.insert_rejected(turn.connection, told.rejects.rows, turn.now)
        return told

    # ---- the broker ----------------------------------------------------------------------------------------

    def _publish(self, outgoing: list[Parcel]) -> None:
        if not outgoing:
            return
        if time.monotonic() - self._renewed > _RENEW:  # a long turn has used the lease up
            with self._database.write() as connection:
                self._renew(connection)
        try:
            self._outbox.publish(outgoing, until=self._renewed + LEASE)
        except TooLateError as error:
            self._quietly(self._dispatch.close)  # of what it had begun, nothing more goes out
            raise LeaseLostError from error
        except BROKER_ERRORS as error:
            self._broker_away(error)

    def _broker_away(self, error: BaseException) -> None:
        self._outbox.doubt()
        self._say_trouble(f"the broker cannot be reached ({error})")
        self._quietly(self._log.close)
        self._quietly(self._dispatch.close)
        self._stop.wait(_RETRY)

    def _quietly(self, action: Callable[[], object]) -> None:
        try:
            action()
        except BROKER_ERRORS as error:
            logger.debug("Ignored: %s", mask_text(str(error)))

    def _say_trouble(self, trouble: str) -> None:
        trouble = mask_text(trouble)  # it goes into the log and the database, and `show` tells it to everybody
        if self._trouble is None:
            logger.warning("Waiting: %s", trouble, extra={"action": "waiting"})
        self._trouble = trouble


def _now() -> datetime:
    return datetime.now(UTC)
