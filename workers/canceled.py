"""What a body learns of orders: in the worker's main process from the gate, in a process of its pool by looking."""

import logging
import os
from typing import Any

from celery import Celery

from jobrunner.snapshot import FINAL, Snapshot
from workers.gate import Gate, Headers, now, sent_of, speaks_of
from workers.stored import Stored

logger = logging.getLogger(__name__)

#: Seconds between two looks.
_REST = 1.0


def is_canceled(app: Celery, request: Headers) -> bool:
    """Whether the task of this request was canceled, or its job."""
    sent = sent_of(request)
    snapshot = _snapshot(app)
    return snapshot is not None and speaks_of(snapshot, sent) and snapshot.refusal(sent) in FINAL


def grace_of(app: Any, request: Headers) -> float | None:
    """Return the seconds in which the body of a canceled task has to end what it has started; None if it may go on.

    A process of a pool is told by a signal, and need not ask.
    """
    gate: Gate | None = getattr(app, "jobrunner_gate", None)
    if gate is None or gate.forks or gate.snapshot is None:
        return None
    return gate.snapshot.grace(sent_of(request))


def _snapshot(app: Any) -> Snapshot | None:
    gate: Gate | None = getattr(app, "jobrunner_gate", None)
    if gate is not None and gate.is_here:
        return gate.snapshot
    looker: _Looker | None = getattr(app, "jobrunner_looker", None)
    if looker is None or looker.pid != os.getpid():
        looker = app.jobrunner_looker = _Looker(app)
    return looker.look()


class _Looker:
    """Looks at most once a second, however often a body asks; keeps what it knows while the backend is away."""

    def __init__(self, app: Celery) -> None:
        self.pid = os.getpid()
        self._stored = Stored(app)
        self._snapshot: Snapshot | None = None
        self._due = float("-inf")

    def look(self) -> Snapshot | None:
        if now() >= self._due:
            self._due = now() + _REST
            try:
                self._snapshot = self._stored.read() or self._snapshot
            except Exception:  # whatever ails the backend: the body asked whether to go on
                logger.debug("The snapshot cannot be read.", exc_info=True)
        return self._snapshot
