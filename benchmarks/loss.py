"""Of the events that are sent while nobody listens, how many arrive: our tracker's beside Celery's own event receiver.

In turn, on Redis and on RabbitMQ, the listener is *down* (ended, and started again when all has been sent) and
*stalled* (stopped with SIGSTOP, and continued so much later that what has a time to live is over). Theirs is `celery
events --dump` on what a stock worker's dispatcher sends, in its own batches. Neither of the two sees an error.

The figures are numbers of events; there is no ratio to a side that got none. RabbitMQ, where it is installed, is
started as the tests start it.
"""

import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from itertools import count

from sqlalchemy import func, select

from benchmarks import noop
from benchmarks.harness import Figures, House, parser, report, tell
from benchmarks.ingest import runner, sent
from benchmarks.told import EventFields, batches_of, events_of
from jobrunner import JobRunner
from jobrunner.event_log import open_writer
from jobrunner.handle import Job
from jobrunner.ids import uuid7
from jobrunner.store import leases
from jobrunner.store.schema import attempt, task
from tests.process import dismiss_guardian
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.server import AbsentError

_APP = "benchmarks.noop"
_TASKS, _QUICK_TASKS = 20_000, 1_000
_BROKERS = ("redis", "rabbitmq")
#: Seconds from the last event to the end of a stall: Celery's queue of events keeps them for 5. A quick run is too
#: short, and has too few, to lose any that way.
_STALL, _QUICK_STALL = 6.0, 0.5
#: Seconds that anything may take.
_TIMEOUT = 300.0
#: What a dispatcher says itself of whoever uses it.
_OF_THE_SENDER = {"type", "hostname", "pid", "clock", "utcoffset"}

#: Has a process absent, by its name and what starts it.
_Absent = Callable[[str, Callable[[], None]], AbstractContextManager[None]]


def main() -> None:
    """Run the benchmark."""
    options = parser("loss", rounds=None)
    options.add_argument("--tasks", type=int, help=f"tasks (default: {_TASKS:,}, quick: {_QUICK_TASKS:,})")
    options.add_argument("--broker", choices=_BROKERS, help="only this one (default: each that is installed)")
    chosen = options.parse_args()
    tasks = chosen.tasks or (_QUICK_TASKS if chosen.quick else _TASKS)
    stall = _QUICK_STALL if chosen.quick else _STALL
    tell(f"loss: the events of {tasks:,} tasks, on each broker")
    ours, theirs = {"sent_events": 3.0 * tasks}, {"sent_events": 3.0 * tasks}
    with ExitStack() as resources:
        for broker, url in _brokers(resources, chosen.broker):
            with House() as house:
                house.url = url or house.url
                absences = {"down": partial(_down, house), "stalled": partial(_stalled, house, stall)}
                house.start_tracker()
                ours |= {f"{broker}_{name}_events": _ours(house, absent, tasks) for name, absent in absences.items()}
                house.stop("tracker")
                theirs |= {
                    f"{broker}_{name}_events": _theirs(house, absent, tasks) for name, absent in absences.items()
                }
            for name in absences:
                key = f"{broker}_{name}_events"
                tell(f"{broker} {name:8} ours {ours[key]:,.0f}, theirs {theirs[key]:,.0f} of {3 * tasks:,}")
    _report(ours, theirs)


def _report(ours: Figures, theirs: Figures) -> None:
    keys = [key for key in ours if key != "sent_events"]
    report(
        "loss",
        ours=ours,
        theirs=theirs,
        ratios={key.removesuffix("_events"): ours[key] / theirs[key] for key in keys if theirs[key]},
        skipped=[name for name in _BROKERS if f"{name}_down_events" not in ours],
    )


def _brokers(resources: ExitStack, only: str | None) -> Iterator[tuple[str, str | None]]:
    """Yield each broker that is installed, or one of them, with its URL if it is not that of every house."""
    if only != "rabbitmq":
        yield "redis", None
    if only == "redis":
        return
    resources.callback(dismiss_guardian)
    try:
        server = RabbitMQ()
    except AbsentError:
        return
    resources.callback(server.close)
    yield "rabbitmq", server.start().new_vhost()


