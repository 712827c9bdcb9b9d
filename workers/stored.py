"""The snapshot as it lies in the result backend, over a connection of one's own."""

from typing import Any

from celery import Celery
from celery.app import backends
from celery.backends.redis import RedisBackend

from jobrunner.snapshot import SNAPSHOT_KEY, SNAPSHOT_VERSION_KEY, Snapshot

#: Seconds that the backend may take to answer.
_TIMEOUT = 2.0


class Stored:
    """Reads it: only its version, as long as that stays the same."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._backend: Any = None
        self._known: Snapshot | None = None

    def read(self) -> Snapshot | None:
        """Return the snapshot, the very same one if nothing has changed; None if none is there.

        Raises:
            Exception: any that the backend has, or for a text that we cannot read.
        """
        if self._backend is None:
            self._backend = _impatient(self._app)
        version = self._get(SNAPSHOT_VERSION_KEY)
        if version is None:
            return None
        if self._known is None or self._known.version != int(version):
            text = self._get(SNAPSHOT_KEY)
            if text is None:
                return None
            self._known = Snapshot.loads(text)
        return self._known

    def _get(self, key: str) -> Any:
        return self._backend.get(self._backend.key_t(key))  # each kind wants text, or bytes


def _impatient(app: Celery) -> Any:
    """Return a result backend of the app's kind; one on Redis that gives up soon."""
    kind, url = backends.by_url(app.backend_cls or app.conf.result_backend, app.loader)
    backend = kind(app=app, url=url)
    if isinstance(backend, RedisBackend):
        timeouts = backend.connparams.keys() & {"socket_timeout", "socket_connect_timeout"}
        backend.connparams.update(dict.fromkeys(timeouts, _TIMEOUT))
    return backend
