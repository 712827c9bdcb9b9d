"""One job that is run, requeued and run again in turns of the tracker, told of by the arrivals of its tasks."""

from itertools import count
from typing import Any

import pytest
from celery import group
from celery.canvas import Signature

from jobrunner import JobRunner
from jobrunner.additions import parts
from jobrunner.order_kinds import OrderKind
from jobrunner.order_records import Answer
from tests.apps import answer_to, order
from tests.builders import event
from tests.turned import Turned
from tracker.fold import Event


class Requeued(Turned):
    """A job of which tasks run, add to it, send others, and are requeued."""

    def __init__(self, runner: JobRunner) -> None:
        super().__init__(runner)
        self._numbers = count()

    def leaf(self, number: int = 1) -> Signature:
        return self.runner.app.tasks["add"].si(number, number)

    def several(self, number: int) -> Signature:
        return group(self.leaf(one) for one in range(number))

    def tell(self, arrival: int, type_: str, **fields: Any) -> Event:
        return event(type_, uuid=self.tasks()[arrival]["celery_id"], fields=fields)

    def run(self, *arrivals: int) -> None:
        """Let tasks run to a good end, all at once."""
        told = [self.tell(arrival, type_) for arrival in arrivals for type_ in ("started", "succeeded")]
        self.turn(*told)

    def run_all(self) -> None:
        """Let whatever was sent run to a good end, until nothing is left."""
        while queued := [arrival for arrival, state in self.states().items() if state == "queued"]:
            self.run(*queued)

    def fail(self, arrival: int) -> None:
        self.turn(self.tell(arrival, "started"), self.tell(arrival, "failed", exception="RuntimeError()"))

    def add(self, arrival: int, canvas: Signature, *, expands: bool = False) -> None:
        """Let a task add to the job, and run to a good end."""
        uuid, number = self.tasks()[arrival]["celery_id"], next(self._numbers)
        names = (f"{uuid}/{name}" for name in ("chain", "group"))
        told = parts(self.runner.app, canvas, chain=next(names), group=next(names), number=number, expands=expands)
        self.turn(
            self.tell(arrival, "started"),
            *(self.tell(arrival, "added", part=one.model_dump(mode="json")) for one in told),
        )
        self.turn(self.tell(arrival, "succeeded"))

    def send(self, arrival: int, celery_id: str) -> None:
        """Let a task send another one, as with `delay()`."""
        fields = {
            "root_id": self.job_id,
            "parent_id": self.tasks()[arrival]["celery_id"],
            "name": "add",
            "queue": "celery",
        }
        self.turn(event("sent", uuid=celery_id, fields=fields))

    def order(self, kind: OrderKind, arrival: int | None = None, **arguments: Any) -> Answer:
        task_id = None if arrival is None else self.tasks()[arrival]["id"]
        given = order(self.runner, kind, self.job_id, task_id, **arguments)
        for _ in range(20):
            self.turn()
            if (answer := answer_to(self.runner, given)) is not None:
                self.turn()
                return answer
        pytest.fail("no answer")

    def requeue(self, arrival: int | None = None, **arguments: Any) -> Answer:
        return self.order(OrderKind.REQUEUE, arrival, **arguments)

    def deliveries(self) -> dict[int, int]:
        return {arrival: row["delivery"] for arrival, row in sorted(self.tasks().items())}
