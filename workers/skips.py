"""What a body says of what comes after its task: that it is to be skipped; told with what else the body states."""

from collections.abc import Iterable
from dataclasses import replace

from celery.app.task import Context

from jobrunner.errors import InvalidParametersError
from jobrunner.statements import Statement
from jobrunner.text import NAME, SENTENCE, bounded


class Skips:
    """What one attempt has said; what it says later adds to that."""

    def __init__(self) -> None:
        self._whys: dict[str, None] = {}
        self._names: dict[str, None] = {}
        self._all = False

    def add(self, why: str, names: Iterable[str]) -> None:
        """Have what comes next skipped, or of that the branches of these names; see `jobrunner.current`."""
        names = list(names)
        for name in names:
            if not isinstance(name, str) or bounded(name, NAME) != name or not name:
                msg = f"{name!r} is no name of a task."
                raise InvalidParametersError(msg, "Give names as text, such as resize.name for the task resize.")
        self._whys[str(why)] = None
        self._names |= dict.fromkeys(names)
        self._all = self._all or not names

    def added_to(self, statement: Statement | None) -> Statement:
        """Return what the body states with what it has said here."""
        return replace(
            statement or Statement(),
            skips=bounded("; ".join(self._whys), SENTENCE),
            branches=() if self._all else tuple(self._names),
        )


def with_skips(request: Context, statement: Statement | None) -> Statement | None:
    """Return what the body of a request states, with what it has said of what comes next."""
    skips: Skips | None = getattr(request, "jobrunner_skips", None)
    return statement if skips is None else skips.added_to(statement)
