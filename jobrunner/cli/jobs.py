"""Commands about jobs: submit, list, watch; `show` is a module of its own."""

from datetime import UTC, datetime, timedelta
from typing import Any

import click

from jobrunner.app import JobRunner
from jobrunner.cli import output
from jobrunner.cli.bar import progress_bar
from jobrunner.cli.context import DEMO, MOST, SECONDS, app_option, find_job, json_option, load_runner, open_database
from jobrunner.cli.failures import FailureWatch
from jobrunner.cli.outline import outline_json, outline_lines, outline_tree
from jobrunner.condition import seconds_behind, waits_for
from jobrunner.errors import InvalidCanvasError, InvalidParametersError
from jobrunner.failure_policy import DEFAULT as DEFAULT_POLICY
from jobrunner.handle import Job
from jobrunner.prerequisites import after as check_after
from jobrunner.preview import preview
from jobrunner.states import ENDED_JOB, FailureRule, JobState, PartialRule
from jobrunner.store import leases, reading
from jobrunner.store.attempts import running_reports
from jobrunner.store.database import Database
from jobrunner.store.prerequisites import list_prerequisites
from jobrunner.store.reading import JobView
from jobrunner.text import check_texts

#: `list` shows the unfinished jobs, and those that ended within this time.
_RECENT = timedelta(hours=24)


