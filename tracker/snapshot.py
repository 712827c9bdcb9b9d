"""Keeps the snapshot in the result backend, where workers read which jobs are held and which messages are void.

A thread of the leading tracker does this, because a result backend may be slow or away and nobody must wait for it,
but for one thing: before the snapshot is stored once, this leader sends nothing. Workers would refuse it.
"""

import json
import logging
import math
import threading
import time
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.backends.base import DisabledBackend

from jobrunner.keeping import store_kept
from jobrunner.masking import mask_text
from jobrunner.snapshot import SNAPSHOT_KEY, SNAPSHOT_VERSION_KEY, Snapshot
from jobrunner.store import tracking

if TYPE_CHECKING:
    from sqlalchemy import Connection

logger = logging.getLogger(__name__)

#: Seconds between two looks whether the backend still has what we have stored, and until one that is away is tried
#: again.
_LOOK = 5.0
_RETRY = 1.0
#: Seconds to wait for the thread to end; a backend that hangs is not waited for.
_FAREWELL = 2.0
#: What `show` says as long as there is something to send.
_NO_BACKEND = (
    "there is no result backend, so it only observes; --result-backend, JOBRUNNER_RESULT_BACKEND or -A names it"
)


class SnapshotStore:
    """Stores each version that it is given, between `start` and `stop`, and again when the backend has lost it."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._can_store = not isinstance(app.backend, DisabledBackend)
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._changed = threading.Event()
        self._latest: Snapshot | None = None
        #: What keeps it from storing the first snapshot, for people.
        self.trouble: str | None = None if self._can_store else _NO_BACKEND
        #: Until when nobody else leads, by the monotonic clock: who was frozen must not store what he knew before.
        self.until = math.inf
        #: The version that workers can read; none as long as nothing may be sent.
        self.stored: int | None = None

    def start(self, snapshot: Snapshot) -> None:
        """Begin as a new leader: workers may know anything."""
        self.stop()
        self.stored = None
        self._latest = snapshot
        if self._can_store:
            self.trouble = None
            self._stop, self._changed = threading.Event(), threading.Event()
            ours = self._stop, self._changed
            self._thread = threading.Thread(target=self._run, args=ours, name="jobrunner-snapshot", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End: another tracker does it now."""
        if self._thread is not None:
            self._stop.set()
            self._changed.set()
            self._thread.join(_FAREWELL)
            self._thread = None

    def newer(self, connection: "Connection") -> Snapshot | None:
        """Return the snapshot as a turn leaves it, if the turn has changed it; to be kept after the commit."""
        if self._latest is None or tracking.snapshot_version(connection) == self._latest.version:
            return None
        return tracking.load_snapshot(connection)

    def keep(self, snapshot: Snapshot) -> None:
        """Store this version, which is committed, as soon as the backend takes it."""
        self._latest = snapshot
        self._changed.set()

    def _run(self, stop: threading.Event, changed: threading.Event) -> None:
        away = False
        while not stop.is_set():
            changed.clear()
            try:
                self._store(stop)
                away = False
            except Exception as error:  # noqa: BLE001  whatever a backend's client raises, nothing else must suffer
                if not away:
                    text = mask_text(str(error))
                    logger.warning("Workers cannot be told: %s", text, extra={"action": "snapshot-not-stored"})
                    self.trouble = f"the result backend cannot be reached ({text})"
                away = True
            changed.wait(_RETRY if away else _LOOK)

    def _store(self, stop: threading.Event) -> None:
        latest = self._latest
        if latest is None:
            return
        text, backend = latest.dumps(), self._app.backend
        if not self._has(backend, text, latest.version):
            if stop.is_set() or time.monotonic() > self.until:
                return
            # The version last: who reads it finds that text, or a later one.
            store_kept(backend, SNAPSHOT_KEY, text)
            store_kept(backend, SNAPSHOT_VERSION_KEY, str(latest.version))
            logger.info("Snapshot %d is stored.", latest.version, extra={"action": "snapshot-stored"})
        if not stop.is_set():
            self.stored, self.trouble = latest.version, None

    @staticmethod
    def _has(backend: Any, text: str, version: int) -> bool:
        """Whether the backend holds exactly this; a tracker that was frozen may have stored an older one since."""
        stored, number = backend.get(SNAPSHOT_KEY), backend.get(SNAPSHOT_VERSION_KEY)
        return _text(number) == str(version) and stored is not None and json.loads(stored) == json.loads(text)


def _text(stored: Any) -> str | None:
    return stored.decode() if isinstance(stored, bytes) else stored
