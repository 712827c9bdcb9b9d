"""Lets values in the result backend go when their job has ended, and has them kept again if it goes on.

A thread of the leading tracker does this, a few keys at a time, because a result backend may be slow or away and nobody
must wait for it. All that it does may be done twice: killed anywhere, whoever leads next begins again with the job.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from celery import Celery

from jobrunner import ids
from jobrunner.keeping import can_expire, set_expiry
from jobrunner.masking import mask_text
from jobrunner.records import Delivered, Keep
from jobrunner.store import tracking
from jobrunner.store.database import Database
from jobrunner.wire import INPUTS_KEY, ITEMS_KEY

logger = logging.getLogger(__name__)

#: Tasks and jobs that one step takes up, and seconds between two steps: a large job must not slow others down.
_STEP = 1_000
_JOBS = 200
_PAUSE = 0.5
#: Seconds until a backend or database that is away is tried again.
_RETRY = 5.0
#: Seconds to wait for the thread to end; a backend that hangs is not waited for.
_FAREWELL = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """How far the values of some jobs are settled: up to this task, by its job and arrival."""

    keeps: Sequence[Keep]
    after: tuple[str, int] = ("", -1)


class Release:
    """Settles values of jobs that have ended, or go on, between `start` and `stop`."""

    def __init__(self, app: Celery, database: Database) -> None:
        self._app = app
        self._database = database
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin, or go on; without a backend that can let go what it stores there is nothing to do."""
        if self._thread is None and can_expire(self._app.backend):
            self._stop = threading.Event()
            self._thread = threading.Thread(target=self._run, args=(self._stop,), name="jobrunner-release", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End: another tracker does it now."""
        if self._thread is not None:
            self._stop.set()
            self._thread.join(_FAREWELL)
            self._thread = None

    def _run(self, stop: threading.Event) -> None:
        reached: Reached | None = None
        pause, away = _PAUSE, False
        while not stop.wait(pause):
            try:
                reached = self.step(reached)
                pause, away = _PAUSE, False
            except Exception as error:  # noqa: BLE001  whatever a backend's client raises, nothing else must suffer
                pause, reached = _RETRY, None
                if not away:
                    logger.warning(
                        "Values of ended jobs stay in the result backend for now: %s",
                        mask_text(str(error)),
                        extra={"action": "values-stay"},
                    )
                away = True

    def step(self, reached: Reached | None = None) -> Reached | None:
        """Settle the values of up to a thousand tasks, and return how far it is; None if it is done with their jobs.

        Raises:
            Exception: the result backend or the database is away.
        """
        with self._database.read() as connection:
            keeps = tracking.keeps_still_waiting(connection, reached.keeps) if reached else []
            after = reached.after if reached and keeps else ("", -1)
            keeps = keeps or tracking.keeps_waiting(connection, _JOBS)
            tasks = tracking.delivered_tasks(connection, [one.job_id for one in keeps], after, _STEP)
        if not keeps:
            return None
        ended = {one.job_id for one in keeps if one.ended_at is not None}
        backend = self._app.backend
        set_expiry(backend, list(_keys(backend, [one for one in tasks if one.job_id in ended])), backend.expires)
        set_expiry(backend, list(_keys(backend, [one for one in tasks if one.job_id not in ended])), None)
        if len(tasks) == _STEP:
            return Reached(keeps=keeps, after=(tasks[-1].job_id, tasks[-1].arrival))
        with self._database.write() as connection:
            tracking.mark_kept(connection, keeps)
        return None


def _keys(backend: Any, tasks: Sequence[Delivered]) -> Iterator[Any]:
    """The keys under which something of these tasks may lie: no delivery is known not to have succeeded."""
    for task in tasks:
        for number in range(1, task.delivery + 1):
            celery_id = ids.celery_id(task.task_id, number)
            yield backend.get_key_for_task(celery_id)
            if task.takes_group is not None:
                yield INPUTS_KEY + celery_id
            if number > 1:  # a requeue has items, and a later one does not know of them
                yield ITEMS_KEY + celery_id
