"""One large job: 100,000 no-ops and a join, submitted, its tracker stopped half-way and started again, to its end.

There is no other side. The figures are the most memory that the client and the trackers ever had (`client_mb`,
`tracker_mb`: resident, Python and all modules included), and the time from `submit` to the end. The client is this
process; most of what it takes is the canvas, of which Celery makes a copy when it becomes a chord.
"""

import time
from pathlib import Path

from benchmarks import noop
from benchmarks.harness import House, parser, peak_mb, report, tell
from jobrunner import JobRunner
from jobrunner.handle import Job
from jobrunner.states import ENDED_JOB, JobState
from jobrunner.store.check import check

_APP = "benchmarks.noop"
_TASKS, _QUICK_TASKS = 100_000, 5_000
#: Seconds that a thousand tasks may take on a busy machine.
_PATIENCE = 20.0
#: Seconds between two looks at the job.
_LOOK = 0.2


def main() -> None:
    """Run the benchmark."""
    options = parser("large", rounds=None)
    options.add_argument("--tasks", type=int, help=f"no-ops (default: {_TASKS:,}, quick: {_QUICK_TASKS:,})")
    chosen = options.parse_args()
    tasks = chosen.tasks or (_QUICK_TASKS if chosen.quick else _TASKS)
    tell(f"large: {tasks:,} no-ops and a join")
    with House() as house:
        house.start_tracker()
        house.start_worker(_APP)
        app = noop.make(house.url)
        jobs = JobRunner(app, database=house.database_url)
        began = time.perf_counter()
        job = jobs.submit(noop.fan(app, tasks))
        client_mb = peak_mb(Path("/proc/self"))
        tell(f"submitted after {time.perf_counter() - began:.1f} s; client {client_mb:.0f} MB")
        _until(house, job, tasks // 2)
        first_mb = _tracker_mb(house)
        house.stop("tracker")
        house.start_tracker()
        tell(f"tracker restarted with {job.progress.done:,} tasks done; the first one had {first_mb:.0f} MB")
        _until(house, job, tasks)
        house.wait_for(lambda: job.state in ENDED_JOB, timeout=tasks * _PATIENCE / 1000, what="the end", look=_LOOK)
        seconds = time.perf_counter() - began
        second_mb = _tracker_mb(house)
        tell(f"ended; the second one had {second_mb:.0f} MB")
        _check(jobs, job, tasks)
        jobs.database.close()
    report(
        "large",
        ours={
            "tasks": tasks + 1,
            "seconds": seconds,
            "client_mb": client_mb,
            "tracker_mb": max(first_mb, second_mb),
        },
        theirs={},
        ratios={},
    )


def _until(house: House, job: Job, done: int) -> None:
    timeout = max(60.0, done * _PATIENCE / 1000)
    house.wait_for(lambda: job.progress.done >= done, timeout=timeout, what=f"{done:,} tasks to end", look=_LOOK)


def _tracker_mb(house: House) -> float:
    return peak_mb(Path("/proc", str(house.processes["tracker"].pid)))


def _check(jobs: JobRunner, job: Job, tasks: int) -> None:
    faults = check(jobs.database)
    if job.state is not JobState.COMPLETED or job.result() != tasks or faults:
        msg = f"The job is {job.state}, and not completed with {tasks}. {' '.join(faults)}"
        raise RuntimeError(msg)


if __name__ == "__main__":
    main()
