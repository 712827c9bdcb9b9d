"""Many no-ops and a join, until the final value is stored: our job beside the same canvas as a bare Celery chord.

Ours includes everything: rows, history, the tracker's process and its transactions. Celery's chord is measured twice,
on its own, because the two disturb each other: until its value is stored, and until `.get()` has returned it, which
visits the result of every task.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from celery import Celery

from benchmarks import noop
from benchmarks.harness import Figures, House, in_turn, parser, report, tell
from jobrunner import JobRunner
from jobrunner.states import ENDED_JOB

_APP = "benchmarks.noop"
_TASKS, _QUICK_TASKS = 5_000, 1_000
_ROUNDS = 3
#: Seconds that one canvas may take.
_TIMEOUT = 300.0
#: Tasks of the canvas that warms a house up: processes have started and connected when it has ended.
_WARM_UP = 20


def main() -> None:
    """Run the benchmark."""
    options = parser("join", rounds=_ROUNDS)
    options.add_argument("--tasks", type=int, help=f"no-ops (default: {_TASKS:,}, quick: {_QUICK_TASKS:,})")
    chosen = options.parse_args()
    tasks = chosen.tasks or (_QUICK_TASKS if chosen.quick else _TASKS)
    tell(f"join: {tasks:,} no-ops and a join, {chosen.rounds} rounds")
    with ExitStack() as houses:
        sides = _sides(houses.enter_context(House()), houses.enter_context(House()))
        for measure in sides.values():
            measure(_WARM_UP)
        found = in_turn(chosen.rounds, {side: partial(measure, tasks) for side, measure in sides.items()})
    ours, theirs = found["ours"], {f"{side}_tasks_per_s": found[side]["tasks_per_s"] for side in ("chord", "chord_get")}
    ratios = {side: ours["tasks_per_s"] / theirs[f"{side}_tasks_per_s"] for side in ("chord", "chord_get")}
    report("join", ours=ours, theirs=theirs, ratios=ratios)


def _sides(ours: House, theirs: House) -> dict[str, Callable[[int], Figures]]:
    ours.start_tracker()
    ours.start_worker(_APP)
    theirs.start_bare_worker(_APP)
    return {"ours": partial(_ours, ours), "chord": partial(_chord, theirs), "chord_get": partial(_chord_get, theirs)}


def _ours(house: House, tasks: int) -> Figures:
    app = noop.make(house.url)
    jobs = JobRunner(app, database=house.database_url)
    canvas = noop.fan(app, tasks)
    canvas.body.set(task_id=f"join-{time.time_ns()}")
    began = time.perf_counter()
    job = jobs.submit(canvas)
    stored = _wait_until_stored(house, app, canvas.body.options["task_id"]) - began
    house.wait_for(lambda: job.state in ENDED_JOB, timeout=_TIMEOUT, what="the job to end")
    completed = time.perf_counter() - began
    _check(job.result(), tasks)
    jobs.database.close()
    app.close()
    return {"tasks_per_s": (tasks + 1) / stored, "completed_tasks_per_s": (tasks + 1) / completed}


def _chord(house: House, tasks: int) -> Figures:
    app = noop.make(house.url)
    canvas = noop.fan(app, tasks)
    began = time.perf_counter()
    result = canvas.apply_async()
    stored = _wait_until_stored(house, app, result.id) - began
    _check(app.backend.get_result(result.id), tasks)
    return {"tasks_per_s": (tasks + 1) / stored}


def _chord_get(house: House, tasks: int) -> Figures:
    app = noop.make(house.url)
    canvas = noop.fan(app, tasks)
    began = time.perf_counter()
    value = canvas.apply_async().get(timeout=_TIMEOUT)
    returned = time.perf_counter() - began
    _check(value, tasks)
    return {"tasks_per_s": (tasks + 1) / returned}


def _wait_until_stored(house: House, app: Celery, celery_id: str) -> float:
    """Return the moment at which the result backend has a value."""
    key = app.backend.get_key_for_task(celery_id)
    house.wait_for(lambda: app.backend.client.exists(key), timeout=_TIMEOUT, what="the value of the join")
    return time.perf_counter()


def _check(value: object, tasks: int) -> None:
    if value != tasks:
        msg = f"The join yielded {value!r} instead of {tasks}."
        raise RuntimeError(msg)


if __name__ == "__main__":
    main()
