"""Events become executions, which their tasks follow: the part of a turn that hears what workers tell.

What an event says of an execution is decided in `tracker.fold`, which knows no database; what that means for a task, in
`tracker.following`.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from jobrunner.records import Attempt, Task
from jobrunner.snapshot import Refusal
from jobrunner.states import TaskState
from jobrunner.store import tracking
from jobrunner.wire import TASK_HELD, TASK_STATED
from tracker.avoiding import rest_after
from tracker.fold import FOLDED, Event, deciding, delivery_of, is_foreign, of_delivery, start_of, tell, was_held, weigh
from tracker.following import SENT, Following
from tracker.growth import TASK_ADDED, stage, torn_attempts
from tracker.held import held_messages, is_repeated
from tracker.observe import TASK_SENT, join
from tracker.statements import errors_told, stated
from tracker.turn import Turn
from tracker.worker_failures import left_to_nobody, note_ends


def fold(turn: Turn, events: Sequence[Event]) -> None:
    """Fold task events into executions, and let these move their tasks."""
    _Folding(turn).fold(events)


def reconsider(turn: Turn, tasks: Iterable[Task]) -> None:
    """Let tasks follow a gate's refusal that did not count as long as another worker had the message."""
    _Folding(turn).reconsider(tasks)


@dataclass(slots=True)
class _Folding:
    """One batch of events, in one turn."""

    turn: Turn
    _following: Following = field(init=False)

    def __post_init__(self) -> None:
        self._following = Following(self.turn)

    def fold(self, events: Sequence[Event]) -> None:
        """Fold task events into executions, and let these move their tasks."""
        told = [event for event in events if event.type in FOLDED or event.type in {TASK_SENT, TASK_ADDED}]
        if not told:
            return
        by_celery_id = tracking.tasks_by_celery_id(self.turn.connection, {event.uuid for event in told})
        by_celery_id |= self._join([event for event in told if event.type != TASK_ADDED], by_celery_id)
        tasks = {task.id: task for task in by_celery_id.values() if task.delivery}
        self._stage(told, by_celery_id)
        by_task: defaultdict[str, list[Event]] = defaultdict(list)
        for event in told:
            task = by_celery_id.get(event.uuid)
            if task is not None and task.id in tasks and event.type in FOLDED:  # else of no job of ours
                by_task[task.id].append(event)
        known = tracking.histories_of(self.turn.connection, by_task)
        histories = {id_: tell(tasks[id_], known[id_], ones) for id_, ones in by_task.items()}
        for id_, history in histories.items():
            if _starts(history) > _starts(known[id_]):
                tasks[id_].handed_back = 0  # it counts those of one try
        self._write(known, histories)
        self._keep_errors([one for one in told if one.type == TASK_STATED], tasks, by_celery_id)
        self._forget_errors({one.uuid for one in told if one.type == TASK_STATED}, histories)
        note_ends(self.turn, known, histories)
        self._hold([one for one in told if one.type == TASK_HELD], tasks, known)
        torn = torn_attempts(self.turn.connection, by_task)
        whole = self._held_whole(histories)
        for id_, history in histories.items():
            self._following.follow(tasks[id_], history, torn.get(id_, frozenset()), whole)
        tracking.keep_late_values(self.turn.connection, _with_late_values(tasks, histories))
        self._following.delay()
        self._following.count_items()

    def reconsider(self, tasks: Iterable[Task]) -> None:
        """Let tasks follow a gate's refusal that did not count as long as another worker had the message."""
        by_id = {task.id: task for task in tasks}
        executions = tracking.histories_of(self.turn.connection, by_id)
        histories = {id_: weigh(ones) for id_, ones in executions.items() if any(was_held(one) for one in ones)}
        self._write(executions, histories)
        whole = self._held_whole(histories)
        for id_, history in histories.items():
            decider = deciding(of_delivery(by_id[id_].delivery, history))
            if decider is not None and was_held(decider):
                self._following.follow(by_id[id_], history, frozenset(), whole)
        self._following.delay()
        if histories:
            self.turn.move_on()

    def _hold(self, told: Sequence[Event], tasks: Mapping[str, Task], known: Mapping[str, Sequence[Attempt]]) -> None:
        """Keep the messages that gates have handed back whole; what was told before is held, or on its way, already."""
        if not told:
            return
        before = {(one.celery_id, one.retries, one.process): one for ones in known.values() for one in ones}
        news = [one for one in told if not is_repeated(one, before.get((one.uuid, one.retries or 0, one.process)))]
        self._following.refused = {(one.uuid, one.retries or 0) for one in news}
        sent = {task.celery_id: task for task in tasks.values() if task.state in SENT}
        avoided = {one.uuid for one in news if one.fields.get("reason") == Refusal.AVOIDED and one.uuid in sent}
        for id_ in avoided:  # once in a batch: it has yet to go out again
            sent[id_].handed_back += 1
        blocked = (sent[one.uuid] for one in told if one.fields.get("reason") == Refusal.BLOCKED and one.uuid in sent)
        self._following.stuck = left_to_nobody(self.turn, blocked)
        messages = held_messages(news, sent)
        if messages:
            reasons = {one.uuid: str(one.fields.get("reason")) for one in news}
            rests = {
                one.id: timedelta(seconds=rest_after(reasons[one.celery_id], sent[one.celery_id])) for one in messages
            }
            tracking.hold_messages(self.turn.connection, messages, self.turn.now, rests)
            self.turn.has_held = True

    def _keep_errors(self, told: Sequence[Event], tasks: Mapping[str, Task], known: Mapping[str, Task]) -> None:
        """Keep the item errors that bodies have stated, whatever becomes of their executions."""
        rows = [
            row
            for event in told
            if (task := known.get(event.uuid)) is not None and task.id in tasks
            for row in errors_told(
                event.fields, task.id, (delivery_of(task, event.uuid), event.retries or 0, event.process)
            )
        ]
        tracking.save_item_errors(self.turn.connection, rows)

    def _forget_errors(self, stated_by: Collection[str], histories: Mapping[str, Sequence[Attempt]]) -> None:
        """Forget those that an execution named before its worker handed the message back, and executed it again."""
        said = {
            (one.task_id, *one.key): statement.errors
            for history in histories.values()
            for one in history
            if one.celery_id in stated_by and (statement := stated(one)) is not None
        }
        tracking.forget_surplus_errors(self.turn.connection, said)

    def _held_whole(self, histories: Mapping[str, Sequence[Attempt]]) -> set[tuple[str, int]]:
        """Return of which tries of these tasks the tracker has the message: (Celery id, retries)."""
        held = [id_ for id_, history in histories.items() if any(was_held(one) for one in history)]
        return tracking.held_ids(self.turn.connection, held) if held else set()

    def _join(self, told: Sequence[Event], known: Mapping[str, Task]) -> Mapping[str, Task]:
        """Take in tasks that no plan knows."""
        joined = join(self.turn.connection, told, known, self.turn.now)
        for task in joined.tasks.values():
            self.turn.changes.add(task.job_id, task.state, 1)
        self.turn.unplaced += joined.unplaced
        self.turn.changes.revived |= joined.revived
        return joined.tasks

    def _stage(self, told: Sequence[Event], known: Mapping[str, Task]) -> None:
        """Take in what tasks add to their jobs."""
        for job_id, number in stage(self.turn.connection, told, known).items():
            self.turn.changes.add(job_id, TaskState.PENDING, number)

    def _write(self, known: Mapping[str, Sequence[Attempt]], histories: Mapping[str, Sequence[Attempt]]) -> None:
        """Write what is new or another one than before; `tell` returns the known ones first, in their order."""
        new: list[Attempt] = []
        changed: list[tuple[Attempt, Attempt]] = []
        for id_, history in histories.items():
            before = known[id_]
            new += history[len(before) :]
            changed += [(one, old) for one, old in zip(history, before, strict=False) if one is not old]
        tracking.insert_attempts(self.turn.connection, new)
        tracking.update_attempts(self.turn.connection, [one for one, _ in changed])
        foreign = [one for one in new if is_foreign(one)]
        foreign += [one for one, old in changed if is_foreign(one) and not is_foreign(old)]
        self.turn.foreign.update(one.worker or "" for one in foreign)


def _starts(executions: Iterable[Attempt]) -> int:
    return sum(start_of(one) is not None for one in executions)


def _with_late_values(tasks: Mapping[str, Task], histories: Mapping[str, Sequence[Attempt]]) -> set[str]:
    """Return jobs in which an execution that no longer counts has succeeded, and so has stored a value as well."""
    return {
        tasks[id_].job_id
        for id_, history in histories.items()
        if any(one.outcome == "succeeded" and one.delivery < tasks[id_].delivery for one in history)
    }
