"""What a tracker and a reader feel of how much the database holds: the same work beside more and more finished jobs.

Every side has a tracker of its own, and beside it jobs of 1,000 tasks with their whole history, as a tracker has left
them. In turn, each side takes in the events of a new job, and old jobs are read as `jobrunner show` and `tasks` read
them. Of the tracker's process are reported the most that it has had resident, and its processor time per task, sent and
followed to its end: on a busy machine that says more than the speed. Both on Linux only.

The other side is ours too: ratios are those of the largest database to the smallest.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

from sqlalchemy import Column, ColumnElement, Table, func, insert, literal, select, text

from benchmarks.harness import Figures, House, in_turn, parser, peak_mb, report, tell
from benchmarks.ingest import ingest, runner
from jobrunner import JobRunner
from jobrunner.store import leases, reading
from jobrunner.store.database import Database
from jobrunner.store.schema import attempt, block, job, message, task

_SIZES, _QUICK_SIZES = (10_000, 100_000, 1_000_000), (1_000, 10_000)
_TASKS, _QUICK_TASKS = 5_000, 1_000
_ROUNDS = 5
#: Tasks of each old job, and old jobs that are read per round.
_JOB, _READ = 1_000, 5
#: Copies of a job per transaction: the tracker beside waits for it on SQLite.
_COPIES = 20
#: Ids are UUIDs of version 7: these first digits are the time, here that of all ids of one job.
_TIME = 8
_IDS = {"id", "job_id", "task_id", "celery_id", "block_id", "opens_block", "parent_id"}
_IDS |= {"takes_task", "takes_group", "yields_group", "value_task", "value_group"}


def main() -> None:
    """Run the benchmark."""
    options = parser("growth", rounds=_ROUNDS)
    options.add_argument("--tasks", type=int, help=f"tasks per round (default: {_TASKS:,}, quick: {_QUICK_TASKS:,})")
    chosen = options.parse_args()
    tasks = chosen.tasks or (_QUICK_TASKS if chosen.quick else _TASKS)
    sizes = _QUICK_SIZES if chosen.quick else _SIZES
    tell(f"growth: the events of {tasks:,} tasks beside {sizes} old ones, {chosen.rounds} rounds")
    with ExitStack() as resources:
        sides = {f"{side.name}_{size}": side for size in sizes for side in _sides(size, resources)}
        found = in_turn(chosen.rounds, {name: partial(side.measure, tasks) for name, side in sides.items()})
    _report(found, sizes)


def _report(found: dict[str, Figures], sizes: Sequence[int]) -> None:
    databases = [name for name in ("sqlite", "postgresql") if f"{name}_{sizes[0]}" in found]
    ratios = {}
    for database in databases:
        smallest, largest = (found[f"{database}_{size}"] for size in (sizes[0], sizes[-1]))
        ratios |= {f"{database}_{key}": largest[key] / smallest[key] for key in smallest}
    report(
        "growth",
        ours={f"{side}_{key}": value for side, figures in found.items() for key, value in figures.items()},
        theirs={},
        ratios=ratios,
        skipped=[name for name in ("sqlite", "postgresql") if name not in databases],
    )


class _Side:
    """A house with a tracker, and a database that holds so many tasks."""

    def __init__(self, name: str, house: House, jobs: JobRunner, size: int) -> None:
        self.name, self._house, self._jobs = name, house, jobs
        ingest(house, jobs, _JOB)
        with jobs.database.read() as connection:
            first = connection.execute(select(job.c.id)).scalar_one()
        began = time.perf_counter()
        _multiply(jobs.database, first, size // _JOB)
        tell(f"filled {name} with {size:,} tasks in {time.perf_counter() - began:.1f} s")
        with jobs.database.read() as connection:
            ids = connection.execute(select(job.c.id).order_by(job.c.id)).scalars().all()
        self._old = ids[:: max(1, len(ids) // _READ)][:_READ]

    def measure(self, tasks: int) -> Figures:
        """Take in the events of so many tasks, then read old jobs."""
        tracker = Path(f"/proc/{self._house.processes['tracker'].pid}")
        before = _processor_seconds(tracker) if tracker.exists() else 0.0
        figures = {**ingest(self._house, self._jobs, tasks), "job_page_ms": 1000 * self._seconds_per_page()}
        if not tracker.exists():
            return figures
        spent = _processor_seconds(tracker) - before
        return figures | {"tracker_us_per_task": 1e6 * spent / tasks, "tracker_mb": peak_mb(tracker)}

    def _seconds_per_page(self) -> float:
        took = []
        for job_id in self._old:
            began = time.perf_counter()
            with self._jobs.database.read() as connection:
                reading.find_jobs(connection, job_id)
                leases.tracker_status(connection)
                reading.workers_online(connection)
                number = len(reading.list_tasks(connection, job_id))
            took.append(time.perf_counter() - began)
            if number != _JOB:
                msg = f"The job {job_id} has {number} tasks."
                raise RuntimeError(msg)
        return median(took)


def _sides(size: int, resources: ExitStack) -> Iterator[_Side]:
    for name in ("sqlite", "postgresql"):
        house = resources.enter_context(House())
        url = house.database_url if name == "sqlite" else house.start_postgresql()
        if url is not None:
            house.database_url = url
            house.start_tracker()
            yield _Side(name, house, runner(house, url, resources), size)


# ---- many jobs from one --------------------------------------------------------------------------------


def _multiply(database: Database, job_id: str, number: int) -> None:
    """Copy a job until there are so many of it, each a minute older than the one before."""
    youngest = int(job_id[:_TIME], 16)
    for start in range(1, number, _COPIES):
        with database.write() as connection:
            for copy in range(start, min(start + _COPIES, number)):
                for statement in _copies(job_id, f"{youngest - copy:0{_TIME}x}"):
                    connection.execute(statement)
    if not database.is_sqlite:  # which it does by itself within a minute
        with database.write() as connection:
            connection.execute(text("ANALYZE"))


def _copies(job_id: str, begin: str) -> Iterator[ColumnElement]:
    ours = select(task.c.id).where(task.c.job_id == job_id)
    for table, condition in (
        (job, job.c.id == job_id),
        (block, block.c.job_id == job_id),
        (message, message.c.task_id.in_(ours)),
        (attempt, attempt.c.task_id.in_(ours)),
        (task, task.c.job_id == job_id),
    ):
        yield insert(table).from_select(list(table.columns), select(*_values(table, begin)).where(condition))


def _values(table: Table, begin: str) -> Iterator[ColumnElement | Column]:
    for column in table.columns:
        yield literal(begin) + func.substr(column, _TIME + 1) if column.name in _IDS else column


def _processor_seconds(process: Path) -> float:
    """Return the processor time that a process has used, from Linux's folder of it."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()  # behind the name, which may hold anything
    return sum(int(ticks) for ticks in fields[11:13]) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
