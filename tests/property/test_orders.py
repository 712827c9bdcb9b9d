"""Whatever is ordered, and whoever dies when: jobs and tasks end up as ordered, and everything comes to an end."""

import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import Select, and_, exists, or_, select

from jobrunner.errors import RefusedError
from jobrunner.failure_policy import FailurePolicy
from jobrunner.order_kinds import JOB_ORDERS, TASK_ORDERS, Intent, Items, OrderKind, Scope
from jobrunner.records import Standing
from jobrunner.statements import ItemCounts, ItemError, Statement
from jobrunner.states import (
    ENDED_JOB,
    ENDED_TASK,
    OPEN_TASK,
    WELL,
    CancelReason,
    FailureReason,
    FailureRule,
    JobOutcome,
    JobState,
    PartialRule,
    TaskState,
)
from jobrunner.store.check import wrong_counters
from jobrunner.store.schema import COUNTERS, attempt, held_message, item_count, job, orders, task
from tests.apps import store
from tests.property.test_counters import canvas, discover
from tests.property.test_plan_runs import Spec, specs
from tests.simulation import Message, Trouble, Worker, World

#: Rounds without trouble in which everything must have come to its end.
_PATIENCE = 150
#: Small jobs: what goes wrong between tracker and workers does so with a few tasks.
small = specs.filter(lambda spec: _size(spec) <= 8)


def _size(spec: Spec) -> int:
    parts = getattr(spec, "parts", getattr(spec, "header", ()))
    return max(1, sum(_size(one) for one in parts))


#: What happens every day, and how often beside the rest; so much of it happens between two things that do not.
_DAILY = {"read": 2, "prefetch": 4, "start": 4, "end": 4, "call": 1, "flush": 3, "turn": 2, "time out": 1}
_DAY = 30
#: What operators order who order something all the time.
_STORM = (OrderKind.PAUSE, OrderKind.RESUME, OrderKind.RESUME, OrderKind.REQUEUE, OrderKind.CANCEL)
#: How many of the bodies state something before they end, whichever way.
_STATES = 0.6
randoms = st.randoms(use_true_random=True)

rules = st.sampled_from([(FailureRule.CONTINUE, None), (FailureRule.CANCEL, None), (FailureRule.THRESHOLD, 40)])
policies = st.builds(
    lambda rule, propagate, partial: FailurePolicy(
        rule=rule[0], threshold=rule[1], propagate=propagate, partial=partial
    ),
    rules,
    st.booleans(),
    st.sampled_from(PartialRule),
)
#: States of a job that waits for no other.
_GOES_ON = (JobState.UNDER_CONSTRUCTION, JobState.QUEUED, JobState.ACTIVE, JobState.PAUSING, JobState.COMPLETED)

ENDS = ("succeeded", "succeeded", "succeeded", "failed", "retried")
#: Of tasks that fail so often that their workers are blocked.
BAD_ENDS = ("succeeded", "failed", "failed", "failed", "retried")


