"""How long what lies in the result backend stays there: without end while a job can use it, then Celery's own expiry.

Celery stores every result with `result_expires`. A value of a job is stored without, by the same command, so that
nobody has to be alive to renew it; when its job has ended, the tracker gives it the expiry that any other result has.
Backends whose stored results cannot be given another expiry stay as they are.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from celery import states
from celery.backends.base import BaseKeyValueStoreBackend
from celery.backends.redis import RedisBackend

from jobrunner.wire import HEADER

#: Whether what is being stored is to be kept: of this thread, or of this greenlet.
_keeps: ContextVar[bool] = ContextVar("keeps", default=False)


class _Keeping(BaseKeyValueStoreBackend):
    """Mixed in front of a result backend's class: the success of a job's task is stored without an expiry."""

    @property
    def expires(self) -> Any:
        """Seconds after which what is stored now is gone; None for never."""
        return None if _keeps.get() else self.__dict__["expires"]

    @expires.setter
    def expires(self, seconds: Any) -> None:
        self.__dict__["expires"] = seconds

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        if state != states.SUCCESS or getattr(request, HEADER, None) is None:
            return super()._store_result(task_id, result, state, traceback, request=request, **kwargs)
        with _kept():
            return super()._store_result(task_id, result, state, traceback, request=request, **kwargs)

    def __reduce__(self, args: Any = (), kwargs: Any = None) -> Any:
        """Pickle as the class that we are mixed into: a result of Celery takes its backend with it."""
        make, (_, *rest) = super().__reduce__(args, kwargs)
        return make, (type(self).__bases__[1], *rest)


def keeping(backend: Any) -> Any:
    """Return this backend, which from now on keeps values of jobs, if it is one that can let them go again."""
    kind: Any = type(backend)
    if not issubclass(kind, _Keeping) and can_expire(backend):
        backend.__class__ = _mixed(kind)
    return backend


@cache
def _mixed(kind: type) -> type:
    return type(kind.__name__, (_Keeping, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})


def can_expire(backend: Any) -> bool:
    """Whether what lies in a backend can be given another expiry."""
    expire = getattr(type(backend), "expire", None)
    return expire not in {None, BaseKeyValueStoreBackend.expire}


@contextmanager
def _kept() -> Iterator[None]:
    token = _keeps.set(True)
    try:
        yield
    finally:
        _keeps.reset(token)


def store_kept(backend: Any, key: str, text: str) -> None:
    """Store a text of our own until it is let go."""
    with _kept():
        keeping(backend).set(key, text)


def set_expiry(backend: Any, keys: Sequence[Any], seconds: float | None) -> None:
    """Let what lies under these keys be gone after so many seconds, or never; keys without anything do no harm."""
    if not isinstance(backend, RedisBackend):
        for key in keys:
            backend.expire(key, seconds)
        return
    with backend.client.pipeline(transaction=False) as pipe:
        for key in keys:
            if seconds:
                pipe.expire(key, int(seconds))
            else:
                pipe.persist(key)
        pipe.execute()
