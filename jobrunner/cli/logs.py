"""The command `logs`: what a task has logged and printed, once or as it comes."""

import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import click

from jobrunner import strict_json
from jobrunner.cli import output
from jobrunner.cli.context import json_option, open_database
from jobrunner.errors import InvalidParametersError, NotFoundError
from jobrunner.log_lines import LogLine
from jobrunner.looking import looks
from jobrunner.states import ENDED_TASK
from jobrunner.store.attempts import AttemptView, list_attempts
from jobrunner.store.database import Database
from jobrunner.store.logs import one_attempt, read_log
from jobrunner.store.orders import Target, find_task, find_tasks

#: Seconds for which lines may come after the end of their task: they are told by another process.
_LATE = 1.5
#: What colours a terminal, which ours may not be.
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


@click.command(short_help="Print what a task has logged.")
@click.argument("task")
@click.option("-f", "--follow", is_flag=True, help="Go on printing, until the task has ended.")
@click.option("--attempt", type=click.IntRange(1), help="The attempt with this number, as `tasks --attempts` has it.")
@click.option("--delivery", type=click.IntRange(1), help="Of several with that number the one of this delivery.")
@json_option
def logs(*, task: str, follow: bool, attempt: int | None, delivery: int | None, as_json: bool) -> None:
    """Print what the TASK with this id, or beginning or end of one, has logged and printed in its last attempt.

    Each line has its time and level: that of Python's logging, OUTPUT for what was printed, or NOTICE, which says what
    was left out. What is logged below the level of the worker, WARNING if its --loglevel does not say otherwise, is
    never made. With --follow later attempts are printed too, unless one was chosen. With --json each line is an object,
    one per line with --follow.
    """
    reading = _Reading(open_database(), task, attempt, delivery)
    told = reading.follow() if follow else reading.read()
    if as_json and not follow:
        output.print_json([_json(view, line) for view, line in told])
        return
    last = None
    for view, line in told:
        if view.key != last and not as_json:
            click.echo(f"attempt {view.retries + 1}, delivery {view.delivery}, {view.worker or 'nobody'}:", err=True)
        last = view.key
        click.echo(strict_json.dumps(_json(view, line), default=str) if as_json else _text(line))
    if last is None:
        click.echo("Nothing was logged.", err=True)


def _json(view: AttemptView, line: LogLine) -> dict[str, Any]:
    about = {"attempt": view.retries + 1, "delivery": view.delivery, "worker": view.worker}
    return about | asdict(line) | {"at": line.at.isoformat()}


def _text(line: LogLine) -> str:
    at = line.at.astimezone().isoformat(sep=" ", timespec="milliseconds")
    plain = _ESCAPE.sub("", line.text)
    shown = "".join(one if one.isprintable() or one == "\t" else "\N{REPLACEMENT CHARACTER}" for one in plain)
    return f"{at}  {line.level:8}  {shown}".rstrip()


@dataclass(slots=True)
class _Reading:
    """The log of one task, from the chosen attempt on; what was read is not read again."""

    database: Database
    reference: str
    attempt: int | None
    delivery: int | None
    _target: Target = field(init=False)
    _seen: dict[tuple[str, int, int, str], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with self.database.read() as connection:
            found = find_tasks(connection, self.reference)
        if not found:
            msg = f"There is no task {self.reference!r} in {self.database.where}."
            raise NotFoundError(msg, "See `jobrunner tasks JOB`.")
        if len(found) > 1:
            msg = f"Several tasks match {self.reference!r}."
            raise InvalidParametersError(msg, "Give more of the id.")
        self._target = found[0]

    def read(self) -> Iterator[tuple[AttemptView, LogLine]]:
        """Yield the lines of the chosen attempt.

        Raises:
            NotFoundError: the task has none of this number.
        """
        chosen = one_attempt(self._views(), self.attempt, self.delivery)
        self._check(chosen)
        if chosen is not None:
            yield from self._news(chosen)

    def follow(self) -> Iterator[tuple[AttemptView, LogLine]]:
        """Yield lines as they come, also those of later attempts unless one was chosen, until the task has ended.

        Raises:
            NotFoundError: it has, and had no attempt of the chosen number.
        """
        first, until = None, float("inf")
        for _ in looks(None):
            until = min(until, time.monotonic() + _LATE) if self._has_ended() else float("inf")
            views = self._views()
            first = first or one_attempt(views, self.attempt, self.delivery)
            for view in views:
                if first is not None and (view.key == first.key or self._comes_after(view, first)):
                    yield from self._news(view)
            if time.monotonic() > until:
                self._check(first)
                return

    def _check(self, chosen: AttemptView | None) -> None:
        if chosen is None and (self.attempt or self.delivery):
            msg = f"The task {self._target.task_id} has no such attempt."
            raise NotFoundError(msg, f"See `jobrunner tasks --attempts {self._target.job_id}`.")

    def _comes_after(self, view: AttemptView, first: AttemptView) -> bool:
        return self.attempt is None and (view.delivery, view.retries) > (first.delivery, first.retries)

    def _has_ended(self) -> bool:
        with self.database.read() as connection:
            found = find_task(connection, self._target.task_id or "")
        return found is None or found.state in ENDED_TASK

    def _views(self) -> list[AttemptView]:
        with self.database.read() as connection:
            return list_attempts(connection, self._target.job_id, self._target.task_id)

    def _news(self, view: AttemptView) -> list[tuple[AttemptView, LogLine]]:
        with self.database.read() as connection:
            found = list(read_log(connection, view, after=self._seen.get(view.key, -1)))
        if found:
            self._seen[view.key] = found[-1][0]
        return [(view, line) for _, line in found]
