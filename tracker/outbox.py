"""The outbox between two turns: what was published, for the next turn to note, and what the broker has not taken.

A message is published only after the row that says so is committed, and noted as sent in the next transaction. What
lies between, because the broker broke in the middle or a tracker before us did, is *in doubt*.
"""

import logging
import time
from datetime import UTC, datetime

from amqp.exceptions import AMQPError, MessageNacked
from kombu.exceptions import KombuError, OperationalError
from redis.exceptions import RedisError

from jobrunner.records import HeldMessage
from tracker.dispatch import Dispatch, Parcel
from tracker.fold import Event
from tracker.sending import Outgoing

logger = logging.getLogger(__name__)

#: What is raised when a broker is away.
BROKER_ERRORS = (OSError, KombuError, OperationalError, RedisError, AMQPError, MessageNacked)

#: Seconds until what the broker has not taken goes again.
_RETRY = 0.5
#: Messages that the broker has not taken, beyond which no more are made.
_HELD_BACK = 500


class Outbox:
    """What the present leader has published, and what it has to publish again."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch
        self._published: list[Parcel] = []
        #: Tasks of which no message can be made, told as a worker would tell it.
        self.failed: list[Event] = []
        self.reset()

    def reset(self) -> None:
        """Begin as a new leader: whatever is unsent may have gone out."""
        self.in_doubt = True
        self._again: list[Parcel] = []
        self._again_at = time.monotonic()
        self._held_back: set[str] = set()

    def publish(self, outgoing: list[Parcel], *, until: float) -> None:
        """Publish what a committed turn has made ready.

        Raises:
            TooLateError: it is later than `until` by the monotonic clock.
            Exception: one of `BROKER_ERRORS`; some may have gone out, which is decided once the log can be read again.
        """
        try:
            published = self._dispatch.publish(outgoing, until=until)
        except BROKER_ERRORS:
            self.in_doubt = True
            raise
        self._published, self.failed = published.taken, [_unsendable(*one) for one in published.failed]
        self._published += [one for one, _ in published.failed if isinstance(one, HeldMessage)]  # over as well
        self._hold_back(published.again)

    def sent(self) -> list[tuple[str, int]]:
        """Return what the broker has and the database does not know yet: (task, delivery)."""
        return [(one.letter.task_id, one.letter.delivery) for one in self._published if isinstance(one, Outgoing)]

    def forwarded(self) -> list[str]:
        """Return the messages of others that need not be kept any more."""
        return [one.id for one in self._published if isinstance(one, HeldMessage)]

    def note(self) -> None:
        """Forget what a turn has committed: what was sent, and what failed."""
        self._published, self.failed = [], []

    def forget_sent(self) -> None:
        """Forget what was sent, which is noted."""
        self._published = []

    @property
    def has_news(self) -> bool:
        """Whether the next turn has something to note."""
        return bool(self._published or self.failed)

    @property
    def is_waiting(self) -> bool:
        """Whether the next turn must know what the broker has; it does not wait for events then."""
        return bool(self._published)

    # ---- what the broker has surely not taken --------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether so much waits for the broker that no more should be made."""
        return len(self._again) > _HELD_BACK

    @property
    def is_due(self) -> bool:
        """Whether something goes again now."""
        return bool(self._again) and time.monotonic() > self._again_at

    def take_due(self) -> list[Parcel]:
        """Return what goes again now, if it is time."""
        if time.monotonic() < self._again_at:
            return []
        due, self._again = self._again, []
        return due

    def doubt(self) -> None:
        """Note that the broker is away: all that is unsent is decided anew."""
        self.in_doubt |= bool(self._again)
        self._again = []

    def _hold_back(self, untaken: list[Parcel]) -> None:
        """Keep what the broker has surely not taken, its queue being full or missing: the same delivery goes again."""
        self._again += untaken
        self._again_at = time.monotonic() + _RETRY
        queues = {one.queue for one in self._again}
        if queues - self._held_back:
            logger.warning("The broker takes no messages for %s.", ", ".join(queues), extra={"action": "held-back"})
        self._held_back = queues


def _unsendable(one: Parcel, why: str) -> Event:
    """Say that a task has failed because no message can be made of it, as a worker would say it."""
    return Event(
        type="task-failed",
        uuid=one.celery_id,
        worker="tracker",
        at=datetime.now(UTC),
        retries=one.retries,
        fields={"exception": f"It cannot be sent ({why})"},
    )
