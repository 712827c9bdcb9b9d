"""What runs again because its value is lost: tasks that their authors have declared `replayable`.

A task that cannot get what it takes fails, and tells which values are lost. If all of their producers may run again,
they do, each under its next delivery, and the task after them. What has completed elsewhere stays as it is. A producer
that finds its own input lost is such a task in its turn.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from jobrunner import ids
from jobrunner.records import HistoryLine, Producer, Task
from jobrunner.states import ENDED_TASK, WELL, TaskState
from jobrunner.store import tracking
from jobrunner.text import SENTENCE, bounded
from tracker.fold import Event, lost_values
from tracker.turn import Turn

logger = logging.getLogger(__name__)

#: Deliveries of one task, beyond which it is not sent again because of a value: a backend that loses all it is given
#: must not keep a job running for ever.
MOST_DELIVERIES = 20

_REMEDY = (
    "`jobrunner requeue --all {job_id}` makes it anew; a task declared with @jobs.task(replayable=True) is run again by"
    " the tracker."
)


def replay(turn: Turn, events: Iterable[Event]) -> None:
    """See to the tasks that have failed in this turn because what they take is lost."""
    if not turn.input_lost:
        return
    told = {event.uuid: named for event in events if (named := lost_values(event)) is not None}
    consumers = {task.id: task for task in turn.input_lost}
    turn.input_lost.clear()
    lost = {id_: told.get(ids.celery_id(id_, task.delivery)) for id_, task in consumers.items()}
    producers = tracking.producers(turn.connection, {one for named in lost.values() for one in named or ()}, consumers)
    replaying = _Replay(turn, lost, consumers, producers)
    for task in consumers.values():
        replaying.see_to(task)
    tracking.insert_history(turn.connection, replaying.lines)
    turn.move_on()


@dataclass(slots=True)
class _Replay:
    """Tasks whose input is lost, with the Celery ids of the values, and the producers of these by their Celery ids."""

    turn: Turn
    lost: Mapping[str, Sequence[str] | None]
    consumers: Mapping[str, Task]
    producers: Mapping[str, Producer]
    lines: list[HistoryLine] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    def see_to(self, consumer: Task) -> None:
        """Let a task run again, after the producers of what it takes if need be; or let it stay failed, and say why."""
        lost = self.lost[consumer.id]
        if lost is None or consumer.id in self._seen:  # what it takes was told before another process ran it too
            return
        self._seen.add(consumer.id)
        for one in lost:  # a producer may have failed for the same reason, in this turn
            if one in self.producers and self.producers[one].task.id in self.consumers:
                self.see_to(self.producers[one].task)
        obstacle = self._obstacle(consumer, lost)
        if obstacle is not None:
            consumer.note = bounded(f"{obstacle} {_REMEDY.format(job_id=consumer.job_id)}", SENTENCE)
            self.turn.move(consumer, consumer.state, ended_at=consumer.ended_at)
            return
        found = [self.producers[one] for one in lost]
        for one, producer in zip(lost, found, strict=True):
            if _lacks_value(producer.task, one):
                self._run_again(producer, consumer)
        waits = any(producer.task.state not in WELL for producer in found)
        consumer.reason, consumer.note = None, "runs again: what it takes was lost"
        self.turn.move(consumer, TaskState.PENDING)
        if not waits:
            self.turn.move(consumer, TaskState.READY)

    def _obstacle(self, consumer: Task, lost: Sequence[str]) -> str | None:
        """Return why a task cannot run again, as a sentence; None if it can."""
        if not lost and _sent(consumer) >= MOST_DELIVERIES:
            return f"The list of what it takes was lost {_sent(consumer)} times."
        for one in lost:
            producer = self.producers.get(one)
            if producer is None or producer.task.job_id != consumer.job_id:
                return f"The value of task {one}, which it takes, is no longer in the result backend."
            if (why := _why_not(producer, one)) is not None:
                what = f"the value of {producer.name} [{producer.task.id}] is no longer in the result backend"
                return f"{what}, and that task {why}."
        return None

    def _run_again(self, producer: Producer, consumer: Task) -> None:
        task = producer.task
        line = f"ran again: its value was lost when task {consumer.id} needed it"
        self.lines.append(HistoryLine(job_id=task.job_id, task_id=task.id, at=self.turn.now, line=line))
        logger.warning("Task %s %s.", task.id, line, extra={"action": "ran-again", "task": task.id})
        task.note, task.first_retries = line, 0
        self.turn.move(task, TaskState.PENDING)
        self.turn.move(task, TaskState.READY)
        tracking.forget_item_counts(self.turn.connection, [task.id])


def _lacks_value(task: Task, celery_id: str) -> bool:
    """Whether the lost value is the one that the task has now; of an earlier delivery nobody needs it any more."""
    return task.state in WELL and ids.celery_id(task.id, task.delivery) == celery_id


def _why_not(producer: Producer, celery_id: str) -> str | None:
    """Return what keeps a task from running again because of this value; None if it may, or need not."""
    task = producer.task
    if not _lacks_value(task, celery_id):
        return f"is {task.state}" if task.state in ENDED_TASK - WELL else None
    if not producer.replayable:
        return "is not replayable"
    if producer.grew:
        return "has added tasks to the job, which it would add again"
    return f"was sent {_sent(task)} times already" if _sent(task) >= MOST_DELIVERIES else None


def _sent(task: Task) -> int:
    """Return how often a task was sent since it was requeued last."""
    return task.delivery - task.earlier
