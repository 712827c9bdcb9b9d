"""What people see of attempts, on each database: every one that somebody told of, those that failed, those that run."""

from celery import group

from jobrunner import JobRunner
from jobrunner.store.attempts import failed_attempts, list_attempts, running_reports
from tests.apps import store, take_turn
from tests.builders import event


def test_attempts_are_in_the_order_of_their_tasks_tries_and_beginnings(runner: JobRunner) -> None:
    add = runner.app.tasks["add"]
    job = store(runner, group(add.si(1, 2), add.si(3, 4), add.si(5, 6)))
    take_turn(runner)
    first, second, third = (task.id for task in runner.get(job).tasks())
    take_turn(
        runner,
        event("started", uuid=second, at=1),
        event("progress", uuid=second, at=1, fields={"progress": 0.2}),
        event("failed", uuid=second, at=5, fields={"exception": "KeyError(2)"}, worker="stranger", source="stranger"),
        event("started", uuid=first, at=2),
        event("retried", uuid=first, at=3, fields={"exception": "KeyError(1)"}),
        event("received", uuid=first, at=4, retries=1, worker="w2@host"),
        event("started", uuid=third, at=4),
        event("progress", uuid=third, at=4, fields={"progress": 0.1}),
        event("progress", uuid=first, at=9, retries=1, fields={"progress": 0.9}, worker="w2@host"),
    )
    other = store(runner, add.si(1, 2))
    take_turn(runner)
    with runner.database.read() as connection:
        attempts = list_attempts(connection, job)
        failed = failed_attempts(connection, job)
        reports = [running_reports(connection, job), running_reports(connection, job, limit=1)]
        of_another = list_attempts(connection, other)
    assert [(one.task_id, one.retries, one.worker, one.foreign) for one in attempts] == [
        (first, 0, "w1@host", False),
        (first, 1, "w2@host", False),
        (second, 0, "w1@host", False),
        (second, 0, "stranger", True),
        (third, 0, "w1@host", False),
    ]
    assert [(one.task_id, one.exception) for one in failed] == [(first, "KeyError(1)")]
    assert [[(one.task_id, one.progress) for one in ones] for ones in reports] == [
        [(third, 0.1), (second, 0.2)],
        [(third, 0.1)],
    ]
    assert of_another == []
