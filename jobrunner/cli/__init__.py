"""The command `jobrunner`: data goes to stdout, everything else to stderr, and the exit code says what came of it.

0 ok · 1 the job ended failed or canceled · 2 usage, canvas or parameters · 3 not found · 4 refused · 5 unreachable ·
124 timed out · 130 interrupted.
"""

import sys

import click

from jobrunner.cli.config import config
from jobrunner.cli.context import AppOption
from jobrunner.cli.database import db
from jobrunner.cli.events import events
from jobrunner.cli.flower import flower
from jobrunner.cli.jobs import list_command, submit, watch
from jobrunner.cli.logs import logs
from jobrunner.cli.orders import cancel, fail, pause, requeue, resume, set_command, skip
from jobrunner.cli.progress import progress
from jobrunner.cli.services import demo, tracker, up, worker
from jobrunner.cli.show import show
from jobrunner.cli.tasks import tasks
from jobrunner.cli.workers import workers_command
from jobrunner.errors import JobrunnerError

_INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="jobrunner")
@click.option("-A", "--app", metavar="MODULE", help="Module of the Celery app, where user code is needed.")
@click.pass_context
def cli(context: click.Context, app: str | None) -> None:
    """Durable jobs on Celery."""
    context.obj = AppOption(app)


_COMMANDS = (
    up, demo, worker, tracker, flower, submit, list_command, show, tasks, logs, watch, pause, resume, cancel, requeue,
    skip, fail, set_command, progress, events, workers_command, db, config,
)  # fmt: skip
for command in _COMMANDS:
    cli.add_command(command)


def main() -> None:
    """Run the command line; every error of ours ends in one sentence, its remedy, and its exit code."""
    try:
        sys.exit(cli(standalone_mode=False) or 0)
    except click.exceptions.Abort:
        sys.exit(_INTERRUPTED)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except JobrunnerError as error:
        click.echo(f"error: {error.problem}", err=True)
        if error.remedy:
            click.echo(f"\nhint: {error.remedy}", err=True)
        sys.exit(error.exit_code)
