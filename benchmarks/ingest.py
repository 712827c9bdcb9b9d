"""Events per second that one tracker takes into the database: beside a commit per event, and beside Flower's memory.

A job's tasks are sent, with no worker there; then the event log gets, at once, what a worker would have told of all of
them. The clock runs from there until every task of the job has completed. Ours on both databases, each with its
settings as installed. The other sides are spared what ours does as well, reading and decoding the log: a loop that
changes the same rows of PostgreSQL in one transaction per event, with the driver's own prepared statements; and
Flower's event state, which is lost with its process. Ratios are those of PostgreSQL, where it is installed.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec

from celery import group
from sqlalchemy import ColumnElement, func, select

from benchmarks import commits, noop
from benchmarks.harness import Figures, House, in_turn, parser, report, tell
from benchmarks.told import EventFields, batches_of, events_of
from jobrunner import JobRunner
from jobrunner.handle import Job
from jobrunner.ids import uuid7
from jobrunner.states import JobState, TaskState
from jobrunner.store.schema import attempt, task
from jobrunner.wire import EVENT_LOG

_TASKS, _QUICK_TASKS = 20_000, 4_000
_ROUNDS = 3
#: Tasks that warm a side up, and of which a commit per event takes the events: its rate does not depend on how many.
_WARM_UP, _ENOUGH = 20, 400
#: Tasks that Flower keeps in memory by default.
_FLOWER_TASKS = 100_000
#: Seconds that sending or ingesting may take.
_TIMEOUT = 300.0
#: Seconds between two looks at the job: each costs the database some of what the tracker needs.
_LOOK = 0.02

_Side = Callable[[int], Figures]


def main() -> None:
    """Run the benchmark."""
    options = parser("ingest", rounds=_ROUNDS)
    options.add_argument("--tasks", type=int, help=f"tasks (default: {_TASKS:,}, quick: {_QUICK_TASKS:,})")
    chosen = options.parse_args()
    tasks = chosen.tasks or (_QUICK_TASKS if chosen.quick else _TASKS)
    tell(f"ingest: the events of {tasks:,} tasks, {chosen.rounds} rounds")
    with ExitStack() as resources:
        sides = _sides(resources)
        for measure in sides.values():
            measure(_WARM_UP)
        found = in_turn(chosen.rounds, {side: partial(measure, tasks) for side, measure in sides.items()})
    speeds = {side: figures["events_per_s"] for side, figures in found.items()}
    ours = {side: speeds.pop(side) for side in ("sqlite", "postgresql") if side in speeds}
    best = ours.get("postgresql", ours["sqlite"])
    report(
        "ingest",
        ours={f"{side}_events_per_s": speed for side, speed in ours.items()},
        theirs={f"{side}_events_per_s": speed for side, speed in speeds.items()},
        ratios={side: best / speed for side, speed in speeds.items()},
        skipped=[side for side in ("postgresql", "flower") if side not in found],
    )


def _sides(resources: ExitStack) -> dict[str, _Side]:
    house = resources.enter_context(House())
    sides: dict[str, _Side] = {"sqlite": _ours(house, house.database_url, resources)}
    house = resources.enter_context(House())
    if url := house.start_postgresql():
        sides["postgresql"] = _ours(house, url, resources)
    alone = resources.enter_context(House())  # no tracker takes its rows up
    if url := alone.start_postgresql():
        sides["commit_per_event"] = partial(_commit_per_event, runner(alone, url, resources), url)
    if find_spec("flower") is not None:
        sides["flower"] = _flower
    return sides


def _ours(house: House, database_url: str, resources: ExitStack) -> _Side:
    house.database_url = database_url
    house.start_tracker()
    return partial(ingest, house, runner(house, database_url, resources))


def runner(house: House, database_url: str, resources: ExitStack) -> JobRunner:
    """Return a runner on the broker of a house and a database."""
    jobs = JobRunner(noop.make(house.url, house.results_url), database=database_url)
    resources.callback(jobs.database.close)
    return jobs


# ---- ours ----------------------------------------------------------------------------------------------


def ingest(house: House, jobs: JobRunner, tasks: int) -> Figures:
    """Let the house's tracker take in the events of a new job, and return its speed."""
    job, told = sent(house, jobs, tasks)
    _fill(jobs, told)
    began = time.perf_counter()
    house.wait_for(lambda: job.state is JobState.COMPLETED, timeout=_TIMEOUT, what="the job to complete", look=_LOOK)
    took = time.perf_counter() - began
    _check(jobs, job, tasks)
    jobs.app.control.purge()
    return {"events_per_s": len(told) / took}


