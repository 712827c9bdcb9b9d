"""Commands that run: up, demo, worker, tracker."""

import logging
import os
import signal
import socket
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from celery import Celery

from jobrunner.app import JobRunner
from jobrunner.cli import output
from jobrunner.cli.bar import progress_bar
from jobrunner.cli.check import check_option
from jobrunner.cli.context import DEMO, app_option, load_runner
from jobrunner.embedded import broker
from jobrunner.embedded.lock import hold_lock
from jobrunner.embedded.supervisor import Child, Supervisor
from jobrunner.errors import ConfigurationError, WaitTimeoutError
from jobrunner.masking import mask_url
from jobrunner.servers import broker_of, check_backend, check_broker, transport_of, why_away
from jobrunner.settings import Settings
from jobrunner.states import ENDED_JOB, JobState
from jobrunner.store.database import Database
from jobrunner.store.upgrade import create_if_empty, upgrade

logger = logging.getLogger(__name__)

_INTERRUPTED = 130
_PYTHON = sys.executable
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
#: Seconds that a task of `up` may go on after Ctrl-C.
_GRACE = 10.0


@click.command(short_help="Run everything on this machine.")
@app_option
@click.option("-c", "--concurrency", type=click.IntRange(min=1), help="Tasks at a time; by default as many as cores.")
def up(module: str | None, concurrency: int | None) -> int:
    """Run broker, tracker and worker on this machine, until Ctrl-C.

    The broker is started here only if the app has none. Everything is kept below .jobrunner, or JOBRUNNER_HOME.
    """
    runner = load_runner(module or DEMO)
    with _running(runner, module or DEMO, concurrency) as supervisor:
        click.echo(f"app       {module or f'{DEMO} (the demo; name yours with -A)'}")
        click.echo(f"broker    {_broker_text(runner)}")
        click.echo(f"database  {runner.database.where}")
        click.echo(f"log       {runner.settings.home / 'up.log'}")
        names = ", ".join(sorted(runner.named)) or "none yet"
        why = None if runner.embedded else why_away(runner.app)
        if why is not None:
            click.echo(f"\nThe broker cannot be reached ({why}): jobs wait for it.", err=True)
            click.echo("hint: Start it. For an app that names no broker `jobrunner up` starts one.", err=True)
        click.echo(f"\nReady for jobs ({names}). Ctrl-C stops everything.")
        caught = supervisor.run_until()
        click.echo("Stopping: running tasks may end.", err=True)
    return _INTERRUPTED if caught == signal.SIGINT else 0


@click.command(short_help="Run the demo job: statistics of Python code.")
@click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("-c", "--concurrency", type=click.IntRange(min=1), help="Tasks at a time; by default as many as cores.")
def demo(folder: Path | None, concurrency: int | None) -> int:
    """Analyse every Python file below FOLDER, by default the standard library, one task per file; print a report."""
    from jobrunner.demo.codestats import jobs  # noqa: PLC0415  binds the demo's app

    parameters = {"samples": str(jobs.settings.home / "demo-samples")} | ({"folder": str(folder)} if folder else {})
    with _running(jobs, DEMO, concurrency) as supervisor:
        job = jobs.submit_named("codestats", parameters)
        with progress_bar("codestats") as show:
            caught = supervisor.run_until(_ended(job.wait, show))
        view = job.view
        if view.state not in ENDED_JOB:
            click.echo(f"Stopped; the job goes on with `jobrunner up`: {job.id}", err=True)
            return _INTERRUPTED if caught else 1
        if view.state is not JobState.COMPLETED:
            click.echo(output.ended_line(view), err=True)
            return 1
        report = job.result()
    _print_report(jobs, report, output.ended_line(view), job.id)
    return 0


def _ended(wait: Callable[..., Any], show: Callable[..., Any]) -> Callable[[], bool]:
    """Return a look at the job, for the supervisor's loop: shows its progress, and tells whether it has ended."""

    def ended() -> bool:
        try:
            wait(0, each=show)
        except WaitTimeoutError:
            return False
        return True

    return ended


def _print_report(jobs: JobRunner, report: Any, ended: str, job_id: str) -> None:
    from jobrunner.demo.rendering import render  # noqa: PLC0415  only the demo needs it

    console = output.console()
    console.print(render(report))
    click.echo(f"\n{ended}.")
    click.echo(f"The database is {jobs.database.where}.")
    command = ".venv/bin/jobrunner" if Path(".venv/bin/jobrunner").exists() else "jobrunner"
    click.echo("\nTry next:")
    for arguments in ("list", f"show {job_id} --errors", f"tasks {job_id} --json"):
        click.echo(f"  {command} {arguments}")
    click.echo(f"  {command} up  # then, in another terminal: {command} submit codestats --wait")


@contextmanager
def _running(runner: JobRunner, module: str, concurrency: int | None) -> Iterator[Supervisor]:
    """Yield with tracker and worker running, and the embedded broker if the app has none of its own."""
    home = runner.settings.home
    with hold_lock(home) as lock, Supervisor(home=home, lock=lock, grace=_GRACE) as supervisor:
        upgrade(runner.database.url.render_as_string(hide_password=False))
        if runner.embedded:
            server = supervisor.start(Child(name=broker.NAME, argv=broker.command(home), last=True))
            broker.wait_until_ready(home, server, give_up=supervisor.interrupted)
        environment = {
            "JOBRUNNER_HOME": str(home),
            "JOBRUNNER_DATABASE": runner.database.url.render_as_string(hide_password=False),
        }
        supervisor.start(Child(name="tracker", argv=_tracker_command(module), environment=environment))
        supervisor.start(_worker(_worker_command(module, concurrency), environment))
        yield supervisor


