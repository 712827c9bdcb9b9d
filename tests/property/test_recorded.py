"""Real histories lead to the states to which they led, told forward, and to the same rows shuffled and doubled."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from random import Random

import pytest

from jobrunner import ids
from jobrunner.records import Attempt
from tests.builders import task
from tests.histories import Recorded, recorded
from tests.property.test_fold import cut
from tracker.fold import FOLDED, Event, deciding, state_after, tell

BROKERS = ("redis", "rabbitmq")


def by_task(history: Recorded, events: Sequence[Event]) -> dict[str, list[Event]]:
    """Return the events of each task, whichever delivery they speak of."""
    owner = {
        ids.celery_id(one["id"], number): one["id"] for one in history.tasks for number in range(1, one["delivery"] + 1)
    }
    found: defaultdict[str, list[Event]] = defaultdict(list)
    for one in events:
        if one.type in FOLDED:
            found[owner[one.uuid]].append(one)
    return found


def rows_of(history: Recorded, batches: Sequence[Sequence[Event]]) -> dict[str, list[Attempt]]:
    """Fold a history batch by batch, and return the executions of each task."""
    rows: dict[str, list[Attempt]] = {one["id"]: [] for one in history.tasks}
    deliveries = {one["id"]: one["delivery"] for one in history.tasks}
    for batch in batches:
        for id_, events in by_task(history, batch).items():
            rows[id_] = tell(task(id=id_, delivery=deliveries[id_]), rows[id_], events)
    return {id_: sorted(ones, key=lambda one: (one.delivery, one.retries, one.process)) for id_, ones in rows.items()}


@pytest.mark.parametrize("broker", BROKERS)
def test_it_has_what_can_go_wrong(broker: str) -> None:
    history = recorded(broker)
    told = Counter(one.type for one in history.events)
    later = {"task-rejected", "task-cancelled", "task-held", "task-progress", "task-stated"}
    assert set(FOLDED) - later <= set(told)
    assert any(one["delivery"] > 1 for one in history.tasks)
    assert {one["state"] for one in history.tasks} == {"completed", "failed", "canceled"}


@pytest.mark.parametrize("broker", BROKERS)
def test_told_forward_it_leads_to_the_states_to_which_it_led(broker: str) -> None:
    history = recorded(broker)
    rows = rows_of(history, [[one] for one in history.events])
    for one in history.tasks:
        present = [row for row in rows[one["id"]] if row.delivery == one["delivery"]]
        decider = deciding(present)
        assert decider is not None, one
        assert state_after(task(delivery=one["delivery"]), decider, present) == one["state"]


@pytest.mark.parametrize("broker", BROKERS)
@pytest.mark.parametrize("seed", range(10))
def test_shuffled_and_doubled_it_leads_to_the_same_rows(broker: str, seed: int) -> None:
    history, random = recorded(broker), Random(seed)  # noqa: S311  no secret
    events = [*history.events, *random.sample(history.events, len(history.events) // 2)]
    random.shuffle(events)
    cuts = [random.randrange(len(events)) for _ in range(20)]
    assert rows_of(history, cut(events, cuts)) == rows_of(history, [history.events])
