"""What a task takes that is to process only some items: from the tracker's message to its body."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, Task
from celery.exceptions import Retry

from jobrunner import JobRunner
from jobrunner.errors import InputLostError, InvalidParametersError
from jobrunner.records import Letter
from jobrunner.statements import LONGEST_ITEM, MOST_ERRORS
from jobrunner.wire import HEADER, ITEMS_KEY, TaskHeader
from tests.apps import new_database
from tests.builders import MIDNIGHT
from tests.servers.redis import Redis
from tests.waiting import PATIENCE
from tracker.dispatch import Dispatch
from tracker.sending import Outgoing

ITEMS = ["/a", {"path": "/b", "line": 3}]


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celery]:
    server = Redis(tmp_path).start()
    made = Celery("items", broker=server.url, backend=server.url, set_as_current=False)
    runner = JobRunner(made, database=new_database(tmp_path))
    made.task(_take, name="take", shared=False)
    made.task(_retry, name="retry", bind=True, ignore_result=True, shared=False)
    runner.prepare_tasks()
    yield made
    runner.database.close()
    made.backend.client.close()
    made.close()
    server.close()


def _take(*args: Any, **kwargs: Any) -> Any:
    return list(args), kwargs


def _retry(self: Task, paths: list[str], mode: str) -> None:
    raise self.retry(exc=ValueError(f"{paths} {mode}"), countdown=0)


def send(app: Celery, items: str = json.dumps(ITEMS), *, takes: str | None = None) -> tuple[dict[str, Any], int]:
    """Publish the message of a task that is to process only these items; return its headers, and its length."""
    headers = {"expires": None, "parent_id": None, "task": "take", "argsrepr": "", "kwargsrepr": "", "eta": None}
    letter = Letter(
        task_id="task", job_id="job", queue="work", run=2, delivery=2, first_retries=0, takes_task=takes,
        takes_group=None, only_items=1, body=b"{}", content_type="application/json", content_encoding="utf-8",
        headers=json.dumps(headers), properties=json.dumps({"exchange": "", "routing_key": "work"}),
    )  # fmt: skip
    dispatch = Dispatch(app, "tracker", lambda _: items)
    outgoing = Outgoing(letter=letter, inputs=None, queued_at=MIDNIGHT)
    assert dispatch.publish([outgoing], until=time.monotonic() + PATIENCE).taken == [outgoing]
    dispatch.close()
    text = app.backend.client.lpop("work")
    return json.loads(text)["headers"], len(text)


def call(task: Task, headers: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
    """Call a task as a worker does that has a message with these headers."""
    ours: TaskHeader = headers[HEADER]
    task.push_request(
        id=headers["id"], root_id=headers["root_id"], args=args, kwargs=kwargs, called_directly=False, retries=0,
        **{HEADER: ours},
    )  # fmt: skip
    try:
        return task(*args, **kwargs)
    finally:
        task.pop_request()


def test_they_take_the_place_of_the_first_argument(app: Celery) -> None:
    headers, _ = send(app)
    assert call(app.tasks["take"], headers, ["/a", "/ok"], "fast", depth=1) == ([ITEMS, "fast"], {"depth": 1})


def test_they_take_the_place_of_what_comes_from_before(app: Celery) -> None:
    headers, _ = send(app, takes="some task")
    assert call(app.tasks["take"], headers, "fast") == ([ITEMS, "fast"], {})


def test_a_task_without_an_argument_by_position_fails_and_says_why(app: Celery) -> None:
    headers, _ = send(app)
    with pytest.raises(InvalidParametersError, match="no argument by its position"):
        call(app.tasks["take"], headers, paths=["/a"])


def test_a_retry_takes_them_along(app: Celery) -> None:
    headers, _ = send(app)
    with pytest.raises(Retry):
        call(app.tasks["retry"], headers, ["/a", "/ok"], "fast")
    sent = json.loads(app.backend.client.lpop("celery"))
    assert sent["headers"][HEADER]["items_key"] == headers[HEADER]["items_key"]
    assert call(app.tasks["take"], sent["headers"], ["/a", "/ok"], "fast") == ([ITEMS, "fast"], {})


def test_the_message_has_the_same_length_whatever_they_are(app: Celery) -> None:
    _, short = send(app)
    most = json.dumps(["x" * (LONGEST_ITEM - 2)] * (MOST_ERRORS // 10))
    headers, long = send(app, most)
    assert long == short
    assert call(app.tasks["take"], headers, [])[0] == [json.loads(most)]


def test_they_are_kept_until_the_job_lets_them_go(app: Celery) -> None:
    headers, _ = send(app)
    assert app.backend.client.ttl(ITEMS_KEY + headers["id"]) == -1


def test_of_a_list_that_is_lost_the_tracker_is_told_so_that_it_sends_it_anew(app: Celery) -> None:
    headers, _ = send(app)
    app.backend.client.delete(ITEMS_KEY + headers["id"])
    with pytest.raises(InputLostError) as caught:
        call(app.tasks["take"], headers, [])
    assert caught.value.celery_ids == []
