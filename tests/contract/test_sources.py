"""Under which Celery ids the values of nodes lie: on both databases."""

from typing import Any

from celery import chain, group
from sqlalchemy import event, update

from jobrunner import JobRunner, ids
from jobrunner.plan import Source
from jobrunner.store.schema import task
from jobrunner.store.sources import inputs_of
from jobrunner.wire import Inputs
from tests.apps import read_rows, store
from tests.builders import MIDNIGHT
from tracker.sending import take_ready
from tracker.turn import Turn


def nested(runner: JobRunner) -> tuple[list[str], Source]:
    """Store a group of a task, a group of two and an empty one, and return the ids of the tasks and their list."""
    add = runner.app.tasks["add"].s
    job_id = store(runner, group(add(0, 0), group([add(1, 1), add(2, 2)]), group([])))
    tasks = sorted(read_rows(runner.database, "task"), key=lambda row: int(row["arrival"]))
    (job,) = [row for row in read_rows(runner.database, "job") if row["id"] == job_id]
    return [row["id"] for row in tasks if row["job_id"] == job_id], Source(group=job["value_group"])


def change(runner: JobRunner, task_id: str, **values: Any) -> None:
    with runner.database.write() as connection:
        connection.execute(update(task).where(task.c.id == task_id).values(values))


def inputs(runner: JobRunner, source: Source) -> Inputs:
    with runner.database.read() as connection:
        return inputs_of(connection, [source])[source]


def test_a_groups_value_is_a_list_nested_as_the_groups_are(runner: JobRunner) -> None:
    (first, second, third), source = nested(runner)
    assert inputs(runner, source) == [first, [second, third], []]


def test_a_value_lies_under_the_id_of_the_present_delivery(runner: JobRunner) -> None:
    (first, second, third), source = nested(runner)
    change(runner, second, delivery=3)
    again = ids.celery_id(second, 3)
    assert inputs(runner, source) == [first, [again, third], []]
    assert inputs(runner, Source(task=second)) == again


def test_a_task_that_has_grown_has_the_value_of_what_it_has_grown_into(runner: JobRunner) -> None:
    (first, second, third), source = nested(runner)
    _, grown = nested(runner)
    (last, *_), _ = nested(runner)
    change(runner, first, value_task=second)
    change(runner, second, value_group=grown.group)
    expected = inputs(runner, grown)
    assert inputs(runner, source) == [expected, [expected, third], []]
    assert inputs(runner, Source(task=first)) == expected
    change(runner, third, value_task=last, delivery=2)
    assert inputs(runner, Source(task=third)) == last


def test_many_nodes_are_asked_for_at_once(runner: JobRunner) -> None:
    jobs = [nested(runner) for _ in range(3)]
    for (first, second, _), _ in jobs:
        change(runner, first, value_task=second)
    asked: list[str] = []
    with runner.database.read() as connection:
        event.listen(connection, "before_cursor_execute", lambda *told: asked.append(told[2]))
        found = inputs_of(connection, [source for _, source in jobs])
    assert found == {source: [second, [second, third], []] for (_, second, third), source in jobs}
    assert len(asked) == 5  # two for the lists, two for the lists in them, one for what tasks have grown into


def test_a_task_is_sent_with_the_place_of_the_value_that_it_takes(runner: JobRunner) -> None:
    add, total = runner.app.tasks["add"], runner.app.tasks["total"]
    store(runner, chain(add.s(1, 2), add.s(3)))
    store(runner, group([add.s(1, 1), add.s(2, 2)]) | total.s())
    one, two, left, right, join = (row["id"] for row in read_rows(runner.database, "task"))
    change(runner, one, delivery=2)
    change(runner, left, value_task=right)
    for takes in (two, join):
        change(runner, takes, state="ready")
    with runner.database.write() as connection:
        turn = Turn(connection, MIDNIGHT)
        sent = {out.letter.task_id: out.inputs for out in take_ready(turn)}
        turn.settle()
    assert sent == {two: ids.celery_id(one, 2), join: [right, right]}
