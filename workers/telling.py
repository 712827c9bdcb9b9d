"""Events that somebody waits for: in the event log when the wait is over, or never there."""

import threading
from collections.abc import Iterable

from workers.batches import EncodedEvent

#: Seconds that a try which is under way may take on top: the broker may have the events already.
_GRACE = 10.0


class Telling:
    """One batch of events, and its fate: who asked waits for it, the flusher's thread writes it.

    Whether the broker had taken a batch when the connection broke cannot be known. It is tried again under the same
    number until the wait is over, so only a broker that stays away from then on leaves its fate open.
    """

    def __init__(self, events: Iterable[EncodedEvent]) -> None:
        self.events = tuple(events)
        self.withdrawn = False
        self._changed = threading.Condition()
        self._writing = self._written = False

    def wait(self, timeout: float) -> bool:
        """Wait until the broker has them; after so many seconds, or an exception, they are withdrawn."""
        with self._changed:
            try:
                return self._changed.wait_for(lambda: self._written, timeout) or self._outlasts_a_try()
            finally:
                self.withdrawn = not self._written

    def _outlasts_a_try(self) -> bool:
        self._changed.wait_for(lambda: not self._writing, _GRACE)
        return self._written

    def begin(self) -> bool:
        """Return whether to write them, and if so have who waits for them await the outcome."""
        with self._changed:
            self._writing = not self.withdrawn
            return self._writing

    def end(self, *, written: bool) -> None:
        """Note how a try ended."""
        with self._changed:
            self._writing, self._written = False, written
            self._changed.notify_all()
