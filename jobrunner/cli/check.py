"""`jobrunner tracker --check`: one question with an exit code, for health checks and monitoring."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from jobrunner.cli.context import open_database
from jobrunner.errors import UnreachableError
from jobrunner.store import leases

_F = TypeVar("_F", bound=Callable[..., Any])


def check_option(function: _F) -> _F:
    """Add `--check` to the tracker's command, asked instead of running one."""
    option = click.option(
        "--check",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_check,
        help="Start nothing; say who leads. The exit code is 5 if nobody does, or something keeps the leader from it.",
    )
    return option(function)


def _check(context: click.Context, _parameter: click.Parameter, asked: bool) -> None:
    if not asked or context.resilient_parsing:
        return
    database = open_database()
    with database.read() as connection:
        status = leases.tracker_status(connection)
    if status is None or not status.alive:
        msg = f"No tracker leads in {database.where}."
        raise UnreachableError(msg, "Start one: jobrunner tracker.")
    if status.trouble:
        msg = f"The tracker {status.holder} cannot work: {status.trouble}."
        raise UnreachableError(msg, "It goes on by itself once that is over.")
    click.echo(f"{status.holder} leads.")
    context.exit(0)
