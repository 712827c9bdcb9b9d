"""The command about workers."""

from datetime import UTC, datetime, timedelta

import click

from jobrunner.cli import output
from jobrunner.cli.context import json_option, open_database
from jobrunner.store import leases, reading

#: `workers` shows those online, and those gone that were heard within this time.
_RECENT = timedelta(hours=24)


@click.command("workers", short_help="List the workers.")
@click.option("--all", "everything", is_flag=True, help="Also those gone that were last heard more than 24 hours ago.")
@json_option
def workers_command(everything: bool, as_json: bool) -> None:
    """List the workers that the tracker knows, and how many tasks each has in its hands."""
    with open_database().read() as connection:
        tracker = leases.tracker_status(connection)
        views = reading.list_workers(connection, None if everything else datetime.now(UTC) - _RECENT)
    if as_json:
        output.print_json([output.worker_json(view) for view in views])
    elif views:
        output.console().print(output.workers_table(views))
        if any(view.lossy for view in views):
            click.echo(f"lossy: {output.LOSSY}.", err=True)
    else:
        click.echo("No workers yet; `jobrunner worker` starts one.", err=True)
    if doubt := output.doubt(tracker, None):
        click.echo(doubt, err=True)
