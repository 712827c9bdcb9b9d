"""Counters are a cache: after every step, whatever it was, they are what an aggregate over the rows says."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from itertools import count
from pathlib import Path

from celery import Celery, group
from celery.canvas import Signature, _chain, _chord
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import select

from jobrunner.additions import parts
from jobrunner.order_kinds import Items, OrderKind, Scope
from jobrunner.statements import ItemCounts, ItemError, Statement
from jobrunner.states import ENDED_JOB, ENDED_TASK, WELL, JobState, TaskState
from jobrunner.store import tracking
from jobrunner.store.check import wrong_counters
from jobrunner.store.schema import job, task
from tests.apps import new_runner, order, store
from tests.builders import event, moment
from tests.property.histories import TYPES, WORKERS
from tests.property.test_plan_runs import Chain, Chord, Group, Spec, Work, specs
from tracker.absorb import absorb
from tracker.chores import do_chores
from tracker.fold import Event
from tracker.orders import apply_orders
from tracker.rebuild import rebuild
from tracker.recover import give_up_worker
from tracker.sending import take_ready
from tracker.turn import Turn

#: Of the tasks of these jobs.
NAMES = ("anything", "discover")
#: Seconds between two turns: longer than any task is held back.
_BETWEEN = 100


def canvas(spec: Spec, app: Celery) -> Signature:
    """A canvas of tasks that take anything; those that are immutable discover work."""
    match spec:
        case Work():
            return app.tasks["discover" if spec.immutable else "anything"].signature((1,), immutable=spec.immutable)
        case Chain():
            return _chain(*(canvas(part, app) for part in spec.parts))
        case Group():
            return group([canvas(part, app) for part in spec.parts], app=app)
        case Chord():
            return _chord([canvas(part, app) for part in spec.header], canvas(spec.body, app), app=app)


def discover(*given: object) -> None:
    """What a task does is of no account here: nobody runs it."""


class Tracking(RuleBasedStateMachine):
    """A tracker's turns on a real database, and everything that workers and clients may bring about between them."""

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.runner = new_runner(self.folder)
        self.runner.app.tasks["anything"].replayable = True
        self.runner.app.tasks["anything"].skip_empty = True
        self.runner.task(name="discover", discovers=True, shared=False)(discover)
        self.runner.prepare_tasks()
        self.sent: list[str] = []
        self.lacking: set[str] = set()
        self.added = count()
        self.turns = 0

    def teardown(self) -> None:
        self.runner.database.close()
        shutil.rmtree(self.folder)

    def told(self, *events: Event) -> None:
        self.turn(lambda turn: absorb(turn, events, ()))

    def turn(self, happens: Callable[[Turn], object] | None = None) -> None:
        self.turns += 1
        with self.runner.database.write() as connection:
            turn = Turn(connection, moment(self.turns * _BETWEEN))
            if happens is not None:
                happens(turn)
            turn.take_up()
            apply_orders(turn)
            turn.move_on()
            do_chores(turn)
            self.sent += [one.celery_id for one in take_ready(turn)]
            turn.settle()

    @rule(spec=specs, barrier=st.booleans())
    def a_job_is_submitted(self, spec: Spec, barrier: bool) -> None:
        store(self.runner, canvas(spec, self.runner.app), barrier=barrier)
        self.turn()

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def tasks_succeed(self, data: st.DataObject) -> None:
        """Some of what was sent ends as it should, so that plans move on; its value may be empty."""
        ending = data.draw(st.lists(st.sampled_from(self.sent), min_size=1, max_size=10))
        fields = {"result": data.draw(st.sampled_from(["1", "1", "1", "[]"]))}
        told = [event(type_, uuid=one, fields=fields) for one in ending for type_ in ("started", "succeeded")]
        self.told(*told)

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), state=st.sampled_from(sorted(WELL)), names=st.lists(st.sampled_from(NAMES), max_size=2))
    def a_task_has_what_comes_next_skipped(self, data: st.DataObject, state: TaskState, names: list[str]) -> None:
        """It may have ended already, or be sent no more."""
        uuid = data.draw(st.sampled_from(self.sent))
        statement = {**asdict(Statement(state=state, skips="no work")), "branches": names}
        self.told(event("started", uuid=uuid), event("stated", uuid=uuid, fields={"statement": statement}))
        self.told(event("succeeded", uuid=uuid))

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), late=st.booleans(), worker=st.sampled_from(WORKERS))
    def a_task_ends_partial(self, data: st.DataObject, late: bool, worker: str) -> None:
        """What its body has stated may be told late, and another process may have ended it before."""
        uuid = data.draw(st.sampled_from(self.sent))
        statement = Statement(state=TaskState.PARTIAL, counts=ItemCounts(failed=1), errors=1)
        errors = {"errors": [ItemError(item="/a", message="no").as_told()], "first": 0}
        stated = [
            event("stated", uuid=uuid, worker=worker, fields=fields)
            for fields in (errors, {"statement": {**asdict(statement), "branches": []}})
        ]
        ended = [event(type_, uuid=uuid, worker=worker) for type_ in ("started", "succeeded")]
        for told in (ended, stated) if late else (stated, ended):
            self.told(*told)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def workers_tell_anything(self, data: st.DataObject) -> None:
        said = st.tuples(
            st.sampled_from(TYPES), st.sampled_from(self.sent), st.sampled_from(WORKERS), st.integers(0, 1)
        )
        told = [
            event(type_, uuid=uuid, worker=worker, retries=retries, at=self.turns * _BETWEEN)
            for type_, uuid, worker, retries in data.draw(st.lists(said, min_size=1, max_size=6))
        ]
        self.told(*told)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def values_are_lost(self, data: st.DataObject) -> None:
        """Some of what was sent cannot get what it takes, or so its worker says."""
        ids = st.sampled_from(self.sent)
        said = data.draw(st.lists(st.tuples(ids, st.lists(ids, max_size=3)), min_size=1, max_size=6))
        with self.runner.database.read() as connection:
            consumers = tracking.tasks_by_celery_id(connection, {one for one, _ in said})
        self.lacking |= {one.id for one in consumers.values()}
        told = [event("failed", uuid=one, fields={"lost": lost}) for one, lost in said]
        self.turn(lambda turn: absorb(turn, told, ()))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def a_worker_lacks_the_code(self, data: st.DataObject) -> None:
        unknown = event(
            "failed", uuid=data.draw(st.sampled_from(self.sent)), fields={"exception": "NotRegistered('x')"}
        )
        self.told(unknown)

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), spec=specs, expands=st.booleans(), retries=st.integers(0, 1), whole=st.booleans())
    def a_task_adds_to_its_job(self, data: st.DataObject, spec: Spec, expands: bool, retries: int, whole: bool) -> None:
        """It may have succeeded already; with `whole` it does so at once, else whatever comes next."""
        uuid, number = data.draw(st.sampled_from(self.sent)), next(self.added)
        added = parts(
            self.runner.app,
            canvas(spec, self.runner.app),
            chain=f"{uuid}/{retries}/chain",
            group=f"{uuid}/{retries}/group",
            number=number,
            expands=expands,
        )
        told = [
            event("started", uuid=uuid, retries=retries),
            *(
                event("added", uuid=uuid, retries=retries, fields={"part": one.model_dump(mode="json")})
                for one in added
            ),
            *([event("succeeded", uuid=uuid, retries=retries)] * whole),
        ]
        self.told(*told)

    @rule(name=st.sampled_from(WORKERS), redelivers=st.booleans())
    def a_worker_is_lost(self, name: str, redelivers: bool) -> None:
        self.turn(lambda turn: give_up_worker(turn, name, living_source=None, redelivers=redelivers))

    @rule(number=st.integers(0, 3), root=st.integers(0, 1), type_=st.sampled_from(TYPES))
    def a_task_is_heard_of_that_no_plan_knows(self, number: int, root: int, type_: str) -> None:
        stranger = event(type_, uuid=f"stranger{number}", fields={"root_id": f"stranger{root}"})
        self.told(stranger)

    @rule(
        data=st.data(),
        kind=st.sampled_from(OrderKind),
        of_task=st.booleans(),
        requeued=st.sampled_from([{}, *({"scope": one} for one in Scope), *[{"items": Items.FAILED}] * 3]),
    )
    def an_order_is_given(self, data: st.DataObject, kind: OrderKind, of_task: bool, requeued: dict[str, str]) -> None:
        with self.runner.database.read() as connection:
            jobs = list(connection.execute(select(job.c.id).order_by(job.c.id)).scalars())
            tasks = connection.execute(select(task.c.id, task.c.job_id).order_by(task.c.job_id, task.c.arrival)).all()
        if not (tasks if of_task else jobs):
            return
        task_id, job_id = data.draw(st.sampled_from(tasks)) if of_task else (None, data.draw(st.sampled_from(jobs)))
        arguments = requeued if kind is OrderKind.REQUEUE else {}
        order(self.runner, kind, job_id, task_id, **arguments)
        self.turn()

    @invariant()
    def every_counter_is_what_the_rows_say(self) -> None:
        with self.runner.database.read() as connection:
            assert wrong_counters(connection) == []

    @invariant()
    def nothing_waits_that_may_run(self) -> None:
        # Who waits for a lost value waits for its producer: an event that is made up names any task as that.
        waits_for_value = task.c.id.in_(self.lacking)
        going_on = select(job.c.id).where(~job.c.observed, job.c.state.not_in([*ENDED_JOB, JobState.REQUEUEING]))
        with self.runner.database.read() as connection:
            for job_id in connection.execute(going_on).scalars():
                blocks, children = tracking.blocks_of(connection, job_id), tracking.children_of(connection, job_id)
                for place in rebuild(job_id, blocks, children).opened:
                    waiting = task.c.opens_block == place.block, task.c.opens_at == place.position
                    pending = task.c.state == TaskState.PENDING, task.c.job_id == job_id, ~waits_for_value
                    assert connection.execute(select(task.c.id).where(*waiting, *pending)).all() == []

    @invariant()
    def a_job_that_has_ended_has_no_task_that_has_not(self) -> None:
        unfinished = (
            select(task.c.id)
            .join_from(task, job, job.c.id == task.c.job_id)
            .where(job.c.state.in_(list(ENDED_JOB)), task.c.state.not_in(list(ENDED_TASK)))
        )
        with self.runner.database.read() as connection:
            assert connection.execute(unfinished).all() == []


# A life that ends badly is shown as it was: to find a shorter one takes minutes.
Tracking.TestCase.settings = settings(
    max_examples=12,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)
TestCounters = Tracking.TestCase
