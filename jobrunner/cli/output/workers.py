"""How workers look: a table of them and of what they are blocked for, and JSON for programs."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from rich.table import Table

from jobrunner.cli.output.tables import new_table, state_text
from jobrunner.cli.output.times import ago, stamp
from jobrunner.store.reading import WorkerBlockView, WorkerView

#: What `lossy` means, for people.
LOSSY = "a worker without jobrunner: what it tells while no tracker listens is lost"


def workers_table(views: Iterable[WorkerView]) -> Table:
    """Return workers as a table."""
    table = new_table("WORKER", "STATE", "PID", "SINCE", "HEARD", "ACTIVE", "RECEIVED", "LOST")
    for view in views:
        table.add_row(
            view.name,
            state_text(view.state, mark="lossy" if view.lossy else ""),
            "" if view.pid is None else str(view.pid),
            stamp(view.online_at),
            ago(view.seen_at),
            str(view.active),
            str(view.received),
            _lost(view),
        )
    return table


def _lost(view: WorkerView) -> str:
    """Say what of a worker's events is known to be lost; nothing if nothing is."""
    lost = {"event": view.events_dropped, "batch": view.batches_missed}
    plurals = {"event": "events", "batch": "batches"}
    return ", ".join(f"{number:,} {one if number == 1 else plurals[one]}" for one, number in lost.items() if number)


def worker_blocks_table(blocks: Iterable[WorkerBlockView]) -> Table:
    """Return which workers get no more tasks of which name, in which jobs, as a table."""
    table = new_table("BLOCKED", "FOR TASKS", "OF JOB", "NAME", "SINCE")
    for one in blocks:
        table.add_row(one.worker, one.task_name, one.job_id, one.job_name, stamp(one.blocked_at))
    return table


def worker_json(view: WorkerView, blocks: Iterable[WorkerBlockView] = ()) -> dict[str, Any]:
    """Return a worker as JSON-friendly values, with what it is blocked for."""
    blocked = [dataclasses.asdict(one) for one in blocks if one.worker == view.name]
    return dataclasses.asdict(view) | {"blocked": blocked, "note": LOSSY if view.lossy else None}
