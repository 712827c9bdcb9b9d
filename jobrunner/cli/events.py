"""The command `events`: what workers and the tracker tell, one line per event, as it comes."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import click

from jobrunner import strict_json
from jobrunner.cli.context import app_option, find_job, json_option
from jobrunner.cli.services import tracker_app
from jobrunner.event_types import COMMON, EVENT_TYPES
from jobrunner.live import stream
from jobrunner.servers import check_broker
from jobrunner.store import reading
from jobrunner.text import one_line

#: Tasks whose name and job are remembered, and characters of a field that a line shows.
_TASKS = 100_000
_LENGTH = 100
#: Characters of an id that a line shows: its last ones, which `show` takes as well.
_SHORT = 8
#: What stands elsewhere in a line, or tells people nothing.
_ELSEWHERE = frozenset(
    {"uuid", "hostname", "timestamp", "pid", "name", "root_id", "local_received", *(one.name for one in COMMON)}
)

_Event = dict[str, Any]


@click.command(short_help="Print events as they come.")
@click.argument("job", required=False)
@app_option
@click.option(
    "-b", "--broker", "broker_url", metavar="URL", help="The broker; else that of the app, or JOBRUNNER_BROKER."
)
@json_option
def events(job: str | None, module: str | None, broker_url: str | None, as_json: bool) -> None:
    """Print what workers and the tracker tell from now on, of one JOB or of everything, until Ctrl-C.

    It needs no user code: with -A it takes the broker from the app's configuration. With --json each line is an event
    with all its fields.
    """
    app, database = tracker_app(module, broker_url, None)
    click.get_current_context().call_on_close(database.close)
    check_broker(app)
    known = KnownTasks()
    job_id = None
    if job is not None:
        job_id = find_job(database, job).id
        with database.read() as connection:
            for task in reading.list_tasks(connection, job_id):
                known.learn(task.celery_id, task.name, job_id)
    for told in stream(app, lambda sentence: click.echo(sentence, err=True)):
        event = known.complete(told)
        if job_id is None or event.get("root_id") == job_id:
            click.echo(strict_json.dumps(event, default=str) if as_json else event_line(event))


class KnownTasks:
    """Name and job of tasks by their Celery id: most events name neither, and those of a stock worker no job."""

    def __init__(self, most: int = _TASKS) -> None:
        self._most = most
        self._tasks: dict[str, dict[str, str]] = {}

    def learn(self, celery_id: str, name: str | None, job_id: str | None) -> None:
        """Remember a task; of too many, the one that was told of least lately is forgotten."""
        told = {key: value for key, value in (("name", name), ("root_id", job_id)) if isinstance(value, str)}
        self._tasks[celery_id] = self._tasks.pop(celery_id, {}) | told
        if len(self._tasks) > self._most:
            del self._tasks[next(iter(self._tasks))]

    def complete(self, event: _Event) -> _Event:
        """Learn from an event, and return it with what is known of its task."""
        celery_id = event.get("uuid")
        if not isinstance(celery_id, str):
            return event
        if event.get("name") or event.get("root_id"):
            self.learn(celery_id, event.get("name"), event.get("root_id"))
        return event | self._tasks.get(celery_id, {})


def event_line(event: Mapping[str, Any]) -> str:
    """Return an event as a line for people: when, what, which task of which job, who tells it, and what else."""
    type_ = event.get("type")
    parts = [_time(event.get("timestamp")), _text(type_).ljust(max(map(len, EVENT_TYPES)))]
    if event.get("uuid"):
        parts.append(f"{_text(event.get('name', '?'))}[{_short(event['uuid'])}]")
    if event.get("root_id"):
        parts.append(f"job {_short(event['root_id'])}")
    parts.append(_text(event.get("hostname", "?")))
    known = EVENT_TYPES.get(type_) if isinstance(type_, str) else None
    names = known.told if known else [name for name in event if name not in _ELSEWHERE]
    parts += [
        f"{name}={_text(value)}" for name in names if (value := event.get(name)) is not None and value is not False
    ]
    return "  ".join(parts)


def _time(timestamp: Any) -> str:
    try:
        return datetime.fromtimestamp(timestamp).astimezone().strftime("%H:%M:%S.%f")[:-3]
    except (TypeError, ValueError, OverflowError, OSError):
        return "--:--:--.---"


def _short(id_: Any) -> str:
    return _text(id_)[-_SHORT:]


def _text(value: Any) -> str:
    return one_line(value, _LENGTH)
