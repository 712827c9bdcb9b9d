"""Carrying out an order from the command line: ask, give, wait, and say what came of each object."""

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import click

from jobrunner.cli import output
from jobrunner.cli.context import SECONDS, in_order, json_option, open_database
from jobrunner.cli.output.orders import ORDERED, Result, exit_code, results_table
from jobrunner.cli.targets import choose
from jobrunner.condition import why_unanswered
from jobrunner.order_kinds import JOB_ORDERS, OrderKind
from jobrunner.orders import Order, await_answers, give
from jobrunner.store import leases, reading
from jobrunner.store.database import Database
from jobrunner.store.held import held_view
from jobrunner.store.orders import OrderView, Selection, Target
from jobrunner.text import NAME, one_line

_F = TypeVar("_F", bound=Callable[..., Any])

#: What more than one object does not get without a question.
_DESTRUCTIVE = frozenset({OrderKind.CANCEL, OrderKind.REQUEUE, OrderKind.SKIP, OrderKind.FAIL})
#: Objects that the question names.
_SHOWN = 10


def order_options(kind: OrderKind) -> Callable[[_F], _F]:
    """Add the options that say how an order is given."""
    options = [
        click.option("--reason", metavar="TEXT", help="Why; the job's history keeps it."),
        click.option(
            "--wait/--no-wait", default=True, help="Wait until it is done, as is usual; or only until it is given."
        ),
        click.option(
            "--timeout",
            type=SECONDS,
            default=30.0,
            show_default=True,
            metavar="SECONDS",
            help="Exit with 124 if it is not done after this long; the order stands.",
        ),
        click.option("--quiet", is_flag=True, help="Print only what was not done: for cron."),
        json_option,
    ]
    if kind in _DESTRUCTIVE:
        options.insert(1, click.option("--yes", is_flag=True, help="Do not ask before more than one gets it."))
    return in_order(options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How an order is given."""

    reason: str | None
    yes: bool = False
    wait: bool
    timeout: float
    quiet: bool
    as_json: bool


def carry_out(
    kind: OrderKind,
    arguments: Mapping[str, Any],
    *,
    references: Sequence[str],
    states: Sequence[str],
    named: str | None,
    labels: Mapping[str, str],
    older_than: timedelta | None,
    of_job: str | None = None,
    task_arguments: Mapping[str, Any] | None = None,
    **how: Any,
) -> int:
    """Order something of all that was named or chosen, print what came of it, and return the exit code.

    `task_arguments` are those of orders about tasks, where they differ from those about jobs.
    """
    manner = Manner(**how)
    database = open_database()
    selection = Selection(states=states, name=named, labels=labels, older_than=older_than, job_id=of_job)
    targets, unknown = choose(database, kind, references, selection)
    _ask(kind, targets, manner)
    of_jobs = [(one.job_id, None) for one in targets if one.task_id is None]
    of_tasks = [(one.job_id, one.task_id) for one in targets if one.task_id is not None]
    given = give(database, kind, of_jobs, arguments, why=manner.reason)
    given += give(database, kind, of_tasks, arguments if task_arguments is None else task_arguments, why=manner.reason)
    if not targets and not unknown and not manner.quiet:
        click.echo(f"No {'job' if kind in JOB_ORDERS else 'task'} is meant by that.", err=True)
    return await_and_tell(database, given, [_not_found(database, kind, one) for one in unknown], manner)


def await_and_tell(database: Database, given: Sequence[Order], known: Sequence[Result], manner: Manner) -> int:
    """Wait until orders are done, print what came of each, and of what is `known`, and return the exit code."""
    views = await_answers(database, [one.id for one in given], manner.timeout if manner.wait else 0)
    missing = _missing(database, given, views) if manner.wait else {}
    results = [*known, *(_result(one, views[one.id], missing.get(one.id, "")) for one in given)]
    _print(results, manner)
    return exit_code(results, waited=manner.wait)


def _ask(kind: OrderKind, targets: Sequence[Target], manner: Manner) -> None:
    """Ask before several objects get a destructive order; refuse it where nobody can be asked."""
    if kind not in _DESTRUCTIVE or len(targets) <= 1 or manner.yes:
        return
    counts = Counter("job" if one.task_id is None else "task" for one in targets)
    what = " and ".join(f"{number:,} {word}{'s' * (number > 1)}" for word, number in counts.items())
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        msg = f"This would {kind} {what}, and there is no terminal to ask on: say --yes."
        raise click.UsageError(msg)
    for one in targets[:_SHOWN]:
        click.echo(f"  {one.task_id or one.job_id}  {one.name}  {one.state}", err=True)
    if len(targets) > _SHOWN:
        click.echo(f"  … and {len(targets) - _SHOWN:,} more", err=True)
    click.confirm(f"{str(kind).capitalize()} {what}?", abort=True, err=True)


def _not_found(database: Database, kind: OrderKind, reference: str) -> Result:
    of_job, shown = kind in JOB_ORDERS, one_line(reference, NAME)
    see = "`jobrunner list --all`" if of_job else "`jobrunner tasks JOB`"
    text = f"There is no {'job' if of_job else 'task'} {shown!r} in {database.where}: see {see}."
    return Result(
        kind=kind,
        job=shown if of_job else None,
        task=None if of_job else shown,
        outcome="not-found",
        text=text,
        order=None,
    )


def _missing(database: Database, given: Sequence[Order], known: Mapping[str, OrderView]) -> dict[str, str]:
    """Return what the orders wait for that have no answer, by id."""
    missing = {}
    with database.read() as connection:
        tracker = leases.tracker_status(connection)
        for order in given:
            view = known[order.id]
            if view.answer is None:
                job = None if view.applied_at is None else reading.get_job(connection, order.job_id)
                held = None if job is None else held_view(connection, job)
                missing[order.id] = why_unanswered(view, job, tracker, held) or "under way"
    return missing


def _result(order: Order, view: OrderView, missing: str) -> Result:
    answer = view.answer
    return Result(
        kind=order.kind,
        job=order.job_id,
        task=order.task_id,
        outcome=ORDERED if answer is None else answer.outcome,
        text=missing if answer is None else answer.text,
        order=order.id,
    )


def _print(results: Sequence[Result], manner: Manner) -> None:
    shown = [one for one in results if not manner.quiet or one.outcome not in {"done", ORDERED}]
    if manner.as_json and (shown or not manner.quiet):
        output.print_json([one.as_json() for one in shown])
    elif shown:
        output.console().print(results_table(shown))
    unanswered = sum(one.outcome == ORDERED for one in results)
    if unanswered and manner.wait:
        orders = "The order stands" if unanswered == 1 else f"{unanswered:,} orders stand"
        click.echo(
            f"{orders} without an answer after {manner.timeout:g} s, and will be carried out"
            " when the tracker and the workers that it needs are back.",
            err=True,
        )
