"""What commands share: the user's app, the database, and the job that a person means."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from celery import Celery
from celery.app.utils import find_app

from jobrunner.app import JobRunner
from jobrunner.errors import ConfigurationError, InvalidParametersError, NotFoundError
from jobrunner.masking import mask_text, mask_url
from jobrunner.settings import Settings
from jobrunner.store import reading
from jobrunner.store.database import Database
from jobrunner.store.reading import JobView

#: The app of `up` and `submit` where the user names none.
DEMO = "jobrunner.demo.codestats"

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class AppOption:
    """`-A` as given to the group; the same option of a command comes first."""

    given: str | None = None


def app_option(function: _F) -> _F:
    """Add `-A MODULE` to a command; its value is the command's, the group's, or that of the settings."""

    def resolve(context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
        group = context.find_object(AppOption)
        return value or (group and group.given) or Settings.read().app

    option = click.option(
        "-A",
        "--app",
        "module",
        metavar="MODULE",
        callback=resolve,
        help="Module of the Celery app; else JOBRUNNER_APP.",
    )
    return option(function)


def in_order(options: Sequence[Callable[[_F], _F]]) -> Callable[[_F], _F]:
    """Return what adds several options to a command, shown in this order by its help."""

    def add(function: _F) -> _F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def json_option(function: _F) -> _F:
    """Add `--json` to a command that prints."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def load_runner(module: str) -> JobRunner:
    """Import the user's app, as Celery's `-A` does, and return the runner bound to it."""
    import workers  # noqa: F401, PLC0415  ours, before the user's folder comes first and may hold one of that name

    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        app = find_app(module)
    except (ImportError, AttributeError) as error:
        msg = f"The Celery app {mask_url(module)!r} cannot be loaded ({mask_text(str(error))})."
        raise ConfigurationError(
            msg, "Name a module on the path that holds a Celery app, as with `celery -A`."
        ) from error
    if not isinstance(app, Celery):
        msg = f"{module!r} is no Celery app but of type {type(app).__name__}."
        raise ConfigurationError(msg, "Name a module that holds a Celery app, as with `celery -A`.")
    return JobRunner.of(app)


def open_database() -> Database:
    """Open the database of the settings, for commands that only read and need no user code; closed at their end."""
    database = Database(Settings.read().database_url)
    click.get_current_context().call_on_close(database.close)
    return database


#: More than anybody wants to see, and fewer than a database counts to.
MOST = 10**9


class _Seconds(click.FloatRange):
    """A number of seconds from 0 up; NaN is none, and would never be over."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Refuse what is no such number."""
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is no number of seconds.", param, ctx)
        return seconds


SECONDS = _Seconds(min=0)


def find_job(database: Database, reference: str) -> JobView:
    """Return the job that a person means by an id, a key, or the beginning or end of an id."""
    with database.read() as connection:
        found = reading.find_jobs(connection, reference)
    if not found:
        msg = f"There is no job {reference!r} in {database.where}."
        raise NotFoundError(msg, "See `jobrunner list --all`.")
    return only_job(found, reference)


def only_job(found: Sequence[JobView], reference: str) -> JobView:
    """Return the one job that was found, or raise if a person may mean several."""
    if len(found) > 1:
        msg = f"Several jobs match {reference!r}."
        raise InvalidParametersError(msg, "Give more of the id.")
    return found[0]
