"""What a job and a Celery chord put on the broker: 1,000 no-ops, and a body of 50 steps one after another.

Counted are the bytes of all task messages that are published until the last value is stored, each as it stands in its
queue: Redis tells of every command that it runs. Celery's chord sends its whole body along with each task of the
header, and what is left of it with each step. Events are told beside that and not in the ratio: ours say the same as
Celery's, twice, to the event log and to monitors. Either worker has them on.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import redis
from celery import Celery, chain, chord
from celery.canvas import Signature
from redis.client import Monitor

from benchmarks import noop
from benchmarks.harness import Figures, House, parser, report, tell
from jobrunner import JobRunner
from jobrunner.embedded import broker
from jobrunner.states import ENDED_JOB

_APP = "benchmarks.noop"
_TASKS, _QUICK_TASKS = 1_000, 200
_STEPS = 50
#: Seconds that one canvas may take.
_TIMEOUT = 300.0
#: Queue of the task messages.
_QUEUE = "celery"


def main() -> None:
    """Run the benchmark."""
    options = parser("bytes", rounds=None)
    options.add_argument("--tasks", type=int, help=f"no-ops (default: {_TASKS:,}, quick: {_QUICK_TASKS:,})")
    chosen = options.parse_args()
    tasks = chosen.tasks or (_QUICK_TASKS if chosen.quick else _TASKS)
    tell(f"bytes: {tasks:,} no-ops and {_STEPS} steps")
    ours, theirs = _ours(tasks), _theirs(tasks)
    report("bytes", ours=ours, theirs=theirs, ratios={"chord": ours["message_bytes"] / theirs["message_bytes"]})


def _ours(tasks: int) -> Figures:
    with House() as house:
        house.start_tracker()
        house.start_worker(_APP)
        with _published(house) as number:
            jobs = JobRunner(noop.make(house.url), database=house.database_url)
            job = jobs.submit(_canvas(jobs.app, tasks))
            house.wait_for(lambda: job.state in ENDED_JOB, timeout=_TIMEOUT, what="the job to end")
            _check(job.result(), tasks)
            jobs.database.close()
        return number


def _theirs(tasks: int) -> Figures:
    with House() as house:
        house.start_bare_worker(_APP, "-E")
        with _published(house) as number:
            _check(_canvas(noop.make(house.url), tasks).apply_async().get(timeout=_TIMEOUT), tasks)
        return number


def _canvas(bound: Celery, tasks: int) -> Signature:
    step = bound.tasks["noop"].s()
    header = [bound.tasks["noop"].s(number) for number in range(tasks)]
    return chord(header, chain(bound.tasks["join"].s(), *(step for _ in range(_STEPS - 1)), app=bound), app=bound)


@contextmanager
def _published(house: House) -> Iterator[dict[str, float]]:
    """Yield figures that are there at the end of the block: messages that were published in it, and their bytes."""
    found: dict[str, float] = {}
    path = str(broker.socket_path(house.home))
    with (
        redis.Redis(unix_socket_path=path) as asking,
        redis.Redis(unix_socket_path=path) as telling,
        asking.monitor() as monitor,
    ):
        last = uuid4().hex
        reader = threading.Thread(target=_read, args=(monitor, last, found), daemon=True)
        reader.start()
        yield found
        telling.echo(last)  # after all that was published before it
        reader.join()


def _read(monitor: Monitor, last: str, found: dict[str, float]) -> None:
    sizes: dict[str, list[int]] = {"message": [], "event": []}
    for one in monitor.listen():
        command, _, rest = one["command"].partition(" ")
        name, _, payload = rest.partition(" ")
        if name == last:
            break
        if command.upper() == "LPUSH" and name == _QUEUE:
            sizes["message"].append(len(payload))
        elif command.upper() == "XADD" or (command.upper() == "PUBLISH" and "celeryev" in name):
            sizes["event"].append(len(payload))
    found |= {
        "messages": len(sizes["message"]),
        "message_bytes": sum(sizes["message"]),
        "event_bytes": sum(sizes["event"]),
    }


def _check(value: object, tasks: int) -> None:
    if value != tasks:
        msg = f"The canvas yielded {value!r} instead of {tasks}."
        raise RuntimeError(msg)


if __name__ == "__main__":
    main()
