"""The command about the tasks of a job."""

import click

from jobrunner.cli import output
from jobrunner.cli.context import find_job, json_option, open_database
from jobrunner.cli.failures import attempts_table, with_attempts
from jobrunner.event_types import ACTIVE_EVENTS, INACTIVE_EVENTS, event_named
from jobrunner.parameters import parameters_of
from jobrunner.states import TaskState
from jobrunner.store import reading
from jobrunner.store.attempts import list_attempts


def _event_type(_context: click.Context, _parameter: click.Parameter, word: str | None) -> str | None:
    if word is None:
        return None
    found = event_named(word)
    if found is None:
        msg = f"{word!r} is none of {', '.join(ACTIVE_EVENTS + INACTIVE_EVENTS)}."
        raise click.BadParameter(msg)
    return found


@click.command(short_help="List the tasks of a job.")
@click.argument("job")
@click.option(
    "--active/--inactive", default=None, help="Only those with more to come by their last event, or those without."
)
@click.option(
    "--event", "last_event", metavar="NAME", callback=_event_type, help="Only those whose last event is this one."
)
@click.option(
    "--state",
    "states",
    type=click.Choice([str(one) for one in TaskState]),
    multiple=True,
    help="Only those in this state; may be given several times.",
)
@click.option(
    "--attempts", "by_attempt", is_flag=True, help="A line for each attempt: which worker, when, what came of it."
)
@json_option
def tasks(
    *, job: str, active: bool | None, last_event: str | None, states: tuple[str, ...], by_attempt: bool, as_json: bool
) -> None:
    """List all tasks of a JOB, those that never started and those that tasks have sent or added included.

    After the events sent, received and started a task is active; after succeeded, failed, revoked and retried (or
    retired, which is the same) it is not. A task that was never sent is neither.

    JSON has more of each task: among others sequence, arrival, created_by, success, progress, and parameters, an object
    with keyword arguments by name and positional ones by position from "0". It is empty if there are none, and null if
    they are not known. Passwords are masked. With --attempts each has all of its attempts.
    """
    database = open_database()
    job_id = find_job(database, job).id
    with database.read() as connection:
        views = reading.list_tasks(connection, job_id)
        attempts = list_attempts(connection, job_id) if by_attempt else []
        messages = reading.list_messages(connection, job_id) if as_json else ()
        parameters = {
            one.task_id: parameters_of(one.body, one.content_type, one.headers, takes_value=one.takes_value)
            for one in messages
        }
    if active is not None:
        views = [view for view in views if view.more_to_come is active]
    if last_event is not None:
        views = [view for view in views if view.last_event == last_event]
    if states:
        views = [view for view in views if view.state in states]
    if as_json:
        told = [output.task_json(view, parameters.get(view.id)) for view in views]
        output.print_json(with_attempts(told, attempts) if by_attempt else told)
    elif by_attempt:
        shown = {view.id for view in views}
        output.console().print(attempts_table(one for one in attempts if one.task_id in shown))
    else:
        output.console().print(output.tasks_table(views))
