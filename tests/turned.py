"""One job that is followed in turns of the tracker, without workers; its tasks go by their arrival."""

from collections.abc import Mapping
from typing import Any

from celery.canvas import Signature

from jobrunner import JobRunner
from tests.apps import check_counters, job_row, read_rows, store, take_turn
from tracker.fold import Event


class Turned:
    """A job on a database; after each turn its counters are right."""

    def __init__(self, runner: JobRunner) -> None:
        self.runner = runner
        self.job_id = ""

    def submit(self, canvas: Signature, *, barrier: bool = False) -> None:
        """Submit the job, and send what may run."""
        self.job_id = store(self.runner, canvas, barrier=barrier)
        self.turn()

    def turn(self, *events: Event) -> None:
        """Fold events and do what they lead to."""
        take_turn(self.runner, *events)
        check_counters(self.runner.database)

    def tasks(self) -> dict[int, Mapping[str, Any]]:
        """Return the rows of its tasks."""
        return {row["arrival"]: row for row in read_rows(self.runner.database, "task")}

    def states(self) -> dict[int, str]:
        """Return the states of its tasks."""
        return {arrival: row["state"] for arrival, row in sorted(self.tasks().items())}

    def job(self) -> Mapping[str, Any]:
        """Return its row."""
        return job_row(self.runner)