class _Failures(logging.Handler):
    """What the tracker could not carry out: it says so in its log, and goes on."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(logging.Formatter().format(record))


class Life(RuleBasedStateMachine):
    """A tracker and its workers, with all that operators, clients and accidents may bring about."""

    daily = _DAILY

    @initialize(redelivers=st.booleans(), propagates=st.booleans(), sick=st.booleans())
    def open(self, redelivers: bool, propagates: bool, sick: bool) -> None:
        self.ends = BAD_ENDS if sick else ENDS
        self.failures = _Failures()
        logging.getLogger("tracker").addHandler(self.failures)
        self.folder = Path(tempfile.mkdtemp())
        self.world = World(self.folder, redelivers=redelivers)
        self.world.propagates = propagates
        self.jobs = 0
        self.world.runner.task(name="discover", discovers=True, shared=False)(discover)
        self.world.runner.app.tasks["anything"].skip_empty = True
        self.world.runner.prepare_tasks()
        self.world.gate = self.nothing_starts_that_was_stopped
        self.settled: dict[str, tuple[str, int]] = {}
        self.names = count(3)
        for name in ("w1", "w2"):
            self.world.come(name, terminates=name == "w1")

    def teardown(self) -> None:
        try:
            self.everything_comes_to_its_end()
        finally:
            logging.getLogger("tracker").removeHandler(self.failures)
            self.world.runner.database.close()
            shutil.rmtree(self.folder)

    # ---- what happens --------------------------------------------------------------------------------------

    @rule(spec=small, barrier=st.booleans(), policy=policies, random=randoms)
    def a_job_is_submitted(self, spec: Spec, barrier: bool, policy: FailurePolicy, random: Random) -> None:
        """Maybe after others, of which some are submitted later."""
        self.jobs += 1
        near = [f"job {number}" for number in range(max(self.jobs - 4, 1), self.jobs + 3) if number != self.jobs]
        with suppress(RefusedError):
            store(
                self.world.runner,
                canvas(spec, self.world.runner.app),
                barrier=barrier,
                policy=policy,
                key=f"job {self.jobs}",
                after=random.sample(near, random.choice([0, 0, 1, 2])),
                wait_for_failed=random.random() < 0.2,
                paused=random.random() < 0.1,
            )
        self.a_day_passes(random)

    @rule(trouble=st.sampled_from(Trouble), sent=st.integers(0, 4), random=randoms)
    def the_tracker_is_in_trouble(self, trouble: Trouble, sent: int, random: Random) -> None:
        self.world.turn(random.randint(0, 30), trouble, sent)
        self.a_day_passes(random)

    @rule(name=st.sampled_from(["w1", "w2"]), terminates=st.booleans(), random=randoms)
    def a_worker_comes(self, name: str, terminates: bool, random: Random) -> None:
        self.world.come(name, terminates=terminates)
        self.a_day_passes(random)

    @precondition(lambda self: self.world.workers)
    @rule(random=randoms)
    def a_worker_is_killed(self, random: Random) -> None:
        self.world.kill(random.choice(list(self.world.workers.values())))
        self.a_day_passes(random)

    @rule(kind=st.sampled_from(OrderKind), random=randoms)
    def an_order_is_given(self, kind: OrderKind, random: Random) -> None:
        """Of any job or task, whether it takes it or not; maybe twice, or one by one with others in the same turn."""
        for _ in range(random.choice([1, 1, 2])):
            self.order(random.choice([kind, kind, *OrderKind]), random)
        self.a_day_passes(random)

    def order(self, kind: OrderKind, random: Random) -> None:
        of_job, of_task = kind in JOB_ORDERS, kind in TASK_ORDERS
        targets = [(one.id, None) for one in self.rows(select(job.c.id))] if of_job else []
        if of_task and (not of_job or random.random() < 0.5):
            targets = [(one.job_id, one.id) for one in self.rows(select(task.c.id, task.c.job_id))]
        if targets:
            job_id, task_id = random.choice(targets)
            self.world.order(kind, job_id, task_id, **_arguments(kind, task_id, random))

    def a_day_passes(self, random: Random) -> None:
        """Everybody does something of what there is to do, in any order."""
        for what in random.choices(list(self.daily), list(self.daily.values()), k=random.randint(1, _DAY)):
            workers = list(self.world.workers.values())
            if what == "turn":
                self.world.turn(random.randint(0, 30))
            elif what == "time out":
                self.world.time_out()
            elif what == "order":
                self.order(random.choice(_STORM), random)
            elif what == "come":
                self.world.come(f"w{next(self.names)}", terminates=random.random() < 0.5)
            elif workers:
                self.works(random.choice(workers), what, random)

    def works(self, worker: Worker, what: str, random: Random) -> None:
        world = self.world
        match what:
            case "read":
                world.read(worker)
                worker.consumes = True  # it has read twice
            case "prefetch" if world.queue and worker.consumes:
                world.prefetch(worker, random.choice(world.queue))
            case "start" if worker.prefetched:
                world.start(worker, random.choice(worker.prefetched))
            case "end" if worker.running:
                one = random.choice(worker.running)
                if random.random() < _STATES:
                    world.state(worker, one, *_stated(random))
                how = "terminated" if one.dying else random.choice(self.ends)
                world.end(worker, one, how, result=random.choice(["1", "1", "1", "1", "1", "[]"]))
            case "call" if worker.running:
                world.call(worker, random.choice(worker.running))
            case "flush":
                world.flush(worker)
            case "kill":
                world.kill(worker)
            case "restart":
                world.kill(worker)
                world.come(worker.name, terminates=worker.terminates)
            case _:
                pass  # there is nothing of which it could

    # ---- what must be so -----------------------------------------------------------------------------------

    def nothing_starts_that_was_stopped(self, message: Message) -> None:
        """What a gate lets pass is of no job that is paused, canceled or failed by its rule; nor ended by an order."""
        workers = self.world.workers.values()
        running = {one.message.task_id for worker in workers for one in worker.running}
        assert message.task_id not in running - self.world.lost
        state = select(job.c.state, job.c.intent, job.c.will_fail, job.c.unmet)
        (found,) = self.rows(state.where(job.c.id == message.root_id))
        assert found.state != JobState.PAUSED
        assert not found.unmet
        waiting = self.rows(unanswered)  # orders of which workers do not know yet
        if found.state == JobState.FAILED and found.will_fail is not None:
            assert message.task_id in {one.task_id for one in waiting}
        if (found.state, found.intent) == (JobState.CANCELED, Intent.CANCEL):  # had ended before
            assert (OrderKind.CANCEL, message.root_id) in {(one.kind, one.job_id) for one in waiting}
        done = orders.c.answer.like('%"done"%'), orders.c.kind.in_([OrderKind.CANCEL, OrderKind.SKIP, OrderKind.FAIL])
        ended = select(task.c.id, task.c.state).join_from(task, orders, orders.c.task_id == task.c.id)
        stopped = task.c.celery_id == message.celery_id, task.c.ordered.is_not(None)
        later = orders.alias("later")
        requeued = exists().where(
            later.c.job_id == orders.c.job_id,
            later.c.kind == OrderKind.REQUEUE,
            later.c.applied_at >= orders.c.applied_at,
        )
        assert self.rows(ended.where(*stopped, *done, ~requeued)) == []

    @invariant()
    def a_job_that_is_held_has_somebody_who_lets_it_go(self) -> None:
        """An operator, or a chore; and no task of it stays held when it is."""
        jobs = select(job.c.id, job.c.state, job.c.will_fail).where(
            job.c.held, ~job.c.chore, job.c.state.not_in(list(ENDED_JOB)), job.c.intent.is_(None)
        )
        assert not (found := self.rows(jobs)), found
        tasks = select(task.c.id, job.c.id, job.c.state).join_from(task, job, job.c.id == task.c.job_id)
        assert not (found := self.rows(tasks.where(task.c.state == TaskState.READY, task.c.held, ~job.c.held))), found

    @invariant()
    def everything_ordered_is_carried_out_or_refused(self) -> None:
        assert not self.failures.told, self.failures.told

    @invariant()
    def items_are_counted_as_the_execution_states_that_decides(self) -> None:
        """Of a task that has ended well by itself; of any other none."""
        succeeded = attempt.c.standing == Standing.SUCCEEDED
        present = attempt.c.task_id == task.c.id, attempt.c.delivery == task.c.delivery, succeeded
        stated = select(task.c.id, attempt.c.statement).join_from(task, attempt, and_(*present))
        well = stated.where(task.c.state.in_(WELL), task.c.reason.is_(None))
        told = {one.id: one.statement for one in self.rows(well.order_by(attempt.c.retries, attempt.c.process))}
        counts = {id_: Statement.loads(text).counts for id_, text in told.items() if text is not None}
        rows = self.rows(select(item_count))
        kept = {one.task_id: ItemCounts(**{name: getattr(one, name) for name in ItemCounts.__slots__}) for one in rows}
        assert kept == (wanted := {id_: one for id_, one in counts.items() if one is not None}), wanted

    @invariant()
    def a_job_has_ended_as_its_partial_tasks_have_it(self) -> None:
        """Failed because of them if none has failed, unless it tolerates them; then it is said how it completed."""
        partial, failed = (job.c[COUNTERS[state]] for state in (TaskState.PARTIAL, TaskState.FAILED))
        tolerates, outcome = job.c.partial_rule == PartialRule.TOLERATE, job.c.outcome
        wrong = or_(
            (job.c.reason == FailureReason.PARTIAL) & ((partial == 0) | (failed > 0) | tolerates),
            (job.c.state == JobState.COMPLETED) & (partial > 0) & ~tolerates,
            (job.c.state == JobState.COMPLETED) & ((partial > 0) != (outcome == JobOutcome.WITH_ERRORS)),
            (job.c.reason == FailureReason.PARTIAL) & job.c.note.is_(None),
        )
        found = self.rows(select(job.c.id, job.c.state, job.c.reason, outcome, partial, failed).where(wrong))
        assert not found, found

    @invariant()
    def what_was_ended_by_an_order_stays_so(self) -> None:
        """Until the next order that is taken, or the job is requeued, whatever is told of it."""
        by_order = select(job.c.id, job.c.id.label("job_id"), job.c.state).where(
            job.c.state == JobState.CANCELED, job.c.intent == Intent.CANCEL
        )
        tasks = select(task.c.id, task.c.job_id, task.c.state).join_from(task, job, job.c.id == task.c.job_id)
        tasks = tasks.where(task.c.ordered == task.c.state, job.c.state != JobState.REQUEUEING)
        taken = Counter(
            one.job_id for one in self.rows(select(orders.c.job_id).where(orders.c.applied_at.is_not(None)))
        )
        ended = {one.id: (one.state, taken[one.job_id]) for one in self.rows(by_order) + self.rows(tasks)}
        jobs = {one.id: one.job_id for one in self.rows(select(task.c.id, task.c.job_id))}
        for id_, (state, number) in self.settled.items():
            if taken[jobs.get(id_, id_)] == number:
                assert ended.get(id_) == (state, number), id_
        self.settled = ended

    @invariant()
    def a_task_that_has_ended_has_ended_as_was_ordered(self) -> None:
        """One that is to be skipped when its turn comes is canceled with its job if that never comes."""
        other = select(task.c.id, task.c.state, task.c.ordered).where(
            task.c.ordered.is_not(None), task.c.state.in_(list(ENDED_TASK)), task.c.state != task.c.ordered
        )
        with_its_job = task.c.reason.in_([CancelReason.UPSTREAM, CancelReason.RULE, CancelReason.ORDER])
        other = other.where(or_(task.c.ordered != TaskState.SKIPPED, ~with_its_job))
        assert not (found := self.rows(other)), found

    def rows(self, query: Any) -> list[Any]:
        with self.world.runner.database.read() as connection:
            return list(connection.execute(query))

    @invariant()
    def every_counter_is_what_the_rows_say(self) -> None:
        with self.world.runner.database.read() as connection:
            assert wrong_counters(connection) == []

    @invariant()
    def a_job_that_has_ended_has_no_task_that_has_not(self) -> None:
        unfinished = (
            select(job.c.id, job.c.state, task.c.id, task.c.state)
            .join_from(task, job, job.c.id == task.c.job_id)
            .where(job.c.state.in_(list(ENDED_JOB)), task.c.state.not_in(list(ENDED_TASK)))
        )
        assert not (found := self.rows(unfinished)), found

    @invariant()
    def a_job_waits_as_long_as_something_is_left_that_it_waits_for(self) -> None:
        """And then goes on: nothing of it was ready before."""
        early = select(task.c.id, task.c.state).join_from(task, job, job.c.id == task.c.job_id)
        assert not self.rows(early.where(job.c.unmet > 0, task.c.state.in_(list(OPEN_TASK))))
        waits = select(job.c.id, job.c.state, job.c.unmet)
        assert not self.rows(waits.where(job.c.unmet > 0, job.c.state.in_(_GOES_ON)))
        assert not self.rows(waits.where(job.c.unmet == 0, job.c.state == JobState.WAITING))

    def everything_comes_to_its_end(self) -> None:
        paused = JobState.PAUSED, JobState.WAITING
        self.rest_until(lambda: not self.rows(unanswered) and not self.rows(_unended(*paused)))
        for one in self.rows(_unended()):
            self.world.order(OrderKind.RESUME, one.id)
        self.rest_until(lambda: not self.rows(unanswered) and not self.rows(_unended(JobState.WAITING)))
        for one in self.rows(_unended()):  # of what is waited for something has failed, or does not exist
            self.world.order(OrderKind.CANCEL, one.id)
        self.rest_until(lambda: not self.rows(unanswered) and not self.rows(_unended()))

    def rest_until(self, condition: Callable[[], bool]) -> None:
        for _ in range(_PATIENCE):
            if self.world.is_quiet and condition():
                break
            self.world.work_on()
            self.everything_ordered_is_carried_out_or_refused()
            self.a_job_that_is_held_has_somebody_who_lets_it_go()
            self.every_counter_is_what_the_rows_say()
            self.items_are_counted_as_the_execution_states_that_decides()
            self.a_job_has_ended_as_its_partial_tasks_have_it()
            self.a_job_that_has_ended_has_no_task_that_has_not()
            self.what_was_ended_by_an_order_stays_so()
            self.a_task_that_has_ended_has_ended_as_was_ordered()
            self.a_job_waits_as_long_as_something_is_left_that_it_waits_for()
        else:
            jobs = self.rows(select(job.c.id, job.c.state, job.c.intent, job.c.held, job.c.chore, job.c.hold_version))
            tasks = self.rows(select(task.c.id, task.c.state, task.c.ordered, task.c.held, task.c.note))
            stuck = select(task.c.id).where(task.c.state.not_in(list(ENDED_TASK)))
            tries = self.rows(select(attempt).where(attempt.c.task_id.in_(stuck)))
            held = self.rows(select(held_message.c.id, held_message.c.held_at, held_message.c.forwarded_at))
            left = f"{self.rows(unanswered)}\n{jobs}\n{tasks}\n{tries}\n{held}\n{self.world.queue}"
            pytest.fail(f"After {_PATIENCE} rounds without trouble: {left}")


unanswered = select(orders.c.kind, orders.c.job_id, orders.c.task_id, orders.c.applied_at).where(
    orders.c.answered_at.is_(None)
)


def _unended(*others: JobState) -> Select[Any]:
    return select(job.c.id, job.c.state).where(job.c.state.not_in([*ENDED_JOB, *others]))


def _arguments(kind: OrderKind, task_id: str | None, random: Random) -> dict[str, Any]:
    if kind is OrderKind.CANCEL:
        return {"grace": random.choice([None, 0.0, 10.0])}
    if kind is OrderKind.REQUEUE and random.random() < 0.4:
        return {"items": str(Items.FAILED)}
    if kind is OrderKind.REQUEUE and task_id is None:
        return {"scope": random.choice([None, *Scope])}
    return {"priority": random.randint(-100, 100)} if kind is OrderKind.SET else {}


def _stated(random: Random) -> tuple[Statement, list[ItemError]]:
    """Return what a body may state of its work, and of what comes next."""
    errors = [ItemError(item=number, message="no") for number in range(random.randint(1, 3))]
    skips = random.choice([None, "no work"])
    branches = random.choice([(), (), ("anything",), ("discover", "nothing")]) if skips else ()
    state = random.choice([*sorted(WELL), TaskState.PARTIAL, TaskState.PARTIAL])
    if state is not TaskState.PARTIAL:
        counts = random.choice([None, ItemCounts(processed=8)]) if state is TaskState.COMPLETED else None
        return Statement(state=state, counts=counts, skips=skips, branches=branches), []
    counts = ItemCounts(processed=8, failed=len(errors))
    return Statement(state=state, counts=counts, errors=len(errors), skips=skips, branches=branches), errors


class LongLife(Life):
    """The same, longer and more often."""


class RestlessLife(Life):
    """Every worker dies soon and another one comes under a name of its own, while bodies send subtasks."""

    daily = _DAILY | {"call": 5, "turn": 3, "come": 2, "kill": 1}


class SupervisedLife(Life):
    """Every worker dies soon and comes again at once under its name; a tracker may read of both in one turn."""

    daily = _DAILY | {"call": 4, "turn": 3, "restart": 1}


class StormyLife(Life):
    """Operators pause, resume, requeue and cancel all day long."""

    daily = _DAILY | {"call": 4, "turn": 4, "order": 4}


def _lives(number: int, steps: int, **more: Any) -> settings:
    # A life that ends badly is shown as it was: to find a shorter one takes minutes.
    return settings(
        max_examples=number,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
        **more,
    )


Life.TestCase.settings = _lives(12, 25)
# Where CI is set, Hypothesis would live the same lives again and again, whatever its seed.
LongLife.TestCase.settings = _lives(400, 50, derandomize=False)
RestlessLife.TestCase.settings = _lives(200, 25, derandomize=False)
SupervisedLife.TestCase.settings = _lives(200, 25, derandomize=False)
StormyLife.TestCase.settings = _lives(200, 25, derandomize=False)
TestLife = Life.TestCase
TestLongLife = pytest.mark.chaos(pytest.mark.timeout(1800)(LongLife.TestCase))
TestRestlessLife = pytest.mark.chaos(pytest.mark.timeout(1800)(RestlessLife.TestCase))
TestSupervisedLife = pytest.mark.chaos(pytest.mark.timeout(1800)(SupervisedLife.TestCase))
TestStormyLife = pytest.mark.chaos(pytest.mark.timeout(1800)(StormyLife.TestCase))
