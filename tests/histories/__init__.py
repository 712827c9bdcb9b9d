"""Real histories, recorded by `python -m tests.histories.record`: what workers wrote into the log, and where it led."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracker.eventlog import Entry
from tracker.events import read_events
from tracker.fold import Event

FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """Events in the order of the log, and the tasks that they are about, as the tracker left them."""

    events: list[Event]
    tasks: list[dict[str, Any]]


def recorded(broker: str) -> Recorded:
    """Return what was recorded on a broker."""
    content = json.loads((FOLDER / f"{broker}.json").read_text())
    told = read_events([Entry(**entry) for entry in content["entries"]])
    assert not told.rejects.counts
    return Recorded(events=told.events, tasks=content["tasks"])