def _tracker_command(module: str) -> list[str]:
    return [_PYTHON, "-P", "-m", "jobrunner.cli", "tracker", "-A", module]


def _worker_command(module: str, concurrency: int | None) -> list[str]:
    # One worker on a private broker: nobody to mingle or gossip with. The name is stable, so that the tracker knows at
    # once that a worker which comes up replaces one that was killed.
    options = ["--without-mingle", "--without-gossip", "-n", "up@%h", "-l", "WARNING"]
    return [_PYTHON, "-P", "-m", "workers", "-A", module, *options, "-c", str(concurrency or os.cpu_count() or 1)]


def _worker(argv: Sequence[str], environment: Mapping[str, str]) -> Child:
    """Return a worker, which in a hurry tells of the tasks that it leaves, so that others get them at once."""
    return Child(name="worker", argv=argv, environment=environment, hurry=signal.SIGQUIT)


def _broker_text(runner: JobRunner) -> str:
    if runner.embedded:
        return f"{broker.socket_path(runner.settings.home)} ({broker.server_binary().name}, started here)"
    return mask_url(broker_of(runner.app))


@click.command(short_help="Run a Celery worker.", context_settings={"ignore_unknown_options": True})
@app_option
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def worker(module: str | None, options: Sequence[str]) -> int:
    """Run a Celery worker for the app, and start it again whenever it ends.

    OPTIONS are those of `celery worker`. Celery's own worker may exit instead of reconnecting when its broker dies;
    this one comes back. Ctrl-C lets running tasks end; a second one does not.
    """
    if module is None:
        msg = "A worker needs your code."
        raise ConfigurationError(msg, "Name the module of your Celery app: jobrunner worker -A MODULE.")
    load_runner(module)  # a mistake is told here, once, and not by a child that is started again and again
    with Supervisor(grace=None) as supervisor:
        supervisor.start(_worker([_PYTHON, "-P", "-m", "workers", "-A", module, *options], {}))
        caught = supervisor.run_until()
    return _INTERRUPTED if caught == signal.SIGINT else 0


@click.command(short_help="Run the tracker.")
@check_option
@app_option
@click.option(
    "-b", "--broker", "broker_url", metavar="URL", help="The broker; else that of the app, or JOBRUNNER_BROKER."
)
@click.option("--result-backend", metavar="URL", help="The result backend; by default the broker.")
@click.option(
    "-l", "--loglevel", type=click.Choice(_LEVELS, case_sensitive=False), default="INFO", show_default=True,
    help="Level of the log, on stderr.",
)  # fmt: skip
def tracker(module: str | None, broker_url: str | None, result_backend: str | None, loglevel: str) -> None:
    """Follow events and move jobs, until stopped. A second tracker waits, and takes over when the first is gone.

    It needs no user code: with -A it takes broker and result backend from the app's configuration. With -b alone it
    observes what any Celery application does on that broker; without a database it makes one.
    """
    from tracker.eventlog import open_log  # noqa: PLC0415  clients need not load the tracker
    from tracker.loop import Tracker  # noqa: PLC0415

    logging.basicConfig(level=loglevel.upper(), format="%(asctime)s %(levelname)s tracker: %(message)s")
    app, database = tracker_app(module, broker_url, result_backend)
    _make_database(database)
    settings = Settings.read()
    with database.read():
        pass  # a missing or outdated database is told before anything starts
    check_broker(app)
    if app.conf.result_backend:
        check_backend(app)
    else:
        logger.warning(
            "There is no result backend: jobs are observed, and none is sent, because workers could not be told what is"
            " paused or canceled. --result-backend, JOBRUNNER_RESULT_BACKEND or -A names it.",
            extra={"action": "no-result-backend"},
        )
    # In containers every process is number 1, maybe of one host name: the last part tells them apart.
    holder = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    process = Tracker(
        database=database, app=app, log=open_log(app), holder=holder, propagate_failures=settings.propagate_failures
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: process.stop())
    process.run()


def _make_database(database: Database) -> None:
    """Make the tables of an empty database, and the file of the default one: there may be nobody else to do so."""
    settings = Settings.read()
    usual = settings.database is None and database.where == Database(settings.database_url).where
    if create_if_empty(database, make_file=usual):
        logger.info("Made the database %s.", database.where, extra={"action": "database-made"})


def tracker_app(module: str | None, broker_url: str | None, result_backend: str | None) -> tuple[Celery, Database]:
    """Return a Celery app with the broker and result backend to follow, and the database that belongs to it."""
    if module is not None and broker_url is None:
        runner = load_runner(module)
        return runner.app, runner.database
    settings = Settings.read()
    url = broker_url or settings.broker or broker.url(settings.home)
    backend = result_backend or settings.result_backend
    app = Celery("jobrunner.tracker", broker=url, backend=backend, set_as_current=False)
    if backend is None and transport_of(app) == "redis":
        app.conf.result_backend = url
    return app, Database(settings.database_url)
