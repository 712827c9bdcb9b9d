"""Every state against every order and every event: only legal moves happen, and what is refused changes nothing."""

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import pytest
from celery import chain, group
from sqlalchemy import select, update

from jobrunner.order_kinds import JOB_ORDERS, TASK_ORDERS, OrderKind
from jobrunner.order_records import Requeue
from jobrunner.states import (
    ENDED_JOB,
    JOB_CORRECTIONS,
    JOB_MOVES,
    TASK_CORRECTIONS,
    TASK_MOVES,
    WELL,
    JobState,
    TaskState,
)
from jobrunner.store.schema import history, job, task
from tests.builders import moment
from tests.driven import Driven, driven

EVENTS = (
    "sent",
    "received",
    "started",
    "stated",
    "succeeded",
    "failed",
    "retried",
    "revoked",
    "rejected",
    "cancelled",
    "held",
)

#: What a task may pass within one turn: what an event and what follows from it lead to.
_PASSED = {TaskState.PENDING, TaskState.READY, TaskState.QUEUED, TaskState.ACTIVE, TaskState.SOFT_FAILED}


@pytest.fixture
def one(tmp_path: Path, any_database_url: str) -> Iterator[Driven]:
    """Return a world with a worker, to submit jobs one after another."""
    with driven(tmp_path, any_database_url) as made:
        yield made


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Driven]:
    """Return such a world on SQLite, for what is decided before any database is asked."""
    with driven(tmp_path) as made:
        yield made


# ---- how a job gets into a state: its first task is what events are about ----------------------------------


def discovering(one: Driven) -> None:
    one.submit(chain(one.work(discovers=True), one.work()))
    one.start()


def waiting(one: Driven) -> None:
    one.submit(one.work(), after=["nobody"])


def delayed(one: Driven) -> None:
    one.submit(one.work().set(eta=moment(10**8)))


def queued(one: Driven) -> None:
    one.submit(chain(one.work(), one.work()))


def active(one: Driven) -> None:
    queued(one)
    one.start()


def pausing(one: Driven) -> None:
    active(one)
    one.order(OrderKind.PAUSE)


def paused(one: Driven) -> None:
    pausing(one)
    one.end()
    one.notice()


def canceling(one: Driven) -> None:
    active(one)
    one.order(OrderKind.CANCEL, grace=None)


def canceled(one: Driven) -> None:
    one.submit(one.work())
    one.order(OrderKind.CANCEL)
    one.notice()
    drop(one)


def requeueing(one: Driven) -> None:
    """As after the first of several batches, of which a small job has none."""
    completed(one)
    ordered = {"state": JobState.REQUEUEING, "outcome": None, "ended_at": None, "run": 2, "held": True, "chore": True}
    with one.world.runner.database.write() as connection:
        row = update(job).where(job.c.id == one.job_id)
        connection.execute(row.values(**ordered, requeue=Requeue(all=True).dumps()))


def completed(one: Driven) -> None:
    one.submit(one.work())
    one.run()


def failed(one: Driven) -> None:
    one.submit(one.work())
    one.run(how="failed")


def drop(one: Driven) -> None:
    """Let the worker have what is void, and refuse it."""
    for message in list(one.world.queue):
        one.world.prefetch(one.world.workers["worker"], message)
        one.world.start(one.world.workers["worker"], message)


def pending(one: Driven) -> None:
    one.submit(group(chain(one.work(), one.work()), one.work()))


def soft_failed(one: Driven) -> None:
    one.submit(one.work())
    one.run(how="retried")


def partial(one: Driven) -> None:
    stating(one, TaskState.PARTIAL)


def skipped_itself(one: Driven) -> None:
    stating(one, TaskState.SKIPPED)


def stating(one: Driven, state: TaskState) -> None:
    one.submit(one.work())
    one.start()
    one.hear("stated", statement={"state": state, "why": "so"})
    one.end()


def skipped(one: Driven) -> None:
    one.submit(one.work())
    one.order(OrderKind.SKIP, 0)
    one.notice()
    drop(one)


JOBS: Mapping[JobState, Callable[[Driven], None]] = {
    JobState.UNDER_CONSTRUCTION: discovering,
    JobState.WAITING: waiting,
    JobState.QUEUED: queued,
    JobState.ACTIVE: active,
    JobState.PAUSING: pausing,
    JobState.PAUSED: paused,
    JobState.CANCEL_REQUESTED: canceling,
    JobState.CANCELED: canceled,
    JobState.REQUEUEING: requeueing,
    JobState.COMPLETED: completed,
    JobState.FAILED: failed,
}
#: With the arrival of the task that is in the state.
TASKS: Mapping[TaskState, tuple[Callable[[Driven], None], int]] = {
    TaskState.PENDING: (pending, 1),
    TaskState.READY: (delayed, 0),
    TaskState.QUEUED: (queued, 0),
    TaskState.ACTIVE: (active, 0),
    TaskState.SOFT_FAILED: (soft_failed, 0),
    TaskState.COMPLETED: (completed, 0),
    TaskState.PARTIAL: (partial, 0),
    TaskState.SKIPPED: (skipped, 0),
    TaskState.FAILED: (failed, 0),
    TaskState.CANCELED: (canceled, 0),
}
#: What an order that is taken leads to, once everybody has done what is left to do.
TASK_AFTER = {
    OrderKind.CANCEL: TaskState.CANCELED,
    OrderKind.SKIP: TaskState.SKIPPED,
    OrderKind.FAIL: TaskState.FAILED,
    OrderKind.REQUEUE: TaskState.COMPLETED,
}