@click.command(short_help="Submit a named job.")
@click.argument("name")
@click.argument("parameters", nargs=-1, metavar="[KEY=VALUE]…")
@app_option
@click.option("--key", help="The same key with the same parameters is the same job: safe to repeat.")
@click.option("--barrier", is_flag=True, help="No task starts before all of a lower sequence have ended well.")
@click.option("--paused", is_flag=True, help="Nothing of it starts before `jobrunner resume`, if it is new.")
@click.option(
    "--on-failure",
    type=click.Choice([FailureRule.CONTINUE.value, FailureRule.CANCEL.value]),
    help="After a task has failed: what does not depend on it goes on (default, unless the job says otherwise), or"
    " nothing more starts.",
)
@click.option(
    "--threshold",
    type=float,
    metavar="SHARE",
    help="Nothing more starts after this share of its tasks has failed: 0.01 to 0.99.",
)
@click.option(
    "--propagate-failures/--no-propagate-failures",
    default=None,
    help="What can never run because of a failure has failed as well, or stays pending until the job ends; by default"
    " as the job says, or the tracker is told.",
)
@click.option(
    "--on-partial",
    type=click.Choice([str(one) for one in PartialRule]),
    help="A task that ended partial fails the job in the end (default, unless the job says otherwise), or that is"
    " tolerated.",
)
@click.option(
    "--after",
    multiple=True,
    metavar="JOB",
    help="If it is new, nothing of it starts before the job with this id or key has completed, which may not exist"
    " yet; may be given more than once.",
)
@click.option("--wait-for-failed", is_flag=True, help="Wait for an --after job also if it has failed or was canceled.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show the tree of its tasks and what would be refused; needs no database, no broker.",
)
@click.option("--wait", is_flag=True, help="Wait for its end; exit with 1 if it failed or was canceled.")
@click.option(
    "--timeout", type=SECONDS, metavar="SECONDS", help="With --wait: exit with 124 after this long; the job goes on."
)
@click.option("--quiet", is_flag=True, help="Print nothing but errors: for cron.")
@json_option
def submit(
    *,
    name: str,
    parameters: tuple[str, ...],
    module: str | None,
    key: str | None,
    barrier: bool,
    paused: bool,
    on_failure: str | None,
    threshold: float | None,
    propagate_failures: bool | None,
    on_partial: str | None,
    after: tuple[str, ...],
    wait_for_failed: bool,
    dry_run: bool,
    wait: bool,
    timeout: float | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Submit the job that @jobs.job(NAME) describes, and print its id.

    With --dry-run nothing is written. It tells of every task that would be refused, and of the canvas itself the first
    fault; it exits with 2 if there is any.
    """
    if timeout is not None and not wait:
        msg = "--timeout goes with --wait."
        raise click.UsageError(msg)
    if dry_run and (wait or quiet):
        msg = "--dry-run goes with neither --wait nor --quiet."
        raise click.UsageError(msg)
    policy: dict[str, Any] = {
        "on_failure": on_failure,
        "threshold": threshold,
        "propagate_failures": propagate_failures,
        "on_partial": on_partial,
    }
    DEFAULT_POLICY.changed(**policy)  # a mistake is told before anything is loaded
    runner = load_runner(module or DEMO)
    click.get_current_context().call_on_close(runner.database.close)
    if dry_run:
        check_after(after, key=key)
        return _dry_run(runner, name, parameters, key=key, barrier=barrier, as_json=as_json)
    job = runner.submit_named(
        name, _pairs(parameters), key=key, barrier=barrier, paused=paused, after=after,
        wait_for_failed=wait_for_failed, **policy,
    )  # fmt: skip
    if not quiet and not as_json:
        click.echo(job.id)
    if after and not quiet:
        _tell_unknown(runner.database, job)
    code = _wait(job, timeout, quiet=quiet) if wait else 0
    if as_json and not quiet:
        output.print_json(output.job_json(job.view))
    return code


def _tell_unknown(database: Database, job: Job) -> None:
    """Say which jobs are waited for that do not exist: a name may be mistyped."""
    with database.read() as connection:
        found = list_prerequisites(connection, [job.id])
    for one in found.get(job.id, ()):
        if one.id is None:
            click.echo(f"It waits for {one.wanted}: no job has that id or key yet.", err=True)


def _dry_run(
    runner: JobRunner, name: str, parameters: tuple[str, ...], *, key: str | None, barrier: bool, as_json: bool
) -> int:
    check_texts(key=key)
    canvas = runner.canvas_of(name, _pairs(parameters))
    runner.prepare_tasks()
    found = preview(runner.app, canvas)
    if as_json:
        output.print_json(outline_json(name, found, barrier=barrier))
    else:
        output.console().print(outline_tree(name, found, barrier=barrier))
        click.echo("\n".join(outline_lines(found)))
    return InvalidCanvasError.exit_code if found.refused else 0


def _pairs(parameters: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for parameter in parameters:
        name, equals, value = parameter.partition("=")
        if not equals:
            msg = f"The parameter {parameter!r} has no value."
            raise InvalidParametersError(msg, f"Write it as {parameter}=VALUE.")
        if name in pairs:
            msg = f"The parameter {name!r} is given twice."
            raise InvalidParametersError(msg, "Give it once.")
        pairs[name] = value
    return pairs


def _wait(job: Job, timeout: float | None, *, quiet: bool) -> int:
    with progress_bar(job.view.name, quiet=quiet) as bar:
        state = job.wait(timeout, each=bar)
    return _ended(job, state, quiet=quiet)


def _ended(job: Job, state: JobState, *, quiet: bool) -> int:
    completed = state is JobState.COMPLETED
    if not (quiet and completed):  # cron mails what is printed: a job that failed belongs there
        click.echo(output.ended_line(job.view), err=True)
    return 0 if completed else 1


@click.command("list", short_help="List jobs.")
@click.option("--all", "everything", is_flag=True, help="Also those that ended more than 24 hours ago.")
@click.option("--no-noop", is_flag=True, help="Without those that had nothing to do: completed (noop).")
@click.option(
    "--limit", type=click.IntRange(1, MOST), default=100, show_default=True, help="At most so many, newest first."
)
@json_option
def list_command(*, everything: bool, no_noop: bool, limit: int, as_json: bool) -> None:
    """List the unfinished jobs, and those that ended within 24 hours; a line says if the tracker is behind.

    Of jobs that wait for others it says for which.
    """
    since = None if everything else datetime.now(UTC) - _RECENT
    with open_database().read() as connection:
        tracker = leases.tracker_status(connection)
        views = reading.list_jobs(connection, since, limit, noop=not no_noop)
        after = list_prerequisites(connection, [view.id for view in views if view.state is JobState.WAITING])
    waits = {job_id: waits_for(those) for job_id, those in after.items()}
    behind = [seconds_behind(view, tracker) for view in views]
    if as_json:
        known = zip(views, behind, strict=True)
        output.print_json(
            [
                output.job_json(view) | {"waits": waits.get(view.id), "behind_seconds": seconds}
                for view, seconds in known
            ]
        )
    elif views:
        output.console().print(output.jobs_table(views, waits))
    else:
        click.echo("No jobs yet; `jobrunner submit` adds one.", err=True)
    unfinished = any(view.state not in ENDED_JOB for view in views)
    if unfinished and (doubt := output.doubt(tracker, max(filter(None, behind), default=None))):
        click.echo(doubt, err=True)


@click.command(short_help="Follow a job to its end.")
@click.argument("job")
@click.option("--timeout", type=SECONDS, metavar="SECONDS", help="Exit with 124 after this long; the job goes on.")
@json_option
def watch(job: str, timeout: float | None, as_json: bool) -> int:
    """Show a JOB's progress until it ends; exit with 1 if it failed or was canceled.

    Attempts that fail are told as it happens, a line each on stderr: also those after which the task is tried again. So
    are tasks that are skipped or end partial.
    """
    database = open_database()
    handle = Job(find_job(database, job).id, database=database)
    failures = FailureWatch(database, handle.id)
    with progress_bar(handle.view.name) as bar:
        if failures.before:
            bar.say(f"Failed attempts until now: {failures.before}; `jobrunner show --errors {handle.id}` groups them.")

        def each(view: JobView) -> None:
            with database.read() as connection:
                bar(view, running_reports(connection, view.id))
            for line in failures.news(last=view.state in ENDED_JOB):
                bar.say(line)

        state = handle.wait(timeout, each=each)
    code = _ended(handle, state, quiet=False)
    if as_json:
        output.print_json(output.job_json(handle.view))
    return code
