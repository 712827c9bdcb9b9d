"""One turn of the tracker: everything that happens between BEGIN and COMMIT.

A turn folds a batch of events into attempts and tasks, takes up new jobs, moves plans on, settles the jobs that were
touched, and puts what is ready into the outbox. It loads and writes rows in bulk; no statement is issued per task.
"""

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from jobrunner import ids
from jobrunner.errors import IllegalMoveError
from jobrunner.plan import Place, Source
from jobrunner.records import Attempt, AttemptKey, HeldMessage, HistoryLine, Letter, Task
from jobrunner.states import ENDED_TASK, WELL, CancelReason, FailureReason, TaskState, check_task_move
from jobrunner.store import tracking
from jobrunner.store.sources import inputs_of
from jobrunner.wire import TASK_HELD, Inputs
from tracker.advance import advance, retreat
from tracker.fold import (
    FOLDED,
    Event,
    deciding,
    is_foreign,
    reason_of,
    start_of,
    state_after,
    tell,
    was_held,
    weigh,
)
from tracker.growth import TASK_ADDED, stage, torn_attempts
from tracker.growth import settle as settle_additions
from tracker.held import held_messages, is_final, is_repeated, rests
from tracker.observe import TASK_SENT, join
from tracker.settle import Cause, Changes

if TYPE_CHECKING:
    from sqlalchemy import Connection

logger = logging.getLogger(__name__)

#: New jobs, and messages, that one turn takes up: bounds how long others wait for the database.
_JOBS = 50
_LETTERS = 500

#: States of a task that events are about: the broker or a worker has it, or has had it.
_SENT = frozenset(
    {
        *(TaskState.QUEUED, TaskState.ACTIVE, TaskState.SOFT_FAILED),
        *(TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELED),
    }
)

#: What is wrong with a task that has succeeded and whose additions are not all there.
_TORN = "the event log has lost a part of what it had added to the job: requeue it"

#: Seconds until a task goes out again whose worker lacked its code, doubling with each delivery, to the last.
_FIRST_REST, _LAST_REST = 1.0, 60.0
#: What is said of a task that a gate has refused, and of which nobody has the message any more.
_DROPPED = "lost: a worker's gate refused its message ({why}), which a task has sent and only that can send again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A message to publish after the commit: the stored letter, and where the task's input comes from."""

    letter: Letter
    inputs: Inputs | None
    #: When it was put into the outbox, with all that goes out with it.
    queued_at: datetime

    @property
    def celery_id(self) -> str:
        """The Celery id of this delivery."""
        return ids.celery_id(self.letter.task_id, self.letter.delivery)

    @property
    def queue(self) -> str:
        """The queue that it is for."""
        return self.letter.queue

    @property
    def retries(self) -> int:
        """Celery's retries with which it goes out."""
        return self.letter.first_retries

    @property
    def batch(self) -> str:
        """The name of all that was put into the outbox by one turn."""
        return batch_of(self.queued_at)


def batch_of(queued_at: datetime) -> str:
    """Return the name of all that was put into the outbox at a moment: microseconds since 1970."""
    return str(round(queued_at.timestamp() * 1_000_000))


