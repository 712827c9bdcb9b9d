"""What would be submitted: the tree with what is alike folded, the counts, and every task that would be refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import chain, chord, group
from celery.canvas import Signature

from jobrunner import JobRunner
from jobrunner.preview import Node, preview
from tests.apps import new_app, new_runner


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobRunner]:
    runner = new_runner(tmp_path)
    runner.prepare_tasks()
    yield runner
    runner.database.close()


def work(jobs: JobRunner, *args: object) -> Signature:
    return jobs.app.tasks["anything"].s(*args)


def told(node: Node | None) -> object:
    """Return a tree as nested lists: names of tasks, numbers of those that are folded."""
    assert node is not None
    if node.kind == "task":
        return f"{node.name}{node.sequence}"
    return node.number if node.kind == "more" else [node.kind, *map(told, node.children)]


def test_the_tree_is_the_canvas(jobs: JobRunner) -> None:
    one = work(jobs)
    found = preview(jobs.app, chain(one, group(chain(one, one), one), one))
    header = ["group", ["chain", "anything1", "anything2"], "anything1"]
    assert told(found.tree) == ["chain", "anything0", ["chain", header, "anything3"]]  # Celery makes it a chord
    assert (found.total, list(found.levels), found.names) == (5, [1, 2, 1, 1], {"anything": 5})
    assert found.refused == []


def test_a_task_alone_is_a_tree(jobs: JobRunner) -> None:
    assert told(preview(jobs.app, work(jobs)).tree) == "anything0"


def test_of_many_that_are_alike_only_some_are_shown_at_every_depth(jobs: JobRunner) -> None:
    pairs = group(chain(work(jobs, number), group(work(jobs) for _ in range(9))) for number in range(100))
    _, *inner = told(preview(jobs.app, pairs).tree)
    pair = ["chain", "anything0", ["group", *["anything1"] * 3, 6]]
    assert inner == [pair, pair, pair, 97]


def test_what_differs_is_not_folded(jobs: JobRunner) -> None:
    add, one = jobs.app.tasks["add"].s(1, 2), work(jobs)
    assert told(preview(jobs.app, group(one, add, one, add, one)).tree) == [
        "group", "anything0", "add0", "anything0", "add0", "anything0",
    ]  # fmt: skip


def test_every_task_that_would_be_refused_is_named_with_its_place(jobs: JobRunner, tmp_path: Path) -> None:
    other = new_app(tmp_path)

    @other.task(name="elsewhere", shared=False)
    def elsewhere() -> None: ...

    canvas = chord([work(jobs, object()), work(jobs), elsewhere.s()], jobs.app.tasks["total"].s(1, 2))
    found = preview(jobs.app, canvas)
    assert [error.path for error in found.refused] == ["canvas.tasks[0]", "canvas.tasks[2]", "canvas.body"]
    assert found.total == 4


def test_of_what_is_no_canvas_the_fault_is_all_that_is_known(jobs: JobRunner) -> None:
    found = preview(jobs.app, group(work(jobs), chain()))
    assert (found.tree, found.total, len(found.refused)) == (None, 0, 1)


def test_a_long_chain_and_a_deep_canvas_have_a_tree_too(jobs: JobRunner) -> None:
    assert preview(jobs.app, chain(*(work(jobs) for _ in range(2_000)))).total == 2_000
    deep = work(jobs)
    for _ in range(50):
        deep = chain(work(jobs), group(deep, work(jobs)))
    assert preview(jobs.app, deep).total == 101
