"""Record what two real workers tell while much goes wrong: `python -m tests.histories.record`.

Run it again when workers tell something new. Each history is of one broker: tasks that succeed, fail, are retried, are
revoked before and while they run, lose their process, and lose their worker while they run and while they wait.
"""

import json
import sys
import tempfile
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

from celery import chain, group

from jobrunner.handle import Job
from jobrunner.states import ENDED_TASK
from tests.histories import FOLDER
from tests.house import House
from tests.process import Process
from tests.servers.rabbitmq import RabbitMQ
from tests.waiting import PATIENCE, until
from tracker.eventlog import Batch, EventLog, open_log
from tracker.loop import Tracker

#: Of what a worker says all the time, nothing is worth keeping.
_DULL = frozenset({"worker-heartbeat"})


class Noting:
    """An event log that notes what is read from it."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.name = log.name
        self.entries: list[dict[str, Any]] = []

    def read(self, position: str | None, wait: float) -> Batch | None:
        """Read, and note the entries."""
        batch = self._log.read(position, wait)
        for entry in batch.entries if batch else ():
            if events := [_short(one) for one in entry.events if one["type"] not in _DULL]:
                self.entries.append({"source": entry.source, "worker": entry.worker, "events": events})
        return batch

    def trim(self, position: str) -> None:
        """Forget what is committed."""
        self._log.trim(position)

    def close(self) -> None:
        """Drop the connection."""
        self._log.close()


def _short(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event without the lines of its traceback, which are about this machine."""
    return event | {"traceback": event["traceback"].splitlines()[-1]} if event.get("traceback") else event


def record(house: House) -> dict[str, Any]:
    """Let it all happen, and return what was told."""
    house.broker()
    log = Noting(open_log(house.app))
    tracker = Tracker(database=house.jobs.database, app=house.app, log=log, holder="recorder")
    thread = threading.Thread(target=tracker.run)
    thread.start()
    try:
        jobs = list(_trouble(house, house.worker("one"), house.worker("two")))
        tasks = [task for job in jobs for task in _ended(job)]
    finally:
        tracker.stop()
        thread.join()
    return {"entries": log.entries, "tasks": tasks}


def _trouble(house: House, one: Process, two: Process) -> list[Job]:
    proj, gate = house.proj, house.gate("gate")
    plain = house.jobs.submit(group(chain(proj.add.si(1, n), proj.add.s(n)) for n in range(3)) | proj.total.s())
    retried = house.jobs.submit(
        group(
            proj.fail_times.si("a", 2, house.path("a")),
            proj.die_once.si("b", house.path("b")),
            proj.second_try.si("c", 0.5),
            proj.fail.si("d"),
        )
    )
    plain.wait(PATIENCE), retried.wait(PATIENCE)
    held = house.jobs.submit(group(proj.hold.si(n, str(gate)) for n in range(20)))  # most of them wait in a worker
    running = until(lambda: len(found := _in("active", held)) == 4 and found, timeout=PATIENCE, what="four at work")
    waiting = _in("queued", held)
    house.app.control.revoke(waiting[0])
    house.app.control.revoke(running[0], terminate=True)
    until(lambda: _in("canceled", held), timeout=PATIENCE, what="a revoked task")
    one.kill()
    house.worker("one")
    gate.open()
    held.wait(PATIENCE)
    two.stop()
    return [plain, retried, held]


def _in(state: str, job: Job) -> list[str]:
    return [task.id for task in job.tasks() if task.state == state]


def _ended(job: Job) -> list[dict[str, Any]]:
    until(lambda: all(task.state in ENDED_TASK for task in job.tasks()), timeout=PATIENCE, what="all ends")
    return [{"id": task.id, "delivery": task.delivery, "state": task.state} for task in job.tasks()]


def main() -> None:
    """Record on each broker."""
    with tempfile.TemporaryDirectory() as folder, closing(House(Path(folder))) as house:
        _write("redis", record(house))
    rabbitmq = RabbitMQ()
    try:
        rabbitmq.start()
        with tempfile.TemporaryDirectory() as folder, closing(House(Path(folder), rabbitmq=rabbitmq)) as house:
            _write("rabbitmq", record(house))
    finally:
        rabbitmq.close()


def _write(broker: str, history: dict[str, Any]) -> None:
    text = json.dumps(history, separators=(",", ":"))
    (FOLDER / f"{broker}.json").write_text(text.replace('{"source"', '\n{"source"') + "\n")
    sys.stdout.write(f"{broker}: {len(history['entries'])} entries, {len(text)} characters\n")


if __name__ == "__main__":
    main()
