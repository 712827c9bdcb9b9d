"""The commands about workers."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from jobrunner.cli import output
from jobrunner.cli.context import find_job, json_option, open_database
from jobrunner.cli.ordering import Manner, await_and_tell, order_options
from jobrunner.errors import NotFoundError
from jobrunner.order_arguments import unblock_arguments
from jobrunner.order_kinds import OrderKind
from jobrunner.orders import give
from jobrunner.store import leases, reading
from jobrunner.store.database import Database
from jobrunner.store.reading import WorkerBlockView

#: `workers` shows those online, and those gone that were heard within this time.
_RECENT = timedelta(hours=24)


@click.group("workers", short_help="List the workers, and what they are blocked for.", invoke_without_command=True)
@click.option("--all", "everything", is_flag=True, help="Also those gone that were last heard more than 24 hours ago.")
@json_option
@click.pass_context
def workers_command(context: click.Context, everything: bool, as_json: bool) -> None:
    """List the workers that the tracker knows, and how many tasks each has in its hands.

    Below them: which of them get no more tasks of a name in an unfinished job, because three of them in a row have
    failed there.
    """
    if context.invoked_subcommand is not None:
        return
    with open_database().read() as connection:
        tracker = leases.tracker_status(connection)
        views = reading.list_workers(connection, None if everything else datetime.now(UTC) - _RECENT)
        blocks = reading.list_worker_blocks(connection)
    if as_json:
        output.print_json([output.worker_json(view, blocks) for view in views])
    elif views:
        output.console().print(output.workers_table(views))
        if any(view.lossy for view in views):
            click.echo(f"lossy: {output.LOSSY}.", err=True)
    else:
        click.echo("No workers yet; `jobrunner worker` starts one.", err=True)
    if blocks and not as_json:
        output.console().print("", output.worker_blocks_table(blocks))
    if doubt := output.doubt(tracker, None):
        click.echo(doubt, err=True)


@workers_command.command("unblock", short_help="Let a worker get again what it is blocked for.")
@click.argument("worker")
@click.option("--job", metavar="JOB", help="Only what it is blocked for in this job.")
@click.option("--task", "task_name", metavar="NAME", help="Only tasks of this name.")
@order_options(OrderKind.UNBLOCK)
def unblock(worker: str, job: str | None, task_name: str | None, **how: Any) -> int:
    """Let WORKER get again what it is blocked for in unfinished jobs.

    It is blocked once more when three tasks of a name in a row fail there. A job that has ended lets all workers try
    again when it is requeued.

    Exits with 0 if that is done, 3 if it is blocked for nothing of the kind, 4 if it was refused, 124 if there was no
    answer in time.
    """
    manner = Manner(**how)
    database = open_database()
    job_ids = sorted({one.job_id for one in _blocks(database, worker, job, task_name)})
    if not job_ids:
        msg = f"A worker {worker!r} is blocked for nothing of the kind in unfinished jobs of {database.where}."
        raise NotFoundError(msg, "`jobrunner workers` lists who is blocked for what.")
    arguments = unblock_arguments(worker, task_name)
    given = give(database, OrderKind.UNBLOCK, [(one, None) for one in job_ids], arguments, why=manner.reason)
    return await_and_tell(database, given, [], manner)


def _blocks(database: Database, worker: str, job: str | None, task_name: str | None) -> Sequence[WorkerBlockView]:
    job_id = None if job is None else find_job(database, job).id
    with database.read() as connection:
        blocks = reading.list_worker_blocks(connection)
    wanted = (one for one in blocks if one.worker == worker)
    return [one for one in wanted if job_id in {None, one.job_id} and task_name in {None, one.task_name}]