@dataclass(slots=True)
class Turn:
    """Collects what changes, for `move_on` and `settle` to write. One turn belongs to one transaction."""

    connection: "Connection"
    now: datetime
    #: Reports of processes that did not have the task, by worker (A5).
    foreign: Counter[str] = field(default_factory=Counter)
    #: Events of tasks whose job was not told: nobody has heard their first ones.
    unplaced: int = 0
    #: Celery ids of what was canceled and runs on, because its worker's pool cannot end it, each with the worker.
    left: dict[str, str] = field(default_factory=dict)
    #: Whether messages were handed back whole, which are to be forwarded some time.
    has_held: bool = False
    _tasks: dict[str, Task] = field(default_factory=dict)
    _ended_well: list[Task] = field(default_factory=list)
    _run_again: list[Place] = field(default_factory=list)
    #: Tasks that failed because what they take is lost, until `tracker.replay` has seen to them.
    input_lost: list[Task] = field(default_factory=list)
    #: What is to be written into the history of jobs.
    history: list[HistoryLine] = field(default_factory=list)
    #: Whether all was read that workers had told, and the version of the snapshot that they could read before that.
    drained: bool = True
    stored: float = math.inf
    _delays: dict[str, datetime] = field(default_factory=dict)
    _changes: Changes = field(default_factory=Changes)

    # ---- events --------------------------------------------------------------------------------------------

    def fold(self, events: Sequence[Event]) -> None:
        """Fold task events into executions, and let these move their tasks."""
        told = [event for event in events if event.type in FOLDED or event.type in {TASK_SENT, TASK_ADDED}]
        if not told:
            return
        by_celery_id = tracking.tasks_by_celery_id(self.connection, {event.uuid for event in told})
        by_celery_id |= self._join([event for event in told if event.type != TASK_ADDED], by_celery_id)
        tasks = {task.id: task for task in by_celery_id.values() if task.delivery}
        self._stage(told, by_celery_id)
        by_task: defaultdict[str, list[Event]] = defaultdict(list)
        for event in told:
            task = by_celery_id.get(event.uuid)
            if task is not None and task.id in tasks and event.type in FOLDED:  # else of no job of ours
                by_task[task.id].append(event)
        known: defaultdict[str, list[Attempt]] = defaultdict(list)
        for one in tracking.attempts_of(self.connection, by_task):
            known[one.task_id].append(one)
        histories = {id_: tell(tasks[id_], known[id_], ones) for id_, ones in by_task.items()}
        self._write(known, histories)
        self._hold([one for one in told if one.type == TASK_HELD], tasks, known)
        torn = torn_attempts(self.connection, by_task)
        whole = self._held_whole(histories)
        for id_, history in histories.items():
            self._follow(tasks[id_], history, torn.get(id_, frozenset()), whole)
        tracking.keep_late_values(self.connection, _with_late_values(tasks, histories))
        self._delay()

    def reconsider(self, tasks: Iterable[Task]) -> None:
        """Let tasks follow a gate's refusal that did not count as long as another worker had the message."""
        by_id = {task.id: task for task in tasks}
        executions: defaultdict[str, list[Attempt]] = defaultdict(list)
        for one in tracking.attempts_of(self.connection, by_id):
            executions[one.task_id].append(one)
        histories = {id_: weigh(ones) for id_, ones in executions.items() if any(was_held(one) for one in ones)}
        self._write(executions, histories)
        whole = self._held_whole(histories)
        for id_, history in histories.items():
            decider = deciding(one for one in history if one.delivery == by_id[id_].delivery)
            if decider is not None and was_held(decider):
                self._follow(by_id[id_], history, frozenset(), whole)
        self._delay()
        if histories:
            self.move_on()

    def _delay(self) -> None:
        tracking.delay_tasks(self.connection, self._delays)
        self._delays.clear()

    def _hold(self, told: Sequence[Event], tasks: Mapping[str, Task], known: Mapping[str, Sequence[Attempt]]) -> None:
        """Keep the messages that gates have handed back whole; what was told before is held, or on its way, already."""
        if not told:
            return
        before = {(one.celery_id, one.retries, one.process): one for ones in known.values() for one in ones}
        news = [one for one in told if not is_repeated(one, before.get((one.uuid, one.retries or 0, one.process)))]
        messages = held_messages(news, {task.celery_id: task for task in tasks.values() if task.state in _SENT})
        if messages:
            tracking.hold_messages(self.connection, messages, self.now)
            self.has_held = True

    def _held_whole(self, histories: Mapping[str, Sequence[Attempt]]) -> set[tuple[str, int]]:
        """Return of which tries of these tasks the tracker has the message: (Celery id, retries)."""
        held = [id_ for id_, history in histories.items() if any(was_held(one) for one in history)]
        return tracking.held_ids(self.connection, held) if held else set()

    def _join(self, told: Sequence[Event], known: Mapping[str, Task]) -> Mapping[str, Task]:
        """Take in tasks that no plan knows."""
        joined = join(self.connection, told, known, self.now)
        for task in joined.tasks.values():
            self._changes.add(task.job_id, task.state, 1)
        self.unplaced += joined.unplaced
        self._changes.revived |= joined.revived
        return joined.tasks

    def _stage(self, told: Sequence[Event], known: Mapping[str, Task]) -> None:
        """Take in what tasks add to their jobs."""
        for job_id, number in stage(self.connection, told, known).items():
            self._changes.add(job_id, TaskState.PENDING, number)

    def _write(self, known: Mapping[str, Sequence[Attempt]], histories: Mapping[str, Sequence[Attempt]]) -> None:
        """Write what is new or another one than before; `tell` returns the known ones first, in their order."""
        new: list[Attempt] = []
        changed: list[tuple[Attempt, Attempt]] = []
        for id_, history in histories.items():
            before = known[id_]
            new += history[len(before) :]
            changed += [(one, old) for one, old in zip(history, before, strict=False) if one is not old]
        tracking.insert_attempts(self.connection, new)
        tracking.update_attempts(self.connection, [one for one, _ in changed])
        foreign = [one for one in new if is_foreign(one)]
        foreign += [one for one, old in changed if is_foreign(one) and not is_foreign(old)]
        self.foreign.update(one.worker or "" for one in foreign)

    def _follow(
        self,
        task: Task,
        history: Sequence[Attempt],
        torn: Collection[AttemptKey],
        whole: Collection[tuple[str, int]] = (),
    ) -> None:
        """Move a task to where the executions of its present delivery say it is.

        What has failed or was revoked goes on if a further execution turns out to run, or to have succeeded. A success
        that is `torn` from what it has added is none.
        """
        present = [one for one in history if one.delivery == task.delivery]
        decider = deciding(present)
        if decider is None or task.state not in _SENT:
            return
        if task.sent_at is None:  # who has an event was sent, even if the tracker died before it could note so
            task.sent_at = self.now
        task.started_at = min((start for one in history if (start := start_of(one))), default=None)
        if was_held(decider) and (decider.celery_id, decider.retries) not in whole:
            self._dropped(task, decider, present)
            return
        state = state_after(task, decider, present)
        kept = task.note if state is task.state is TaskState.QUEUED else None
        note = _what_failed(state, present) or kept
        if state in WELL and decider.key in torn:
            state, note = TaskState.FAILED, _TORN
        before = task.state
        if not self._try_move(task, state, decider) or task.ordered is not None:
            return
        if task.ordered is None:
            task.note, task.reason = note, reason_of(state, decider)
        if task.reason is FailureReason.INPUT_LOST and before is not state and task.block_id:
            self.input_lost.append(task)
        if state is TaskState.SOFT_FAILED and decider.outcome == "unknown" and task.block_id:
            self._send_later(task)

    def _try_move(self, task: Task, state: TaskState, decider: Attempt) -> bool:
        try:
            self.move(task, state, ended_at=decider.ended_at, corrects=True)
        except IllegalMoveError as refused:
            logger.warning("Task %s: %s", task.id, refused, extra={"action": "move-refused", "task": task.id})
            return False
        return True

    def _dropped(self, task: Task, decider: Attempt, present: Sequence[Attempt]) -> None:
        """Send a task again whose message a gate has refused; one that only a task can send has come to its end."""
        why = decider.exception or ""
        if task.block_id:
            if self._try_move(task, state_after(task, decider, present), decider) and task.ordered is None:
                task.first_retries = max(task.first_retries, decider.retries)
                task.note, task.reason = f"sent again: a worker's gate refused it ({why})", None
                if rests(why):
                    self._delays[task.id] = self.now + timedelta(seconds=_FIRST_REST)
                self.move(task, TaskState.READY)
        elif is_final(why):
            if self._try_move(task, TaskState.CANCELED, decider) and task.ordered is None:
                task.note, task.reason = None, CancelReason.ORDER
        elif self._try_move(task, TaskState.FAILED, decider) and task.ordered is None:
            task.note, task.reason = _DROPPED.format(why=why), FailureReason.LOST

    def _send_later(self, task: Task) -> None:
        """Send a task again after a rest: a worker without its code has dropped the message, as during a rollout."""
        rest = min(_FIRST_REST * 2 ** (task.delivery - 1), _LAST_REST)
        self._delays[task.id] = self.now + timedelta(seconds=rest)
        self.move(task, TaskState.READY)

    def move(self, task: Task, state: TaskState, *, ended_at: datetime | None = None, corrects: bool = False) -> None:
        """Move one task; its row and the plan follow in `move_on`, its job in `settle`.

        If an operator has given it its end, it comes to that one wherever it was to go.
        """
        if task.ordered is not None and (task.state in ENDED_TASK or state is not TaskState.ACTIVE):
            state, task.reason = TaskState(task.ordered), CancelReason.ORDER
            if task.state is state:
                return
        check_task_move(task.state, state, corrects=corrects)
        self._tasks[task.id] = task
        task.ended_at = (ended_at or self.now) if state in ENDED_TASK else None
        if task.state is state:
            return
        self._changes.move_one(task, state, corrects=corrects)
        if (task.state in WELL) != (state in WELL) and task.block_id:
            if state in WELL:
                self._ended_well.append(task)
            else:
                self._run_again.append(Place(task.block_id, task.position))
        task.state = state

    # ---- plans ---------------------------------------------------------------------------------------------

    def take_up(self) -> None:
        """Take up new jobs: open the first place of their plans."""
        job_ids = tracking.new_jobs(self.connection, _JOBS)
        tracking.mark_applied(self.connection, job_ids, self.now)
        for job_id in job_ids:
            self.open(job_id, Place(job_id, 0))

    def open(self, job_id: str, place: Place) -> None:
        """Make the tasks that wait for this place ready."""
        number = tracking.open_place(self.connection, place.block, place.position, self.now)
        self._changes.move(job_id, TaskState.PENDING, TaskState.READY, number)

    def move_on(self) -> None:
        """Write the tasks that moved, and open what their ends open."""
        for job_id in self._changes.revived:
            self._changes.move(job_id, TaskState.CANCELED, TaskState.PENDING, tracking.restore(self.connection, job_id))
        tracking.doubt_values(self.connection, self._changes.revived)
        tracking.update_tasks(self.connection, self._tasks.values())
        for job_id, number in settle_additions(self.connection, self._tasks, self.now).items():
            self._changes.add(job_id, TaskState.PENDING, -number)
        ended_well = [Place(task.block_id, task.position) for task in self._ended_well]
        blocks = tracking.blocks_upward(self.connection, {place.block for place in ended_well + self._run_again})
        held = retreat(self._run_again, blocks)  # first: what waits for these must not open
        moved = advance(ended_well, {**blocks, **held})
        tracking.update_blocks(self.connection, {**held, **moved.changed}.values())
        for place in moved.opened:
            self.open(blocks[place.block].job_id, place)
        for chain in [blocks[id_] for id_ in set(moved.resumed)]:
            position = tracking.first_unfinished(self.connection, chain)
            if position is not None:
                self.open(chain.job_id, Place(chain.id, position))
        self._tasks.clear()
        self._ended_well.clear()
        self._run_again.clear()

    @property
    def changes(self) -> Changes:
        """What has changed in jobs, for who moves many tasks at once."""
        return self._changes

    def settle(self) -> None:
        """Let every job of which a task has moved follow its tasks."""
        tracking.insert_history(self.connection, self.history)
        self.history.clear()
        self._changes.settle(self.connection, self.now)

    def tell(self, job_id: str, line: str, cause: Cause, *, task_id: str | None = None) -> None:
        """Write a line into the history of a job."""
        self.history.append(
            HistoryLine(
                job_id=job_id, task_id=task_id, at=self.now, line=line, trigger=cause.trigger, who=cause.who,
                why=cause.why,
            )
        )  # fmt: skip

    # ---- outbox --------------------------------------------------------------------------------------------

    def take_ready(self) -> list[Outgoing]:
        """Put what is ready into the outbox; to be published once this turn is committed.

        What is ready in a job that is held is held with it; what is to be skipped ends here.
        """
        ready = tracking.take_ready(self.connection, self.now, _LETTERS)
        tracking.park_tasks(self.connection, [one.task_id for one in ready if one.held])
        self._skip([one.task_id for one in ready if one.ordered and not one.held])
        letters = [one for one in ready if not one.held and not one.ordered]
        sources = [Source(task=letter.takes_task, group=letter.takes_group) for letter in letters]
        inputs = inputs_of(self.connection, {source for source in sources if source != Source()})
        outgoing = [
            Outgoing(letter=one, inputs=inputs.get(source), queued_at=self.now)
            for one, source in zip(letters, sources, strict=True)
        ]
        for letter in letters:
            self._changes.move(letter.job_id, TaskState.READY, TaskState.QUEUED, 1)
        tracking.queue_tasks(
            self.connection, [(one.letter.task_id, one.letter.delivery, one.celery_id) for one in outgoing], self.now
        )
        # The Celery id of a later delivery cannot be told from the task's own: its row is there before its first event.
        later = [one for one in outgoing if one.letter.delivery > 1]
        tracking.insert_attempts(self.connection, [_unheard(one) for one in later])
        return outgoing

    def _skip(self, task_ids: Collection[str]) -> None:
        """End tasks as was ordered while they still waited."""
        for task in tracking.tasks_by_id(self.connection, task_ids).values():
            self.move(task, TaskState.SKIPPED)
        if task_ids:
            self.move_on()

    def take_held(self) -> list[HeldMessage]:
        """Take messages of others that may run now, to be forwarded once this turn is committed (C3)."""
        return tracking.take_held(self.connection, self.now, _LETTERS)


def _with_late_values(tasks: Mapping[str, Task], histories: Mapping[str, Sequence[Attempt]]) -> set[str]:
    """Return jobs in which an execution that no longer counts has succeeded, and so has stored a value as well."""
    return {
        tasks[id_].job_id
        for id_, history in histories.items()
        if any(one.outcome == "succeeded" and one.delivery < tasks[id_].delivery for one in history)
    }


def _unheard(one: Outgoing) -> Attempt:
    letter = one.letter
    return Attempt(
        task_id=letter.task_id, delivery=letter.delivery, retries=letter.first_retries, celery_id=one.celery_id
    )


def _what_failed(state: TaskState, executions: Iterable[Attempt]) -> str | None:
    """Return what the last execution that failed said, for a task that has failed or waits for its retry.

    The one that decides need not be it: a worker has often received the retry already, and holds it back.
    """
    if state not in {TaskState.SOFT_FAILED, TaskState.FAILED, TaskState.CANCELED}:
        return None
    failed = [one for one in executions if one.exception is not None and one.standing]
    last = max(failed, key=lambda one: (one.outcome == "failed", one.retries, one.process), default=None)
    return None if last is None else last.exception
