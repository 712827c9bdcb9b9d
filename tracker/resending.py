"""When something is taken for lost: only while the event log is drained, so that nothing that was told is unknown.

What is sent again then, and why, is `tracker.recover`.
"""

import logging
import time
from datetime import timedelta

from jobrunner.masking import mask_text
from jobrunner.store import tracking
from tracker.dispatch import Dispatch
from tracker.hearing import Hearing
from tracker.holding import workers_know
from tracker.outbox import BROKER_ERRORS, Outbox
from tracker.recover import QueueWatch, Voided, give_up_worker, resend_outbox, void_outbox
from tracker.turn import Turn
from tracker.untouched import UntouchedWatch

logger = logging.getLogger(__name__)

#: Seconds between looks at suspicious queues, and at what can be forgotten.
_LOOK = 5.0
#: Seconds between looks at tasks of which nothing is heard.
_WATCH = 1.0
#: Seconds after the broker came back in which nothing is taken for lost: workers try to reach it every 2 s, and have
#: yet to tell what they have done meanwhile.
_CALM = 3.0
#: Seconds that workers have to say that they know what is void; some may not be able to.
_UNKNOWING = 60.0
#: How long after the end of a job its messages may still be on a broker, and how much is forgotten at a time.
_RETIRED = timedelta(days=7)
_RETIRE = 100


class Resending:
    """What the present leader takes for lost, and has yet to decide."""

    def __init__(self, dispatch: Dispatch, outbox: Outbox, hearing: Hearing) -> None:
        self._dispatch = dispatch
        self._outbox = outbox
        self._hearing = hearing
        self._queues = QueueWatch()
        self._untouched = UntouchedWatch()
        #: Whether there are messages that gates have handed back whole.
        self.has_held = False
        self._voided: Voided | None = None
        self._voided_at = 0.0
        self._looked = self._watched = self._calm_at = time.monotonic()

    def excuse(self) -> None:
        """Take nothing for lost for a while: the broker was away, and nobody could be heard."""
        self._calm_at = time.monotonic() + _CALM
        self._hearing.excuse()
        self._untouched.excuse()

    def decide(self, turn: Turn) -> None:
        """Send again what is lost. Only to be asked once the event log is drained."""
        if time.monotonic() < self._calm_at:
            return
        self._clear_outbox(turn)
        for name in self._hearing.silent():
            _tell(self._give_up(turn, name, None), f"of the lost worker {name}")
            tracking.lose_worker(turn.connection, name)
        self._hearing.forget_series(turn)
        if (moment := time.monotonic()) - self._watched > _WATCH:
            self._watched = moment
            _tell(self._untouched.look(turn, moment), "of which nothing was heard")
        if time.monotonic() - self._looked > _LOOK:
            self._looked = time.monotonic()
            self._forget(turn)
            self._look(turn)

    def replace(self, turn: Turn, name: str, living_source: str | None) -> None:
        """Give up what processes held whose name another one bears, or did until it fell silent: names are unique."""
        _tell(self._give_up(turn, name, living_source), f"of the worker {name} before")

    def _give_up(self, turn: Turn, name: str, living_source: str | None) -> int:
        return give_up_worker(turn, name, living_source=living_source, redelivers=self._dispatch.redelivers)

    # ---- the outbox ----------------------------------------------------------------------------------------

    def _clear_outbox(self, turn: Turn) -> None:
        """Have what may have gone out be void, and once all workers know that, send it under its next delivery."""
        if self._outbox.in_doubt:
            self._voided, self._voided_at = void_outbox(turn), time.monotonic()
            self._outbox.in_doubt, self.has_held = False, tracking.has_held_messages(turn.connection)
        if self._voided is not None and self._is_known(turn, self._voided):
            _tell(resend_outbox(turn, self._voided), "left in the outbox")
            self._voided = None

    def _is_known(self, turn: Turn, voided: Voided) -> bool:
        """Whether no worker starts what is void, or some have not said so for too long."""
        if time.monotonic() - self._voided_at > _UNKNOWING:
            logger.warning("Not all workers know which messages are void.", extra={"action": "void-unknown"})
            return True
        return workers_know(turn, voided.version)

    # ---- from time to time ---------------------------------------------------------------------------------

    def _forget(self, turn: Turn) -> None:
        """Remove what nobody will need any more: messages handed back, and entries of the snapshot."""
        if self.has_held:
            tracking.drop_obsolete(turn.connection)
            self.has_held = tracking.has_held_messages(turn.connection)
        tracking.retire_entries(turn.connection, turn.now - _RETIRED, _RETIRE)
        if tracking.forget_failures(turn.connection, turn.now - _RETIRED):
            tracking.next_version(turn.connection)

    def _look(self, turn: Turn) -> None:
        try:
            _tell(self._queues.look(turn, self._dispatch.is_empty), "lost by their queue")
        except BROKER_ERRORS as error:  # it is asked before anything is written; if it is away, the next read will tell
            logger.debug("Ignored: %s", mask_text(str(error)))


def _tell(number: int, which: str) -> None:
    if number:
        logger.warning("Sending %d tasks again %s.", number, which, extra={"action": "sent-again", "tasks": number})
