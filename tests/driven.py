"""One job in a simulated world, driven step by step: who starts what, what is ordered, who takes notice."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery.canvas import Signature
from sqlalchemy import select

from jobrunner.failure_policy import FailurePolicy
from jobrunner.order_kinds import OrderKind
from jobrunner.order_records import Answer
from jobrunner.states import JobState, TaskState
from jobrunner.store.check import wrong_counters
from jobrunner.store.schema import history, job, orders, task
from tests.apps import nobody_runs_it, store
from tests.builders import event
from tests.simulation import Message, World


class Driven:
    """A job whose tasks go by their arrival, one worker, and a tracker that takes a turn after each step.

    The worker takes notice of the snapshot only when it is told to.
    """

    def __init__(self, folder: Path, database: str | None = None) -> None:
        self.world = World(folder, redelivers=True, database=database)
        self.world.runner.task(name="discover", discovers=True, shared=False)(nobody_runs_it)
        self.world.runner.prepare_tasks()
        self.world.come("worker", terminates=True)
        self.job_id = ""

    def work(self, *, discovers: bool = False) -> Signature:
        """Return a task that takes nothing."""
        return self.world.runner.app.tasks["discover" if discovers else "anything"].si()

    def submit(
        self,
        canvas: Signature,
        *,
        barrier: bool = False,
        after: Iterable[str] = (),
        key: str | None = None,
        wait_for_failed: bool = False,
        paused: bool = False,
        name: str | None = None,
        **policy: Any,
    ) -> str:
        """Submit the job, which is known and sent then, and return its id."""
        self.job_id = store(
            self.world.runner, canvas, barrier=barrier, after=after, key=key, wait_for_failed=wait_for_failed,
            paused=paused, name=name, policy=FailurePolicy.of(**policy),
        )  # fmt: skip
        self.turn()
        return self.job_id

    def of(self, job_id: str) -> "Driven":
        """Go on with another job."""
        self.job_id = job_id
        return self

    # ---- steps ---------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Write all that was told, and let the tracker take a turn on it."""
        for worker in self.world.workers.values():
            self.world.flush(worker)
        self.world.turn(len(self.world.log))

    def start(self, number: int = 0) -> None:
        """Let the worker start a task."""
        worker, message = self.world.workers["worker"], self._message(number)
        self.world.prefetch(worker, message)
        self.world.start(worker, message)
        self.turn()

    def end(self, number: int = 0, how: str = "succeeded") -> None:
        """Let a task end that runs."""
        worker = self.world.workers["worker"]
        (running,) = (one for one in worker.running if one.message.celery_id == self.row(number).celery_id)
        self.world.end(worker, running, how)
        self.turn()

    def run(self, number: int = 0, how: str = "succeeded") -> None:
        """Let a task start and end."""
        self.start(number)
        self.end(number, how)

    def lose_worker(self) -> None:
        """Kill the worker, and let another one come."""
        self.world.kill(self.world.workers["worker"])
        self.world.come("worker", terminates=True)
        self.turn()

    def notice(self) -> None:
        """Let workers take notice of what was ordered, and end what they should end."""
        for worker in self.world.workers.values():
            self.world.read(worker)
            for one in [one for one in worker.running if one.dying]:
                self.world.end(worker, one, "terminated")
        self.turn()

    def hear(self, type_: str, number: int = 0, *, worker: str = "worker", **fields: Any) -> None:
        """Let a worker tell something of a task, be it true or not."""
        known = self.world.workers.get(worker)
        source = known.source if known else f"{worker}/1"
        at, uuid = self.world.turns * 100 + 50, self.row(number).celery_id
        told = event(type_, uuid=uuid, worker=worker, source=source, at=at, fields={"root_id": self.job_id, **fields})
        self.world.log.append(told)
        self.turn()
        if known is None:
            self.world.dead.add(worker)

    def order(self, kind: OrderKind, number: int | None = None, **arguments: Any) -> None:
        """Order something of the job, or of a task, and let the tracker take it."""
        self.give(kind, number, **arguments)
        self.turn()

    def give(self, kind: OrderKind, number: int | None = None, **arguments: Any) -> None:
        """Order something of the job, or of a task."""
        self.world.order(kind, self.job_id, None if number is None else self.row(number).id, **arguments)

    def rest(self) -> None:
        """Let everybody do what is left to do, and what is to end so."""
        for _ in range(20):
            self.world.work_on()
            if self.world.is_quiet and self.answer is not None:
                break

    # ---- what is known -------------------------------------------------------------------------------------

    @property
    def state(self) -> JobState:
        """The state of the job."""
        return JobState(self.job.state)

    @property
    def job(self) -> Any:
        """The row of the job."""
        (found,) = self._rows(select(job).where(job.c.id == self.job_id))
        return found

    @property
    def tasks(self) -> list[TaskState]:
        """The states of its tasks."""
        rows = self._rows(select(task.c.state).where(task.c.job_id == self.job_id).order_by(task.c.arrival))
        return [TaskState(one.state) for one in rows]

    @property
    def moves(self) -> list[tuple[JobState, JobState]]:
        """The moves of the job, as its history tells them."""
        query = select(history.c.old, history.c.new).where(history.c.job_id == self.job_id, history.c.task_id.is_(None))
        rows = self._rows(query.order_by(history.c.id))
        return [(JobState(one.old), JobState(one.new)) for one in rows if one.old is not None]

    @property
    def answer(self) -> Answer | None:
        """What became of the last order."""
        answer = self._rows(select(orders.c.answer).order_by(orders.c.id.desc()).limit(1))[0].answer
        return None if answer is None else Answer(**json.loads(answer))

    def row(self, number: int) -> Any:
        """The row of a task."""
        (found,) = self._rows(select(task).where(task.c.job_id == self.job_id, task.c.arrival == number))
        return found

    def _rows(self, query: Any) -> list[Any]:
        with self.world.runner.database.read() as connection:
            return list(connection.execute(query))

    def _message(self, number: int) -> Message:
        (message,) = (one for one in self.world.queue if one.celery_id == self.row(number).celery_id)
        return message


@contextmanager
def driven(folder: Path, database: str | None = None) -> Iterator[Driven]:
    """Yield a world with a worker and no job yet; in the end all counters are right."""
    made = Driven(folder, database)
    try:
        yield made
        with made.world.runner.database.read() as connection:
            assert wrong_counters(connection) == []
    finally:
        made.world.runner.database.close()
