"""Commands about the database."""

import click

from jobrunner.cli.context import json_option, open_database
from jobrunner.cli.output import print_json
from jobrunner.settings import Settings
from jobrunner.store import reading
from jobrunner.store import upgrade as upgrading
from jobrunner.store.database import Database


@click.group(short_help="Look after the database.")
def db() -> None:
    """Look after the database."""


@db.command(short_help="Create the database or bring it up to date.")
def upgrade() -> None:
    """Create the database's tables, or bring them to the newest schema; the data stays."""
    url = Settings.read().database_url
    before, after = upgrading.upgrade(url)
    where = Database(url).where
    if before == after:
        click.echo(f"{where} is at schema {after} already.")
    else:
        click.echo(f"{where} is at schema {after} now" + (f"; it was at {before}." if before else "."))


@db.command(short_help="Compare the database with what it should be.")
@json_option
def check(*, as_json: bool) -> int:
    """Compare the schema with the models, and every counter with the rows it counts; exit with 1 if they differ.

    Changes nothing, and may be run while jobs run. Also says how many events the tracker had to reject, and
    how many reports were foreign.
    """
    from jobrunner.store.check import check as run  # noqa: PLC0415  Alembic takes 0.2 s to import

    database = open_database()
    faults = run(database)
    rejected = foreign = None
    if not faults:  # else there may be no such tables
        with database.read() as connection:
            rejected, foreign = reading.rejected_number(connection), reading.foreign_number(connection)
    if as_json:
        print_json({"faults": faults, "rejected_events": rejected, "foreign_reports": foreign})
        return 1 if faults else 0
    for fault in faults:
        click.echo(fault)
    if not faults:
        click.echo(f"{database.where} is as it should be.")
        if rejected:
            click.echo(f"The tracker has rejected events: {rejected} rows of rejected_event say which, and why.")
        if foreign:
            click.echo(
                f"Workers have reported the end of tasks that another one had: {foreign} attempts without effect."
            )
    return 1 if faults else 0