def sent(house: House, jobs: JobRunner, tasks: int) -> tuple[Job, list[EventFields]]:
    """Have the house's tracker send a new job, and return it with what a worker would tell of it."""
    job = _submit(jobs, tasks)
    house.wait_for(
        lambda: _count(jobs, job, task.c.sent_at.is_not(None)) == tasks, timeout=_TIMEOUT, what="all tasks to be sent"
    )
    return job, _told(job)


def _submit(jobs: JobRunner, tasks: int) -> Job:
    return jobs.submit(group([jobs.app.tasks["noop"].s(number) for number in range(tasks)], app=jobs.app))


def _count(jobs: JobRunner, job: Job, *conditions: ColumnElement[bool]) -> int:
    """Count the tasks of a job which meet these conditions, and so do their attempts."""
    rows = select(func.count()).select_from(task).join(attempt, attempt.c.task_id == task.c.id, isouter=True)
    with jobs.database.read() as connection:
        return connection.execute(rows.where(task.c.job_id == job.id, *conditions)).scalar_one()


def _told(job: Job) -> list[EventFields]:
    return events_of(job.id, [task.id for task in job.tasks()])


def _fill(jobs: JobRunner, told: Sequence[EventFields]) -> None:
    """Write all batches in one transaction of the broker: the tracker sees none of them before it sees the last."""
    entries = list(batches_of(told))
    with jobs.app.connection_for_write() as connection, connection.default_channel.client.pipeline() as pipeline:
        for entry in entries:
            pipeline.xadd(EVENT_LOG, entry)
        pipeline.execute()


def _check(jobs: JobRunner, job: Job, tasks: int) -> None:
    """Every event has left its trace: received, started and succeeded are times of the attempt."""
    times = (attempt.c.received_at, attempt.c.started_at, attempt.c.ended_at)
    whole = _count(jobs, job, task.c.state == TaskState.COMPLETED, *(moment.is_not(None) for moment in times))
    if whole != tasks:
        msg = f"{whole} of {tasks} tasks have all that was told of them."
        raise RuntimeError(msg)


# ---- theirs --------------------------------------------------------------------------------------------


def _commit_per_event(jobs: JobRunner, database_url: str, tasks: int) -> Figures:
    tasks = min(tasks, _ENOUGH)
    job = _submit(jobs, tasks)
    told = _told(job)
    with commits.connect(database_url) as connection:
        began = time.perf_counter()
        commits.absorb(connection, told)
        took = time.perf_counter() - began
    _check(jobs, job, tasks)
    return {"events_per_s": len(told) / took}


def _flower(tasks: int) -> Figures:
    from flower.events import EventsState  # noqa: PLC0415  it may be missing

    told = events_of("job", [uuid7() for _ in range(tasks)])
    state = EventsState(max_tasks_in_memory=_FLOWER_TASKS)
    began = time.perf_counter()
    for event in told:
        event["local_received"] = event["timestamp"]  # as Celery's receiver does
        state.event(event)
    took = time.perf_counter() - began
    if len(state.tasks) != tasks:
        msg = f"Flower has {len(state.tasks)} of {tasks} tasks."
        raise RuntimeError(msg)
    return {"events_per_s": len(told) / took}


if __name__ == "__main__":
    main()