@contextmanager
def _down(house: House, name: str, start: Callable[[], None]) -> Iterator[None]:
    """Have a process of the house ended until the end of the block."""
    house.stop(name)
    yield
    start()


@contextmanager
def _stalled(house: House, seconds: float, name: str, _start: Callable[[], None]) -> Iterator[None]:
    """Have a process of the house stand still until so long after the block."""
    house.processes[name].send_signal(signal.SIGSTOP)
    yield
    time.sleep(seconds)
    house.processes[name].send_signal(signal.SIGCONT)


# ---- ours ----------------------------------------------------------------------------------------------


def _ours(house: House, absent: _Absent, tasks: int) -> float:
    with ExitStack() as resources:
        jobs = runner(house, house.database_url, resources)
        job, told = sent(house, jobs, tasks)
        with absent("tracker", house.start_tracker):
            _write(jobs, told)
        back = time.monotonic()
        house.wait_for(
            lambda: _behind(jobs) < time.monotonic() - back, timeout=_TIMEOUT, what="the tracker to catch up"
        )
        jobs.app.control.purge()
        return _known(jobs, job)


def _write(jobs: JobRunner, told: list[EventFields]) -> None:
    with jobs.app.connection_for_write() as connection:
        writer = open_writer(connection)
        for batch in batches_of(told):
            writer.append(batch)


def _behind(jobs: JobRunner) -> float:
    with jobs.database.read() as connection:
        status = leases.tracker_status(connection)
    return float("inf") if status is None or status.behind_seconds is None else status.behind_seconds


def _known(jobs: JobRunner, job: Job) -> float:
    """Count what the database has of a job's events: received, started and ended are times of the attempt."""
    times = (func.count(moment) for moment in (attempt.c.received_at, attempt.c.started_at, attempt.c.ended_at))
    rows = select(*times).join_from(task, attempt, attempt.c.task_id == task.c.id).where(task.c.job_id == job.id)
    with jobs.database.read() as connection:
        return sum(connection.execute(rows).one())


# ---- theirs --------------------------------------------------------------------------------------------


def _theirs(house: House, absent: _Absent, tasks: int) -> float:
    told = events_of("job", [uuid7() for _ in range(tasks)])
    monitor = _Monitor(house)
    with absent("monitor", monitor.start):
        monitor.send(told)
    monitor.wait_until_heard()
    house.stop("monitor")
    return monitor.got()


class _Monitor:
    """Celery's monitor, and a dispatcher as a worker has it, of an app that knows nothing of jobrunner."""

    def __init__(self, house: House) -> None:
        self._house, self._app = house, noop.make(house.url, house.results_url)
        self._markers = count(1)
        self.start()
        self.wait_until_heard()

    def start(self) -> None:
        """Start it, with a file of its own."""
        self._file = self._house.home / f"events-{time.monotonic_ns()}"
        self._house.start_monitor(_APP, self._file)

    def send(self, told: list[EventFields]) -> None:
        """Send events as a worker does."""
        with self._app.connection_for_write() as connection:
            sender = self._app.events.Dispatcher(connection, hostname="worker@host", buffer_group={"task"})
            for event in told:
                fields = {name: value for name, value in event.items() if name not in _OF_THE_SENDER}
                sender.send(event["type"], **fields)
            sender.flush()

    def wait_until_heard(self) -> None:
        """Send a marker until it has come through: then whatever was sent before has come, or is lost."""
        marker = f"marker{next(self._markers)}"

        def heard() -> bool:
            with self._app.events.default_dispatcher() as sender:
                sender.send(marker)
            return f"] {marker}:" in self._text()

        self._house.wait_for(heard, timeout=_TIMEOUT, what="Celery's monitor to hear", look=0.2)

    def got(self) -> float:
        """Return how many events of tasks have come."""
        return len(re.findall(r"\] task (?:received|started|succeeded):", self._text()))

    def _text(self) -> str:
        return self._file.read_text() if self._file.exists() else ""


if __name__ == "__main__":
    main()
