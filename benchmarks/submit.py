"""Submitting many tasks, until `submit` returns and all rows are committed: beside `group.apply_async` of bare Celery.

Ours on both databases, each with its settings as installed. Celery's ends when all messages are on the broker; like any
client that may ask for results, it also subscribes to each. No tracker and no worker takes anything away meanwhile. The
ratio is that of PostgreSQL, where it is installed.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial

from celery import Celery, group
from celery.canvas import Signature

from benchmarks import noop
from benchmarks.harness import Figures, House, in_turn, parser, report, tell
from jobrunner import JobRunner
from jobrunner.store.upgrade import upgrade

_TASKS, _QUICK_TASKS = 10_000, 2_000
_ROUNDS = 5
#: Tasks that warm a side up: it has connected and prepared its tasks then.
_WARM_UP = 20

_Side = Callable[[int], Figures]


def main() -> None:
    """Run the benchmark."""
    options = parser("submit", rounds=_ROUNDS)
    options.add_argument("--tasks", type=int, help=f"no-ops (default: {_TASKS:,}, quick: {_QUICK_TASKS:,})")
    chosen = options.parse_args()
    tasks = chosen.tasks or (_QUICK_TASKS if chosen.quick else _TASKS)
    tell(f"submit: {tasks:,} no-ops, {chosen.rounds} rounds")
    with ExitStack() as resources:
        house = resources.enter_context(House())
        ours = _ours(house, resources)
        sides = ours | {"group_apply_async": partial(_apply_async, noop.make(house.url))}
        for measure in sides.values():
            measure(_WARM_UP)
        found = in_turn(chosen.rounds, {side: partial(measure, tasks) for side, measure in sides.items()})
    speeds = {side: figures["tasks_per_s"] for side, figures in found.items()}
    theirs = speeds.pop("group_apply_async")
    report(
        "submit",
        ours={f"{side}_tasks_per_s": speed for side, speed in speeds.items()},
        theirs={"group_apply_async_tasks_per_s": theirs},
        ratios={"group_apply_async": speeds.get("postgresql", speeds["sqlite"]) / theirs},
        skipped=[] if "postgresql" in speeds else ["postgresql"],
    )


def _ours(house: House, resources: ExitStack) -> Mapping[str, _Side]:
    upgrade(house.database_url)
    sides = {}
    for name, url in (("sqlite", house.database_url), ("postgresql", house.start_postgresql())):
        if url:
            jobs = JobRunner(noop.make(house.url), database=url)
            resources.callback(jobs.database.close)
            sides[name] = partial(_submit, jobs)
    return sides


def _submit(jobs: JobRunner, tasks: int) -> Figures:
    canvas = _group(jobs.app, tasks)
    began = time.perf_counter()
    job = jobs.submit(canvas)
    took = time.perf_counter() - began
    _check(job.progress.total, tasks)
    return {"tasks_per_s": tasks / took}


def _apply_async(app: Celery, tasks: int) -> Figures:
    canvas = _group(app, tasks)
    began = time.perf_counter()
    results = canvas.apply_async()
    took = time.perf_counter() - began
    _check(app.control.purge(), tasks)
    results.forget()
    return {"tasks_per_s": tasks / took}


def _group(app: Celery, tasks: int) -> Signature:
    return group([app.tasks["noop"].s(number) for number in range(tasks)], app=app)


def _check(arrived: int, tasks: int) -> None:
    if arrived != tasks:
        msg = f"{arrived} of {tasks} tasks have arrived."
        raise RuntimeError(msg)


if __name__ == "__main__":
    main()
