"""Which jobs and tasks an order is about: named one by one, or chosen by a filter."""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import click

from jobrunner.cli.context import find_job, in_order, only_job
from jobrunner.order_arguments import check_labels
from jobrunner.order_kinds import JOB_ORDERS, TASK_ORDERS, OrderKind
from jobrunner.states import ENDED_JOB, ENDED_TASK, JobState, TaskState
from jobrunner.store import orders, reading
from jobrunner.store.database import Database
from jobrunner.store.orders import Selection, Target

_F = TypeVar("_F", bound=Callable[..., Any])

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}

#: The states that a filter means which names none: those in which the order is what people want of them.
MEANT: dict[OrderKind, Collection[JobState | TaskState]] = {
    OrderKind.PAUSE: JOB_ORDERS[OrderKind.PAUSE],
    OrderKind.RESUME: (JobState.PAUSING, JobState.PAUSED),
    OrderKind.CANCEL: JOB_ORDERS[OrderKind.CANCEL] - ENDED_JOB,
    OrderKind.REQUEUE: (JobState.FAILED, JobState.CANCELED),
    OrderKind.SKIP: (TaskState.FAILED,),
    OrderKind.FAIL: TASK_ORDERS[OrderKind.FAIL] - ENDED_TASK,
    OrderKind.SET: tuple(JobState),
}
#: The same in words.
_MEANT_WORDS = {
    OrderKind.PAUSE: "unfinished ones",
    OrderKind.RESUME: "pausing and paused ones",
    OrderKind.CANCEL: "unfinished ones",
    OrderKind.REQUEUE: "failed and canceled ones",
    OrderKind.SKIP: "failed ones",
    OrderKind.FAIL: "unfinished ones",
    OrderKind.SET: "all",
}


class Duration(click.ParamType):
    """How long ago: a number with `s`, `m`, `h` or `d`; without, it is seconds."""

    name = "duration"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> timedelta:
        """Turn what was typed into a duration."""
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([smhd]?)", value)
        if found is None:
            self.fail(f"{value!r} is none: write it as 90s, 30m, 12h or 7d.", parameter, context)
        return timedelta(seconds=float(found[1]) * _UNITS[found[2]])


def labels_of(_context: click.Context, parameter: click.Parameter, given: Sequence[str]) -> dict[str, str | None]:
    """Turn `NAME=VALUE …` into labels; one without a value is to be removed."""
    labels: dict[str, str | None] = {}
    for one in given:
        name, equals, text = one.partition("=")
        if not equals:
            msg = f"{one!r} has no value: write it as {one}=VALUE."
            raise click.BadParameter(msg, param=parameter)
        labels[name] = text or None
    check_labels(labels)
    return labels


def _wanted_labels(context: click.Context, parameter: click.Parameter, given: Sequence[str]) -> dict[str, str]:
    labels = labels_of(context, parameter, given)
    if without := [name for name, text in labels.items() if not text]:
        msg = f"{without[0]!r} has no value: write it as {without[0]}=VALUE."
        raise click.BadParameter(msg, param=parameter)
    return {name: text for name, text in labels.items() if text}


def target_options(kind: OrderKind) -> Callable[[_F], _F]:
    """Add what an order of this kind is about: names of objects, or the options of a filter."""
    of_tasks = kind not in JOB_ORDERS
    what, states = ("tasks", TaskState) if of_tasks else ("jobs", JobState)
    label = ("--labeled",) if kind is OrderKind.SET else ("--label", "--labeled")  # `set` has another `--label`
    takes = [name for name, table in (("[JOB]…", JOB_ORDERS), ("[TASK]…", TASK_ORDERS)) if kind in table]
    options = [
        click.argument("references", nargs=-1, metavar=" ".join(takes)),
        click.option(
            "--state",
            "states",
            multiple=True,
            type=click.Choice([str(one) for one in states]),
            metavar="STATE",
            help=f"All {what} in this state; may be given more than once. Without it a filter means"
            f" {_MEANT_WORDS[kind]}.",
        ),
        click.option("--name", "named", metavar="NAME", help=f"All {what} of this name."),
        click.option(
            *label,
            "labels",
            multiple=True,
            metavar="NAME=VALUE",
            callback=_wanted_labels,
            help=f"All {what} {'of jobs ' if of_tasks else ''}with this label; of several, with all.",
        ),
        click.option(
            "--older-than",
            type=Duration(),
            help=f"All {what} {'of jobs ' if of_tasks else ''}submitted longer ago than 90s, 30m, 12h, 7d.",
        ),
    ]
    if of_tasks:
        options.append(click.option("--job", "of_job", metavar="JOB", help="All tasks of this job."))
    return in_order(options)


def choose(
    database: Database, kind: OrderKind, references: Sequence[str], selection: Selection
) -> tuple[list[Target], list[str]]:
    """Return what an order is about, each once, and the references that name nothing."""
    filtered = selection != Selection()
    what = "jobs" if kind in JOB_ORDERS else "tasks"
    if filtered and references:
        msg = f"Name {what}, or choose them by a filter; not both."
        raise click.UsageError(msg)
    if not filtered and not references:
        more = " or --older-than." if what == "jobs" else ", --older-than or --job."
        msg = f"Name {what}, or choose them by --state, --name, --labeled{more}"
        raise click.UsageError(msg)
    if filtered:
        return _matching(database, kind, selection), []
    found = {reference: _named(database, kind, reference) for reference in references}
    targets = {(one.job_id, one.task_id): one for one in found.values() if one is not None}
    return list(targets.values()), [reference for reference, one in found.items() if one is None]


def _matching(database: Database, kind: OrderKind, selection: Selection) -> list[Target]:
    if selection.job_id is not None:
        selection = replace(selection, job_id=find_job(database, selection.job_id).id)
    selection = replace(selection, states=selection.states or MEANT[kind])
    with database.read() as connection:
        select = orders.select_jobs if kind in JOB_ORDERS else orders.select_tasks
        return select(connection, selection)


def _named(database: Database, kind: OrderKind, reference: str) -> Target | None:
    """Return what a person means: a job by its id or key, a task by its id, or a job by a part of its id."""
    if not reading.names_something(reference):
        return None
    with database.read() as connection:
        found = reading.find_jobs(connection, reference) if kind in JOB_ORDERS else []
        exact = any(reference in {one.id, one.key} for one in found)
        task = orders.find_task(connection, reference) if kind in TASK_ORDERS and not exact else None
    if task is not None:
        return task
    if not found:
        return None
    job = only_job(found, reference)
    return Target(job_id=job.id, task_id=None, name=job.name, state=job.state, observed=job.observed)
