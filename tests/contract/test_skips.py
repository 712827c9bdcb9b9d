"""Tasks that are skipped without being sent: by what another one has said, or because what they take is empty (N2)."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import pytest
from celery import chain, chord, group
from celery.canvas import Signature
from sqlalchemy import Engine, select, update
from sqlalchemy import event as sqlalchemy_event

from jobrunner.additions import parts
from jobrunner.order_kinds import OrderKind
from jobrunner.plan import Source
from jobrunner.records import Standing
from jobrunner.statements import Statement
from jobrunner.states import JobState, TaskState
from jobrunner.store.schema import attempt, history, item_error, task
from jobrunner.store.sources import inputs_of
from jobrunner.wire import NOTHING
from tests.driven import Driven

WHY = "no pictures"


def says(one: Driven, number: int, *names: str, why: str = WHY, state: TaskState = TaskState.COMPLETED) -> None:
    """Let a task that runs state that what comes next is to be skipped."""
    worker, told = one.world.workers["worker"], Statement(state=state, skips=why, branches=names)
    (running,) = (each for each in worker.running if each.message.celery_id == one.row(number).celery_id)
    one.world.tell(worker, "stated", running.message, statement=statement_told(told))


def statement_told(statement: Statement) -> dict[str, Any]:
    """Return a statement as an event of the log has it."""
    told: dict[str, Any] = json.loads(json.dumps(asdict(statement)))
    return told


def skip_next(one: Driven, number: int, *names: str) -> None:
    """Let a task run to its end that says so."""
    one.start(number)
    says(one, number, *names)
    one.end(number)


def returns(one: Driven, number: int, result: str) -> None:
    """Let a task run, and return what Celery shows so."""
    one.start(number)
    worker = one.world.workers["worker"]
    (running,) = (each for each in worker.running if each.message.celery_id == one.row(number).celery_id)
    worker.running.remove(running)
    one.world.tell(worker, "succeeded", running.message, result=result)
    one.turn()


def named(one: Driven, name: str, *, skip_empty: bool = False) -> Signature:
    """Return a task of this name, which takes what comes before it."""
    runner = one.world.runner
    if name not in runner.app.tasks:
        runner.task(name=name, skip_empty=skip_empty, shared=False)(_nobody_runs_it)
    return runner.app.tasks[name].s()


def _nobody_runs_it(*given: object) -> None:
    """What a task does is of no account here."""


def attempts(one: Driven) -> int:
    with one.world.runner.database.read() as connection:
        return len(connection.execute(select(attempt.c.task_id)).all())


def lines(one: Driven) -> list[str]:
    with one.world.runner.database.read() as connection:
        query = select(history.c.line).where(history.c.trigger == "current.skip_next").order_by(history.c.id)
        return [row.line for row in connection.execute(query)]


def inputs(one: Driven, number: int) -> Any:
    """Where the values lie that a task takes."""
    row = one.row(number)
    source = Source(task=row.takes_task, group=row.takes_group)
    with one.world.runner.database.read() as connection:
        return inputs_of(connection, {source})[source]


@contextmanager
def counting() -> Iterator[Callable[[], int]]:
    """Count the statements that are sent to databases."""
    seen: list[str] = []

    def note(*given: Any) -> None:
        seen.append(given[2])

    sqlalchemy_event.listen(Engine, "before_cursor_execute", note)
    try:
        yield lambda: len(seen)
    finally:
        sqlalchemy_event.remove(Engine, "before_cursor_execute", note)


@contextmanager
def counting_rows() -> Iterator[Callable[[], int]]:
    """Count how often databases are given parameters: for a statement with many of them once for each."""
    seen: list[int] = []

    def note(*given: Any) -> None:
        seen.append(len(given[3]) if given[5] else 1)

    sqlalchemy_event.listen(Engine, "before_cursor_execute", note)
    try:
        yield lambda: sum(seen)
    finally:
        sqlalchemy_event.remove(Engine, "before_cursor_execute", note)


# ---- current.skip_next -------------------------------------------------------------------------------------


def test_what_comes_next_is_skipped_without_being_sent_and_what_is_behind_takes_nothing(here: Driven) -> None:
    one = here
    one.submit(chain(named(one, "find"), named(one, "resize"), named(one, "report")))
    skip_next(one, 0)
    assert one.tasks == ["completed", "skipped", "queued"]
    assert inputs(one, 2) == NOTHING
    row = one.row(1)
    assert (row.reason, row.delivery, row.sent_at) == ("said", 0, None)
    assert row.note == f"skipped: no pictures (said by find [{one.row(0).id}])"
    assert row.ended_at
    assert lines(one) == [f"find [{one.row(0).id}] has skipped resize: no pictures"]
    one.run(2)
    assert (one.state, one.job.outcome) == (JobState.COMPLETED, "ok")
    assert attempts(one) == 2


def test_a_group_is_skipped_with_all_that_is_nested_in_it(here: Driven) -> None:
    one = here
    inner = group(chain(one.work(), chord([one.work(), one.work()], one.work())), one.work())
    one.submit(chain(named(one, "find"), group(chain(one.work(), inner), one.work()), named(one, "report")))
    skip_next(one, 0)
    assert one.tasks == ["completed", *["skipped"] * 7, "queued"]
    assert inputs(one, 8) == [[NOTHING, NOTHING], NOTHING]
    assert lines(one) == [f"find [{one.row(0).id}] has skipped 7 tasks: no pictures"]
    one.run(8)
    assert one.state is JobState.COMPLETED


def branches(one: Driven) -> Signature:
    """Pictures in two steps, texts in one, and a report of both."""
    pictures = chain(named(one, "pictures"), named(one, "resize"))
    return chain(named(one, "find"), group(pictures, named(one, "texts")), named(one, "report"))


def test_only_the_branches_are_skipped_that_begin_with_a_task_of_such_a_name(here: Driven) -> None:
    one = here
    one.submit(branches(one))
    skip_next(one, 0, "pictures", "films")
    assert one.tasks == ["completed", "skipped", "skipped", "queued", "pending"]
    by = f"find [{one.row(0).id}]"
    assert lines(one) == [
        f"{by} has skipped 2 tasks: no pictures",
        f"{by} would have films skipped (no pictures): no branch that waits after it begins with that",
    ]
    one.run(3)
    assert inputs(one, 4) == [NOTHING, one.row(3).id]
    one.run(4)
    assert (one.state, one.job.outcome) == (JobState.COMPLETED, "ok")


def test_a_branch_that_begins_with_several_tasks_has_to_be_named_by_all_of_them(one: Driven) -> None:
    both = chord([named(one, "left"), named(one, "right")], named(one, "join"))
    one.submit(chain(named(one, "find"), group(both, named(one, "texts"))))
    skip_next(one, 0, "left")
    assert one.tasks == ["completed", "queued", "queued", "pending", "queued"]
    one.submit(chain(named(one, "find"), group(both, named(one, "texts"))))
    skip_next(one, 0, "left", "right")
    assert one.tasks == ["completed", "skipped", "skipped", "skipped", "queued"]


def test_a_name_that_nothing_begins_with_changes_nothing(one: Driven) -> None:
    one.submit(chain(named(one, "find"), named(one, "resize")))
    skip_next(one, 0, "films")
    assert one.tasks == ["completed", "queued"]
    assert lines(one) == [
        f"find [{one.row(0).id}] would have films skipped (no pictures): no branch that waits after it begins with that"
    ]


def test_the_header_of_a_chord_is_skipped_and_its_body_runs(one: Driven) -> None:
    one.submit(chain(named(one, "find"), chord([one.work(), one.work()], named(one, "report"))))
    skip_next(one, 0)
    assert one.tasks == ["completed", "skipped", "skipped", "queued"]
    assert inputs(one, 3) == [NOTHING, NOTHING]


@pytest.mark.parametrize("barrier", [False, True])
def test_what_is_not_in_its_own_chain_is_not_skipped(one: Driven, barrier: bool) -> None:
    canvas = chord([one.work(), one.work()], one.work()) if not barrier else chain(one.work(), one.work())
    one.submit(canvas, barrier=barrier)
    skip_next(one, 0)
    assert "skipped" not in one.tasks
    by = f"anything [{one.row(0).id}]"
    assert lines(one) == [f"{by} would have what comes next skipped (no pictures): nothing comes directly after it"]


def test_what_follows_the_chain_that_a_task_ends_comes_directly_after_it(one: Driven) -> None:
    one.submit(chain(chord([one.work(), one.work()], one.work()), one.work(), one.work()))
    for number in (0, 1):
        one.run(number)
    skip_next(one, 2)
    assert one.tasks == ["completed"] * 3 + ["skipped", "queued"]


def test_what_a_task_has_added_runs_and_what_comes_next_is_skipped(here: Driven) -> None:
    one = here
    one.submit(chain(one.work(), one.work(), one.work()))
    one.start(0)
    worker = one.world.workers["worker"]
    (running,) = worker.running
    for part in parts(one.world.runner.app, one.work(), chain="c", group="g", number=0, expands=False):
        one.world.tell(worker, "added", running.message, part=part.model_dump(mode="json"))
    says(one, 0)
    one.end(0)
    assert one.tasks == ["completed", "skipped", "pending", "queued"]
    one.run(3)
    assert one.tasks == ["completed", "skipped", "queued", "completed"]
    one.run(2)
    assert one.state is JobState.COMPLETED


def test_an_attempt_that_does_not_succeed_skips_nothing(one: Driven) -> None:
    one.submit(chain(one.work(), one.work()))
    one.start(0)
    says(one, 0)
    one.end(0, "retried")
    one.run(0)
    assert one.tasks == ["completed", "queued"]


def test_a_failure_that_is_corrected_skips_what_waits_again(here: Driven) -> None:
    one = here
    one.submit(chain(one.work(), one.work(), one.work()), propagate_failures=True)
    one.run(0, "failed")
    assert one.state is JobState.FAILED
    one.hear("started")
    one.hear("stated", statement=statement_told(Statement(skips=WHY)))
    one.hear("succeeded")
    assert one.tasks == ["completed", "skipped", "queued"]
    assert one.state is JobState.ACTIVE


def test_what_is_skipped_in_a_job_that_is_paused_ends_at_once_and_what_is_behind_waits(one: Driven) -> None:
    one.submit(chain(one.work(), one.work(), one.work()))
    one.start(0)
    says(one, 0)
    one.order(OrderKind.PAUSE)
    one.end(0)
    one.notice()
    assert (one.state, one.tasks) == (JobState.PAUSED, ["completed", "skipped", "ready"])


def test_a_task_that_was_canceled_while_it_ran_skips_nothing(one: Driven) -> None:
    one.submit(chain(one.work(), one.work()))
    one.start(0)
    says(one, 0)
    one.order(OrderKind.CANCEL)
    one.end(0)
    one.notice()
    assert (one.state, one.tasks) == (JobState.CANCELED, ["canceled", "canceled"])


def test_requeued_alone_what_was_skipped_runs(one: Driven) -> None:
    one.submit(chain(one.work(), one.work()))
    skip_next(one, 0)
    one.order(OrderKind.REQUEUE, 1)
    one.rest()
    assert (one.state, one.tasks) == (JobState.COMPLETED, ["completed", "completed"])
    assert one.row(1).reason is None


def test_with_the_task_that_said_so_what_was_skipped_waits_again_and_is_judged_anew(here: Driven) -> None:
    one = here
    one.submit(chain(one.work(), one.work(), one.work()))
    skip_next(one, 0)
    one.run(2)
    one.order(OrderKind.REQUEUE, 0)
    one.notice()
    assert one.tasks == ["queued", "pending", "pending"]
    one.run(0)
    assert one.tasks == ["completed", "queued", "pending"]
    one.rest()
    assert (one.state, one.row(1).reason) == (JobState.COMPLETED, None)


def test_what_was_skipped_in_a_job_that_failed_stays_so_when_that_is_requeued(one: Driven) -> None:
    one.submit(chain(one.work(), one.work(), one.work()))
    skip_next(one, 0)
    one.run(2, "failed")
    one.order(OrderKind.REQUEUE)
    one.notice()
    assert one.tasks == ["completed", "skipped", "queued"]


@pytest.mark.parametrize(("value", "reason"), [(None, "said"), ("[]", "empty")])
def test_what_had_lost_its_input_is_skipped_when_that_is_made_again_so(
    one: Driven, value: str | None, reason: str
) -> None:
    find = named(one, "find")
    one.world.runner.app.tasks["find"].replayable = True
    one.submit(chain(find, named(one, "resize", skip_empty=True), named(one, "report")))
    returns(one, 0, "[1]")
    one.start(1)
    worker = one.world.workers["worker"]
    (running,) = worker.running
    worker.running.clear()
    one.world.tell(worker, "failed", running.message, exception="lost", lost=[one.row(0).celery_id])
    one.turn()
    assert one.tasks == ["queued", "pending", "pending"]
    if value is None:
        skip_next(one, 0)
    else:
        returns(one, 0, value)
    one.turn()
    assert one.tasks == ["completed", "skipped", "queued"]
    assert one.row(1).reason == reason
    assert inputs(one, 2) == NOTHING


def test_ten_thousand_tasks_are_skipped_in_a_turn_by_a_few_statements(here: Driven) -> None:
    one = here
    one.submit(chain(one.work(), group(chain(one.work(), one.work()) for _ in range(5_000)), one.work()))
    one.start(0)
    says(one, 0)
    turns = one.world.turns
    with counting() as statements:
        one.end(0)
    assert one.world.turns == turns + 1
    assert statements() < 100
    assert one.job.n_skipped == 10_000
    assert one.row(10_001).state == "queued"


def test_a_group_of_ten_thousand_tasks_is_skipped_without_a_row_for_each(here: Driven) -> None:
    one = here
    one.submit(chain(one.work(), group(one.work() for _ in range(10_000)), one.work()))
    one.start(0)
    says(one, 0)
    with counting_rows() as rows:
        one.end(0)
    assert rows() < 100
    assert one.job.n_skipped == 10_000


# ---- skip_empty --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["None", "[]", "()", "{}", "''", "b''", "set()", "frozenset()"])
def test_a_task_that_takes_an_empty_value_is_skipped_without_being_sent(one: Driven, value: str) -> None:
    one.submit(chain(named(one, "find"), named(one, "resize", skip_empty=True), named(one, "report")))
    returns(one, 0, value)
    one.turn()
    assert one.tasks == ["completed", "skipped", "queued"]
    assert (one.row(1).reason, one.row(1).note) == ("empty", "skipped: what it takes is empty")
    assert one.row(1).delivery == 0
    assert inputs(one, 2) == NOTHING


@pytest.mark.parametrize("value", ["0", "False", "[0]", "'None'", "[None]", "..."])
def test_what_is_false_is_not_empty(one: Driven, value: str) -> None:
    one.submit(chain(named(one, "find"), named(one, "resize", skip_empty=True)))
    returns(one, 0, value)
    assert one.tasks == ["completed", "queued"]


def test_whose_value_nobody_has_told_is_not_empty(one: Driven) -> None:
    one.submit(chain(named(one, "find"), named(one, "resize", skip_empty=True)))
    one.run(0)
    assert one.tasks == ["completed", "queued"]


@pytest.mark.parametrize(("second", "state"), [("[]", "skipped"), ("[1]", "queued")])
def test_the_values_of_a_group_are_empty_if_all_of_them_are(here: Driven, second: str, state: str) -> None:
    one = here
    one.submit(chord([named(one, "find"), named(one, "find")], named(one, "report", skip_empty=True)))
    returns(one, 0, "None")
    returns(one, 1, second)
    assert one.tasks == ["completed", "completed", state]


def test_a_task_that_takes_nothing_is_never_skipped(one: Driven) -> None:
    resize = named(one, "resize", skip_empty=True)
    one.submit(chain(resize, named(one, "find"), resize.clone().set(immutable=True)))
    assert one.tasks == ["queued", "pending", "pending"]
    returns(one, 0, "[1]")
    returns(one, 1, "[]")
    assert one.tasks == ["completed", "completed", "queued"]


def test_what_takes_from_a_skipped_task_takes_nothing_and_so_on(here: Driven) -> None:
    one = here
    one.submit(chain(named(one, "find"), named(one, "resize", skip_empty=True), named(one, "resize")))
    returns(one, 0, "[]")
    one.turn()
    assert one.tasks == ["completed", "skipped", "skipped"]
    assert one.state is JobState.COMPLETED


def test_of_a_task_that_ran_again_its_last_value_counts(here: Driven) -> None:
    one = here
    one.submit(chain(named(one, "find"), named(one, "resize", skip_empty=True)))
    returns(one, 0, "[]")
    assert one.tasks == ["completed", "skipped"]
    one.order(OrderKind.REQUEUE, 0)
    one.notice()
    returns(one, 0, "[1]")
    assert one.tasks == ["completed", "queued"]


def test_what_a_task_adds_may_be_skipped_so(one: Driven) -> None:
    one.submit(one.work())
    one.start(0)
    (running,) = one.world.workers["worker"].running
    added = chain(named(one, "find"), named(one, "resize", skip_empty=True))
    one.world.runner.prepare_tasks()
    for part in parts(one.world.runner.app, added, chain="c", group="g", number=0, expands=False):
        one.world.tell(one.world.workers["worker"], "added", running.message, part=part.model_dump(mode="json"))
    one.end(0)
    returns(one, 1, "[]")
    assert one.tasks == ["completed", "completed", "skipped"]


def test_what_is_to_take_only_some_items_is_not_skipped(one: Driven) -> None:
    one.submit(chain(named(one, "find"), named(one, "resize", skip_empty=True)))
    execution = {"task_id": one.row(1).id, "delivery": 0, "retries": 0, "process": "p"}
    stated = Statement(state=TaskState.PARTIAL, errors=1).dumps()
    with one.world.runner.database.write() as connection:
        connection.execute(update(task).where(task.c.name == "resize").values(only_items=0))
        connection.execute(
            attempt.insert().values(**execution, celery_id="c", standing=Standing.SUCCEEDED, statement=stated)
        )
        connection.execute(item_error.insert().values(**execution, number=0, item='"a"', label="a", message="no"))
    returns(one, 0, "[]")
    assert one.tasks == ["completed", "queued"]


# ---- completed (noop) --------------------------------------------------------------------------------------


def test_a_job_whose_tasks_were_all_skipped_had_nothing_to_do(here: Driven) -> None:
    one = here
    one.submit(chain(named(one, "find"), group(one.work(), one.work())))
    skip_next(one, 0)
    assert (one.state, one.job.outcome) == (JobState.COMPLETED, "noop")


def test_so_had_one_of_which_only_discovery_has_run(one: Driven) -> None:
    one.submit(chain(one.work(discovers=True), named(one, "resize", skip_empty=True)))
    returns(one, 0, "[]")
    assert (one.state, one.job.outcome) == (JobState.COMPLETED, "noop")


def test_one_of_which_a_task_has_done_its_work_had_something_to_do(one: Driven) -> None:
    one.submit(chain(named(one, "find"), named(one, "resize", skip_empty=True)))
    returns(one, 0, "[]")
    assert (one.state, one.job.outcome) == (JobState.COMPLETED, "ok")


def test_so_had_one_that_an_operator_has_let_skip_its_work(one: Driven) -> None:
    one.submit(chain(named(one, "find"), one.work(), one.work()))
    one.order(OrderKind.SKIP, 2)
    skip_next(one, 0)
    one.turn()
    assert one.tasks == ["completed", "skipped", "skipped"]
    assert (one.state, one.job.outcome) == (JobState.COMPLETED, "ok")


def test_a_task_that_skips_itself_may_skip_what_comes_next(one: Driven) -> None:
    one.submit(chain(one.work(), one.work()))
    one.start(0)
    says(one, 0, state=TaskState.SKIPPED)
    one.end(0)
    assert one.tasks == ["skipped", "skipped"]
    assert [one.row(number).reason for number in (0, 1)] == [None, "said"]
    assert (one.state, one.job.outcome) == (JobState.COMPLETED, "noop")


def test_what_a_partial_task_has_skipped_is_judged_anew_when_it_is_requeued_with_its_job(one: Driven) -> None:
    one.submit(chain(one.work(), one.work(), one.work()))
    one.start(0)
    says(one, 0, state=TaskState.PARTIAL)
    one.end(0)
    one.run(2)
    assert (one.state, one.tasks) == (JobState.FAILED, ["partial", "skipped", "completed"])
    one.order(OrderKind.REQUEUE)
    one.notice()
    one.turn()
    assert one.tasks == ["queued", "pending", "pending"]
    one.run(0)
    assert one.tasks == ["completed", "queued", "pending"]
