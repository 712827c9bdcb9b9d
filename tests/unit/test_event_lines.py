"""How `jobrunner events` writes an event in a line, and what it remembers of tasks."""

from typing import Any

import pytest

from jobrunner.cli.events import KnownTasks, event_line
from tests.builders import MIDNIGHT


def line(**fields: Any) -> list[str]:
    told = {"type": "task-started", "hostname": "w@host", "timestamp": MIDNIGHT.timestamp(), **fields}
    return [part.strip() for part in event_line(told).split("  ") if part]


def test_a_line_says_when_what_which_task_which_job_and_who() -> None:
    found = line(type="task-succeeded", uuid="x" * 28 + "01234567", name="add", root_id="y" * 28 + "89abcdef")
    assert found == [MIDNIGHT.astimezone().strftime("%H:%M:%S.000"), "task-succeeded", "add[01234567]", "job 89abcdef",
                     "w@host"]  # fmt: skip


def test_of_a_known_event_it_shows_what_matters_and_of_another_one_everything() -> None:
    assert line(type="task-started", pid=7, clock=3, odd=1)[-1] == "pid=7"
    assert line(type="task-revoked", terminated=False, expired=True, signum=None)[-1] == "expired=True"
    assert line(type="task-baked", pid=7, clock=3, degrees=0)[-2:] == ["w@host", "degrees=0"]


@pytest.mark.parametrize("timestamp", [None, "now", 1e300, float("nan"), [1]])
def test_a_time_that_is_none_is_left_out(timestamp: object) -> None:
    assert line(timestamp=timestamp)[0] == "--:--:--.---"


def test_foreign_text_is_one_bounded_line_that_a_terminal_may_print() -> None:
    found = line(type="task-failed", exception="\x1b[31m\n\ud800" + "x" * 1000)[-1]
    assert found.startswith("exception=\ufffd[31m \ufffdxx")
    assert len(found) == len("exception=") + 100


@pytest.mark.parametrize("odd", [{}, {"type": None}, {"type": [1], "uuid": {}, "hostname": 7, "root_id": 3.5}])
def test_an_odd_event_is_a_line_as_well(odd: dict[str, Any]) -> None:
    assert event_line(odd).startswith("--:--:--.---")


def test_name_and_job_are_known_once_an_event_has_told_them() -> None:
    known = KnownTasks()
    assert known.complete({"uuid": "a"}) == {"uuid": "a"}
    known.complete({"uuid": "a", "name": "add"})
    known.complete({"uuid": "a", "root_id": "job", "name": None})
    assert known.complete({"uuid": "a"}) == {"uuid": "a", "name": "add", "root_id": "job"}
    assert known.complete({"type": "worker-online"}) == {"type": "worker-online"}
    assert known.complete({"uuid": ["a"], "name": "odd"}) == {"uuid": ["a"], "name": "odd"}


def test_of_too_many_tasks_the_one_that_was_not_learned_of_for_longest_is_forgotten() -> None:
    known = KnownTasks(2)
    for celery_id in ("a", "b", "a", "c"):
        known.learn(celery_id, f"name of {celery_id}", None)
    assert [known.complete({"uuid": one}).get("name") for one in "abc"] == ["name of a", None, "name of c"]
