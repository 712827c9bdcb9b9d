"""A turn that takes longer than the lease runs: nobody else takes the lease because of that."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event

from jobrunner import JobRunner
from jobrunner.store import leases
from tests.apps import store
from tracker import loop
from tracker.eventlog import Batch
from tracker.loop import Tracker


class _NothingToRead:
    """An event log in which nothing is ever written; a turn is committed when it is trimmed."""

    name = "nothing"

    def __init__(self, runner: JobRunner) -> None:
        self.runner = runner
        self.leaders: list[bool] = []
        self.tracker: Tracker | None = None

    def read(self, position: str | None, wait: float) -> Batch:  # noqa: ARG002  as the protocol has it
        return Batch(position=position or "0", entries=(), drained=True)

    def trim(self, position: str) -> None:  # noqa: ARG002  as the protocol has it
        with self.runner.database.read() as connection:
            status = leases.tracker_status(connection)
        self.leaders.append(status is not None and status.alive)
        if self.tracker is not None:
            self.tracker.stop()

    def close(self) -> None:
        """There is nothing to close."""


@contextmanager
def time_runs_out() -> Iterator[None]:
    """Let the lease's time be up in the middle of each turn: when new jobs are looked for."""

    def spend(connection: Any, _cursor: Any, statement: str, *_given: Any) -> None:
        if "applied_at IS NULL" in statement and connection.in_transaction():
            connection.exec_driver_sql("UPDATE lease SET expires_at = 0")

    event.listen(Engine, "before_cursor_execute", spend)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", spend)


def test_a_tracker_whose_turn_was_long_still_leads(runner: JobRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_RENEW", 0.0)  # every turn is a long one
    store(runner, runner.app.tasks["add"].s(1, 2))
    log = _NothingToRead(runner)
    log.tracker = Tracker(database=runner.database, app=runner.app, log=log, holder="slow")
    with time_runs_out():
        log.tracker.run()
    assert log.leaders == [True]
