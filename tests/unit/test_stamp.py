"""Of which run of its job a message is that a task has sent, or a worker for it."""

from typing import Any

import pytest
from celery import signals

from jobrunner.wire import HEADER, RUN_HEADER
from workers.stamp import sending_for, stamp_runs

PLANNED: dict[str, Any] = {"id": "t", "root_id": "job", HEADER: {"v": 1, "task": "t", "run": 2, "delivery": 1}}
SUBTASK = {"id": "s", "root_id": "job", RUN_HEADER: 5}


def published(**headers: Any) -> dict[str, Any]:
    """Return the headers with which a message goes to the broker."""
    stamp_runs()
    signals.before_task_publish.send(sender="task", headers=headers)
    return headers


def test_what_clients_send_is_left_as_it_is() -> None:
    assert published(id="c", root_id="job") == {"id": "c", "root_id": "job"}


@pytest.mark.parametrize(("sender", "run"), [(PLANNED, 2), (SUBTASK, 5)])
def test_what_is_sent_for_a_task_is_of_the_run_of_that(sender: dict[str, Any], run: int) -> None:
    with sending_for(sender, "w1@host"):
        assert published(id="c", root_id="job") == {"id": "c", "root_id": "job", RUN_HEADER: run}


def test_a_retry_keeps_the_run_that_it_has() -> None:
    with sending_for(PLANNED, "w1@host"):
        assert published(**PLANNED | {"id": "other"}) == PLANNED | {"id": "other"}
        assert published(**SUBTASK) == SUBTASK


def test_a_retry_names_the_last_three_workers_that_have_failed_it() -> None:
    message: dict[str, Any] = PLANNED
    named = []
    for worker in ("w1@host", "w2@host", "w1@host", "w3@host", "w4@host"):
        with sending_for(message, worker):
            message = published(**message)
        named.append(message[HEADER]["avoid"])
    assert named == [
        ["w1@host"],
        ["w1@host", "w2@host"],
        ["w2@host", "w1@host"],
        ["w2@host", "w1@host", "w3@host"],
        ["w1@host", "w3@host", "w4@host"],
    ]
    assert "avoid" not in PLANNED[HEADER], "others may send with the header of the message"


def test_what_is_of_another_job_is_left_as_it_is() -> None:
    with sending_for(PLANNED, "w1@host"):
        assert RUN_HEADER not in published(id="c", root_id="other")
    with sending_for({"id": "p", "root_id": "job"}, "w1@host"):
        assert RUN_HEADER not in published(id="c", root_id="job")
