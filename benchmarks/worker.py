"""Throughput of a worker whose tasks are tracked, beside bare Celery without and with events.

All messages wait on the broker before the worker starts, with a tracker on the same machine where it is ours. On every
side they are the same no-ops without results, between two tasks that tell the worker's clock.

With `--chatter` another worker beside ours runs a task that logs as fast as it can, 100,000 lines a second and more:
once its log is kept, once not, since a neighbour that is busy takes his share of the machine either way.
"""

from collections.abc import Iterator
from functools import partial

from celery import Celery, group
from celery.canvas import Signature
from sqlalchemy import func, select

from benchmarks import noop
from benchmarks.harness import Figures, House, in_turn, parser, report, tell
from jobrunner import JobRunner
from jobrunner.states import JobState
from jobrunner.store.schema import task

_APP = "benchmarks.noop"
_TASKS, _QUICK_TASKS = 5_000, 800
_ROUNDS = 3
#: Seconds that all tasks may take.
_TIMEOUT = 300.0
#: Lines of a task of the neighbour, and how many such tasks there are: more than it gets done meanwhile.
_LINES, _CHATTERS = 100_000, 1_000


def main() -> None:
    """Run the benchmark."""
    options = parser("worker", rounds=_ROUNDS)
    options.add_argument("--tasks", type=int, help=f"no-ops (default: {_TASKS:,}, quick: {_QUICK_TASKS:,})")
    options.add_argument("--chatter", action="store_true", help="beside a worker whose tasks log all the time")
    chosen = options.parse_args()
    tasks = chosen.tasks or (_QUICK_TASKS if chosen.quick else _TASKS)
    tell(f"worker: {tasks:,} no-ops, {chosen.rounds} rounds")
    if chosen.chatter:
        _beside_chatter(tasks, chosen.rounds)
        return
    sides = {
        "ours": partial(_tracked, tasks),
        "events_off": partial(_bare, tasks),
        "events_on": partial(_bare, tasks, "--task-events"),
    }
    speeds = {side: figures["tasks_per_s"] for side, figures in in_turn(chosen.rounds, sides).items()}
    ours = speeds.pop("ours")
    report(
        "worker",
        ours={"tasks_per_s": ours},
        theirs={f"{side}_tasks_per_s": speed for side, speed in speeds.items()},
        ratios={side: ours / speed for side, speed in speeds.items()},
    )


def _beside_chatter(tasks: int, rounds: int) -> None:
    sides = {
        "alone": partial(_tracked, tasks),
        "log_kept": partial(_tracked, tasks, neighbour="true"),
        "log_not_kept": partial(_tracked, tasks, neighbour="false"),
    }
    speeds = {side: figures["tasks_per_s"] for side, figures in in_turn(rounds, sides).items()}
    report(
        "worker --chatter",
        ours={f"{side}_tasks_per_s": speed for side, speed in speeds.items()},
        theirs={},
        ratios={"log_kept": speeds["log_kept"] / speeds["log_not_kept"]},
    )


def _tracked(tasks: int, neighbour: str | None = None) -> Figures:
    """Measure ours, beside a neighbour that logs if that is to be kept, or not: `true` or `false`."""
    with House() as house:
        house.start_tracker()
        jobs = JobRunner(noop.make(house.url), database=house.database_url)
        job = jobs.submit(group(list(_signatures(jobs.app, tasks)), app=jobs.app))
        house.wait_for(lambda: _sent(jobs, job.id) == tasks + 2, timeout=_TIMEOUT, what="all tasks to be sent")
        if neighbour is not None:
            _chatter(house, jobs, neighbour)
        house.start_worker(_APP)
        known = job.tasks()
        took = _seconds_between(house, jobs.app, known[0].id, known[-1].id)
        house.wait_for(lambda: job.state is JobState.COMPLETED, timeout=_TIMEOUT, what="the job to complete")
        jobs.database.close()
        jobs.app.close()
    return {"tasks_per_s": (tasks + 1) / took}


def _chatter(house: House, jobs: JobRunner, kept: str) -> None:
    chatter = jobs.app.tasks["chatter"]
    job = jobs.submit(group([chatter.si(_LINES).set(queue="chatter") for _ in range(_CHATTERS)], app=jobs.app))
    house.start_worker(_APP, "-Q", "chatter", "-c", "1", name="chatter", JOBRUNNER_KEEP_LOGS=kept)
    house.wait_for(lambda: job.progress.done, timeout=_TIMEOUT, what="the neighbour to be at it")


def _bare(tasks: int, *options: str) -> Figures:
    with House() as house:
        app = noop.make(house.url)
        # Only ids are kept: a result that is dropped after its broker tries for long to tell it so.
        sent = [one.apply_async().id for one in _signatures(app, tasks)]
        house.start_bare_worker(_APP, *options)
        took = _seconds_between(house, app, sent[0], sent[-1])
        app.close()
    return {"tasks_per_s": (tasks + 1) / took}


def _signatures(app: Celery, tasks: int) -> Iterator[Signature]:
    """Yield the tasks of a round."""
    yield app.tasks["clock"].s()
    yield from (app.tasks["noop"].s(number).set(ignore_result=True) for number in range(tasks))
    yield app.tasks["clock"].s()


def _sent(jobs: JobRunner, job_id: str) -> int:
    """Count the tasks of which the tracker has noted that the broker has their messages."""
    rows = select(func.count()).select_from(task).where(task.c.job_id == job_id, task.c.sent_at.is_not(None))
    with jobs.database.read() as connection:
        return connection.execute(rows).scalar_one()


def _seconds_between(house: House, app: Celery, first: str, last: str) -> float:
    """Wait for both clocks, and return how far they are apart."""
    keys = [app.backend.get_key_for_task(celery_id) for celery_id in (first, last)]
    house.wait_for(lambda: app.backend.client.exists(*keys) == len(keys), timeout=_TIMEOUT, what="the last task")
    return app.backend.get_result(last) - app.backend.get_result(first)


if __name__ == "__main__":
    main()
