"""What no job can be made of is refused before anything is written, by the place in the canvas and with a remedy."""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import celery
import pytest
from celery import chain, chord, group
from celery.canvas import Signature, _chain, _chord

from jobrunner import JobRunner
from jobrunner.errors import InvalidCanvasError
from tests.apps import count_rows, new_runner


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobRunner]:
    """Return a runner on SQLite."""
    runner = new_runner(tmp_path)
    yield runner
    runner.database.close()


def _linked(option: str, link: Any) -> Callable[[Any], Signature]:
    return lambda a: chain(a(1), a().set(**{option: [a(2), link(a)]}))


def _with_itself(a: Any) -> Signature:
    canvas = group([a(1)])
    canvas.tasks.append(canvas)
    return canvas


def _with_arguments(canvas: Signature) -> Signature:
    canvas.args = (1,)
    return canvas


#: Canvases of the task `anything`, each with the place, the problem and the remedy that are told.
REFUSED: dict[str, tuple[Callable[[Any], Any], str, str, str]] = {
    "a part that is no signature": (
        lambda a: group([a(1), {"name": "anything"}]), "canvas.tasks[1]", "dict is no canvas", "Pass a signature"),
    "a result": (
        lambda a: _with_result(chain(a(1), a(2))), "canvas.tasks[1]", "this is a result", "Pass the canvas itself"),
    "a chord without a body": (
        lambda a: group([a(1), _chord([a(2)])]), "canvas.tasks[1]", "without a body", "submit its header as a group"),
    "a chain without tasks": (
        lambda a: group([a(1), _chain()]), "canvas.tasks[1]", "a chain without tasks", "Leave it out"),
    "options of a group in a group": (
        lambda a: group([a(1), group(a(2), a(3)).set(queue="slow")]),
        "canvas.tasks[1]", "group has options of its own (queue), which Celery drops", "Set them on its tasks"),
    "options of chunks": (
        lambda a: group(a(1), a.task.chunks([(1,), (2,)], 1).set(priority=3)),
        "canvas.tasks[1]", "celery.chunks has options of its own (priority)", "Set them on its tasks"),
    "arguments of a chain in a group": (
        lambda a: group([a(1), _with_arguments(_chain(a(2), a(3)))]),
        "canvas.tasks[1]", "partial arguments of its own, which Celery drops", "Give them to its first task"),
    "arguments for a chain that begins with a group": (
        lambda a: _with_arguments(_chain(group(a(1), a(2)), a(3))),
        "canvas.tasks[0]", "the chain begins with no task that could take", "Give them to its tasks"),
    "a callback of a group": (
        lambda a: chain(a(1), group(a(2), a(3)).set(link=a(4))),
        "canvas.tasks[1]", "a group cannot call back", "as the next task of a chain"),
    "a callback that is no signature": (
        _linked("link", lambda _: len), "canvas.tasks[1].link[1]", "is no canvas", "Pass a signature"),
    "an errback without a name": (
        _linked("link_error", lambda _: {"task": None}),
        "canvas.tasks[1].link_error[1]", "names no task", "Pass a signature of a task"),
    "a callback that cannot be serialized": (
        _linked("link", lambda a: a(object())),
        "canvas.tasks[1].link[1]", "this callback of anything cannot be serialized as json", "such as an id or a path"),
    "arguments that cannot be serialized": (
        lambda a: chord([a(1), group(a(2), a(object()))], a()),
        "canvas.tasks[1].tasks[1]", "the arguments of anything cannot be serialized", "choose another serializer"),
    "arguments that do not fit": (
        lambda a: chain(a(1), a.app.tasks["add"].s(1, 2)),
        "canvas.tasks[1]", "the arguments do not fit", "Compare them with the task's parameters"),
    "partial arguments that do not fit": (
        lambda a: chord([a(1), a.app.tasks["add"].s(1, 2)], a()).clone((3,)),
        "canvas.tasks[1]", "the arguments do not fit", "Compare them with the task's parameters"),
    "an unregistered task": (
        lambda a: chord([a(1)], celery.signature("elsewhere.work", app=a.app)),
        "canvas.body", "'elsewhere.work' is not registered", "Import the module that defines it"),
    "a map that takes something": (
        lambda a: _chain(a(1), a.task.map([1, 2]).set(immutable=False)),
        "canvas.tasks[1]", "the arguments do not fit", "Compare them"),
    "an option of a group that does not fit": (
        lambda a: group(a(1), a(2)).set(eta=datetime(2026, 1, 1)),  # noqa: DTZ001  on purpose
        "canvas.tasks[0]", "is no aware datetime", "Give it a time zone"),
    "two tasks with one id": (
        lambda a: chain(a(1).set(task_id="mine"), a(2)).set(task_id="mine"),
        "canvas.tasks[1]", "its task_id 'mine' is also that of canvas.tasks[0]", "make them unique"),
    "a canvas that holds itself": (
        _with_itself, "canvas", "nested too deeply", "submit its parts as jobs of their own"),
}  # fmt: skip


def _with_result(canvas: Signature) -> Signature:
    canvas.tasks[1] = celery.result.AsyncResult("sent", app=canvas.app)
    return canvas


class Anything:
    """Makes signatures of the task `anything`."""

    def __init__(self, jobs: JobRunner) -> None:
        self.app = jobs.app
        self.task = jobs.app.tasks["anything"]

    def __call__(self, *args: object) -> Signature:
        return self.task.s(*args)


@pytest.mark.parametrize(("canvas", "path", "problem", "remedy"), REFUSED.values(), ids=REFUSED)
def test_what_no_job_can_be_made_of_is_refused_by_its_path_with_a_remedy_and_nothing_is_written(
    jobs: JobRunner, canvas: Callable[[Any], Any], path: str, problem: str, remedy: str
) -> None:
    before = count_rows(jobs.database)
    with pytest.raises(InvalidCanvasError) as refused:
        jobs.submit(canvas(Anything(jobs)))
    assert (refused.value.path or "") == path
    assert problem in refused.value.problem
    assert remedy in refused.value.remedy
    assert refused.value.exit_code == 2
    assert count_rows(jobs.database) == before
