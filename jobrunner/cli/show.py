"""The command `show`: all that is to be said of one job."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import click

from jobrunner.cli import output
from jobrunner.cli.context import MOST, find_job, json_option, open_database
from jobrunner.cli.failures import errors_table
from jobrunner.cli.items import ItemErrors, Page
from jobrunner.cli.output.orders import history_table
from jobrunner.condition import seconds_behind, why_waiting
from jobrunner.error_groups import ErrorGroup, group_errors
from jobrunner.store import leases, reading
from jobrunner.store.attempts import failed_attempts, running_reports
from jobrunner.store.held import held_view
from jobrunner.store.items import items_of_job
from jobrunner.store.prerequisites import list_prerequisites

#: So many decisions are told, the last ones.
_LINES = 50
#: Of the tasks that run and say how far they are, so many are told of.
_REPORTS = 10


@click.command(short_help="Show one job.")
@click.argument("job")
@click.option("--history", "everything", is_flag=True, help="All that was ever decided about it, as a table.")
@click.option(
    "--errors", is_flag=True, help="What its attempts have failed with, softly or for good, and its items, as tables."
)
@click.option(
    "--limit",
    type=click.IntRange(1, MOST),
    default=100,
    show_default=True,
    help="With --errors: at most so many items.",
)
@click.option("--offset", type=click.IntRange(0, MOST), default=0, help="With --errors: from this item on.")
@json_option
def show(*, job: str, everything: bool, errors: bool, limit: int, offset: int, as_json: bool) -> None:
    """Show the JOB with this id, key, or beginning or end of an id: what it waits for, what was decided about it.

    With --errors, attempts that failed with the same exception and message are one line, which says # in the place of
    numbers and ids that differ. Of tasks that ended partial it shows the items that failed, likewise, and then each.

    Tasks that run and say how far they are have a line each: ten of them at most.

    JSON has every field of the history: among others the order that was the trigger, who gave it, and why. Its `after`
    has the jobs that it waits for, or has waited for, as they were named: since `met_at` no more.
    """
    database = open_database()
    view = find_job(database, job)
    with database.read() as connection:
        tracker = leases.tracker_status(connection)
        after = list_prerequisites(connection, [view.id]).get(view.id, [])
        why = why_waiting(view, tracker, reading.workers_online(connection), held_view(connection, view), after)
        history = reading.list_history(connection, view.id, limit=None if everything else _LINES, moves=everything)
        reports = running_reports(connection, view.id, _REPORTS)
        items = items_of_job(connection, view.id)
        groups = group_errors(failed_attempts(connection, view.id)) if errors else None
        item_errors = ItemErrors.of(connection, view, Page(limit=limit, offset=offset)) if errors else None
    behind = seconds_behind(view, tracker)
    if as_json:
        more: dict[str, Any] = {"after": _rows(after), "history": _rows(history), "running": _rows(reports)}
        more |= {"items": items and dataclasses.asdict(items)}
        more |= {} if groups is None else {"errors": _rows(groups)}
        more |= {} if item_errors is None else {"item_errors": item_errors.as_json}
        output.print_json(output.job_json(view) | {"waits": why, "behind_seconds": behind} | more)
        return
    click.echo("\n".join(output.job_lines(view, why, behind, () if everything else history, reports, items=items)))
    if everything:
        click.echo()
        output.console().print(history_table(history))
    if groups is not None and item_errors is not None:
        _print_errors(groups, item_errors)


def _rows(values: Iterable[Any]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(one) for one in values]


def _print_errors(groups: Sequence[ErrorGroup], item_errors: ItemErrors) -> None:
    if groups:
        click.echo()
        output.console().print(errors_table(groups))
    if item_errors.total:
        click.echo()
        item_errors.show()
    if not groups and not item_errors.total:
        click.echo("No attempt of it has failed.", err=True)
