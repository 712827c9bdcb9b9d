"""What bodies tell while they run inline: kept in memory, where a worker would write it into the event log."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self


class Told:
    """Stands in for `app.events`: takes everything, whatever way it is told, and nobody else hears of it."""

    def __init__(self) -> None:
        self._events: list[Mapping[str, Any]] = []

    def take(self) -> list[Mapping[str, Any]]:
        """Return what was told since this was asked last."""
        taken, self._events = self._events, []
        return taken

    # ---- as `workers.events` ---------------------------------------------------------------------------------

    @property
    def flusher(self) -> Self:
        """What writes events into the log."""
        return self

    def tell(self, events: Iterable[Mapping[str, Any]], **_: Any) -> None:
        """Take what must be in the log before the body goes on."""
        self._events += events

    def tell_first(self, event: Mapping[str, Any], **_: Any) -> None:
        """Take what must be in the log before the body's end."""
        self._events.append(event)

    add = tell_first

    # ---- as Celery's own -------------------------------------------------------------------------------------

    @contextmanager
    def default_dispatcher(self, *_: Any, **__: Any) -> Iterator[Self]:
        """Yield what a body sends events of its own with."""
        yield self

    def send(self, type: str, **fields: Any) -> None:  # noqa: A002  Celery's name
        """Take an event of the body's own."""
        self._events.append({**fields, "type": type})