def rows(one: Driven) -> list[tuple[object, ...]]:
    """Return what the tables have of the job, once what was sent is noted."""
    if one.state is not JobState.REQUEUEING:  # which goes on by itself
        one.turn()
    with one.world.runner.database.read() as connection:
        return [
            tuple(row)
            for table, column in ((job, job.c.id), (task, task.c.job_id), (history, history.c.job_id))
            for row in connection.execute(select(table).where(column == one.job_id).order_by(table.c.id))
        ]


def see_that_moves_are_legal(one: Driven) -> None:
    moves = one.moves
    for before, after in pairwise(moves):
        assert before[1] == after[0] or after[0] in {JobState.WAITING, JobState.REQUEUEING}
    for old, new in moves:
        assert new in JOB_MOVES[old] | JOB_CORRECTIONS.get(old, frozenset())


def leads(old: TaskState, new: TaskState) -> bool:
    """Tell whether a task may get from one state to the other within a turn."""
    seen: set[TaskState] = set()
    front = {old}
    while front:
        seen |= front
        reached = {after for state in front for after in TASK_MOVES[state] | TASK_CORRECTIONS.get(state, frozenset())}
        if new in reached | {old}:
            return True
        front = (reached & _PASSED) - seen
    return False


def job_after(kind: OrderKind, state: JobState) -> set[JobState]:
    """Return where an order that is taken leads a job in which every task then succeeds."""
    if kind is OrderKind.CANCEL:
        return {JobState.CANCELED}
    if kind is OrderKind.PAUSE or (state is JobState.PAUSED and kind is not OrderKind.RESUME):
        return {JobState.PAUSED}
    if kind in {OrderKind.SET, OrderKind.UNBLOCK} and state in ENDED_JOB | {JobState.PAUSING}:
        return {state, JobState.PAUSED} if state is JobState.PAUSING else {state}
    if kind is OrderKind.SET and state is JobState.CANCEL_REQUESTED:
        return {JobState.CANCELED}
    return {JobState.WAITING if state is JobState.WAITING else JobState.COMPLETED}


@pytest.mark.parametrize("state", JobState)
def test_a_job_takes_the_orders_of_its_state_and_refuses_all_others(one: Driven, state: JobState) -> None:
    for kind in OrderKind:
        JOBS[state](one)
        assert one.state is state
        before = rows(one)
        one.give(kind)
        if state in JOB_ORDERS.get(kind, ()):
            one.turn()
            one.rest()
            assert one.answer is not None
            assert one.answer.outcome == "done", (kind, one.answer)
            assert one.state in job_after(kind, state), kind
        else:
            refused(one, before, [one for one in JOB_ORDERS if state in JOB_ORDERS[one]])
        see_that_moves_are_legal(one)


WAYS = [*((state, *TASKS[state]) for state in TaskState), (TaskState.SKIPPED, skipped_itself, 0)]


@pytest.mark.parametrize(("state", "put", "number"), WAYS)
def test_a_task_takes_the_orders_of_its_state_and_refuses_all_others(
    one: Driven, state: TaskState, put: Callable[[Driven], None], number: int
) -> None:
    for kind in OrderKind:
        put(one)
        assert one.tasks[number] is state
        before = rows(one)
        one.give(kind, number)
        if state in TASK_ORDERS.get(kind, ()):
            one.turn()
            one.rest()
            assert one.answer is not None
            assert one.answer.outcome == "done", (kind, one.answer)
            assert one.tasks[number] is TASK_AFTER[kind]
        else:
            refused(one, before, [one for one in TASK_ORDERS if state in TASK_ORDERS[one]])
        see_that_moves_are_legal(one)


def refused(one: Driven, before: list[tuple[object, ...]], taken: list[OrderKind]) -> None:
    """See that the last order is refused with what is taken instead, and has changed nothing."""
    moves_on = one.state is JobState.REQUEUEING
    one.turn()
    assert one.answer is not None
    assert one.answer.outcome == "refused"
    assert [kind for kind in taken if kind not in one.answer.text] == []
    assert moves_on or rows(one) == before


@pytest.mark.parametrize("state", JobState)
def test_an_event_moves_a_job_only_where_it_may_move(here: Driven, state: JobState) -> None:
    for type_ in EVENTS:
        JOBS[state](here)
        here.hear(type_)
        see_that_moves_are_legal(here)
        assert state is not JobState.CANCELED or here.state is state


@pytest.mark.parametrize(("state", "put", "number"), WAYS)
def test_an_event_moves_a_task_only_where_it_may_move(
    here: Driven, state: TaskState, put: Callable[[Driven], None], number: int
) -> None:
    for type_ in EVENTS:
        put(here)
        here.hear(type_, number, worker="stranger" if type_ in {"started", "succeeded", "held"} else "worker")
        assert leads(state, here.tasks[number]), (type_, here.tasks[number])
        assert state not in WELL or here.tasks[number] is state, type_
