"""Commands that order something: pause, resume, cancel, requeue, skip, fail, set."""

from typing import Any

import click

from jobrunner.cli.ordering import carry_out, order_options
from jobrunner.cli.targets import labels_of, target_options
from jobrunner.order_arguments import (
    GRACE,
    cancel_arguments,
    items_arguments,
    requeue_arguments,
    set_arguments,
)
from jobrunner.order_kinds import JOB_ORDERS, TASK_ORDERS, Items, OrderKind, Scope


def _help(kind: OrderKind) -> str:
    """Return what an order does, and how to say of what."""
    jobs = "a JOB by its id, key, or beginning or end of an id" if kind in JOB_ORDERS else None
    tasks = "a TASK by its id" if kind in TASK_ORDERS else None
    return f"""{kind.__doc__}

    Name {", ".join(filter(None, (jobs, tasks)))}; or choose by a filter. There is a result for each: done, refused, or
    not found. The order stands, whatever is away now: tracker and workers follow it when they are back.

    Exits with 0 if all is done, 3 if something was not found, 4 if something was refused, 124 if there was no answer
    in time.
    """


@click.command("pause", short_help="Start nothing more of jobs.", help=_help(OrderKind.PAUSE))
@target_options(OrderKind.PAUSE)
@order_options(OrderKind.PAUSE)
def pause(**options: Any) -> int:
    """Pause jobs."""
    return carry_out(OrderKind.PAUSE, {}, **options)


@click.command("resume", short_help="Let paused jobs go on.", help=_help(OrderKind.RESUME))
@target_options(OrderKind.RESUME)
@order_options(OrderKind.RESUME)
def resume(**options: Any) -> int:
    """Resume jobs."""
    return carry_out(OrderKind.RESUME, {}, **options)


@click.command("cancel", short_help="End jobs or tasks.", help=_help(OrderKind.CANCEL))
@target_options(OrderKind.CANCEL)
@click.option(
    "--grace",
    type=float,
    metavar="SECONDS",
    help=f"Terminate what runs, and kill it after this long.  [default: {GRACE:g}]",
)
@click.option("--let-finish", is_flag=True, help="Let what runs finish instead.")
@order_options(OrderKind.CANCEL)
def cancel(grace: float | None, let_finish: bool, **options: Any) -> int:
    """Cancel jobs or tasks."""
    if let_finish and grace is not None:
        msg = "--grace and --let-finish exclude each other."
        raise click.UsageError(msg)
    seconds = None if let_finish else GRACE if grace is None else grace
    return carry_out(OrderKind.CANCEL, cancel_arguments(seconds), **options)


@click.command("requeue", short_help="Run jobs or tasks again.", help=_help(OrderKind.REQUEUE))
@target_options(OrderKind.REQUEUE)
@click.option("--all", "scope", flag_value=str(Scope.ALL), help="All tasks of a job; usual if it is completed.")
@click.option(
    "--incomplete",
    "scope",
    flag_value=str(Scope.INCOMPLETE),
    help="Tasks of a job that have not ended well, and what depends on them; usual if it is not completed.",
)
@click.option(
    "--items",
    type=click.Choice([str(one) for one in Items]),
    help="Tasks that ended partial, with only the items that failed, and then what comes after them; nothing else.",
)
@order_options(OrderKind.REQUEUE)
def requeue(scope: str | None, items: str | None, **options: Any) -> int:
    """Requeue jobs or tasks."""
    of_jobs, of_tasks = requeue_arguments(scope, items), items_arguments(items)
    return carry_out(OrderKind.REQUEUE, of_jobs, task_arguments=of_tasks, **options)


@click.command("skip", short_help="Count tasks as ended well.", help=_help(OrderKind.SKIP))
@target_options(OrderKind.SKIP)
@order_options(OrderKind.SKIP)
def skip(**options: Any) -> int:
    """Skip tasks."""
    return carry_out(OrderKind.SKIP, {}, **options)


@click.command("fail", short_help="Count tasks as failed.", help=_help(OrderKind.FAIL))
@target_options(OrderKind.FAIL)
@order_options(OrderKind.FAIL)
def fail(**options: Any) -> int:
    """Fail tasks."""
    return carry_out(OrderKind.FAIL, {}, **options)


@click.command("set", short_help="Change priority, note or labels of jobs.", help=_help(OrderKind.SET))
@target_options(OrderKind.SET)
@click.option("--priority", type=int, metavar="N", help="From -100 to 100; higher ones are sent first, 0 is usual.")
@click.option("--note", metavar="TEXT", help="A note for whoever looks at it; an empty one removes it.")
@click.option(
    "--label",
    "new_labels",
    multiple=True,
    metavar="NAME=VALUE",
    callback=labels_of,
    help="A label; `NAME=` removes it. May be given more than once.",
)
@order_options(OrderKind.SET)
def set_command(priority: int | None, note: str | None, new_labels: dict[str, str | None], **options: Any) -> int:
    """Change jobs."""
    arguments = set_arguments(priority=priority, note=note, labels=new_labels)
    return carry_out(OrderKind.SET, arguments, **options)
