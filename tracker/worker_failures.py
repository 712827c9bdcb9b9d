"""Workers that fail the tasks of one name in a job get none of them any more (F1).

Three different tasks must fail there in a row. A try that is repeated counts only as long as another worker could take
it: a worker on its own gives everything the tries that its retry policy allows, and is blocked only if it has never
succeeded with any of them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from jobrunner.records import Attempt, NamedTask, Task, WorkerFailure
from jobrunner.store import tracking
from jobrunner.text import SENTENCE, bounded
from tracker.fold import is_foreign
from tracker.settle import Cause
from tracker.turn import Turn

#: Tasks that fail in a row until a worker is blocked.
MOST_FAILURES = 3
#: Ends that say something about a worker, and those of them that say that it is well.
_TELLING = frozenset({"retried", "failed", "succeeded"})
#: What Celery tells as the exception of a task that asks for another try without one: it only waits for something.
_NO_EXCEPTION = "None"
_CAUSE = Cause(trigger="failures on one worker")
#: Workers that a note names.
_NAMED = 5


def note_ends(turn: Turn, known: Mapping[str, Sequence[Attempt]], histories: Mapping[str, Sequence[Attempt]]) -> None:
    """Count how tasks have ended on workers, as events have just told, and block who fails them all."""
    ended = sorted(
        _newly_ended(known, histories), key=lambda one: (one.ended_at is not None, one.ended_at, one.task_id)
    )
    if ended:
        _Counting(turn).note(ended)


def _newly_ended(
    known: Mapping[str, Sequence[Attempt]], histories: Mapping[str, Sequence[Attempt]]
) -> Iterator[Attempt]:
    for id_, history in histories.items():
        before = known[id_]
        for number, one in enumerate(history):
            old = before[number] if number < len(before) else None
            told = one.outcome in _TELLING and (old is None or old.outcome != one.outcome)
            if told and one.worker is not None and not is_foreign(one):
                yield one


@dataclass(slots=True)
class _Counting:
    """What one batch of events says about workers."""

    turn: Turn
    _failures: dict[tuple[str, str, str], WorkerFailure] = field(default_factory=dict)
    _live: Mapping[str, Sequence[str] | None] = field(default_factory=dict)

    def note(self, ended: Sequence[Attempt]) -> None:
        """Note ends of tasks, in order."""
        connection = self.turn.connection
        has_failed = any(one.outcome != "succeeded" for one in ended)
        if not has_failed and not tracking.has_worker_failures(connection):
            return  # as nearly always
        named = tracking.named_tasks(connection, {one.task_id for one in ended})
        self._failures = tracking.worker_failures(connection, {one.job_id for one in named.values()})
        self._live = tracking.live_workers(connection) if has_failed else {}
        known = set(self._failures)
        for one in ended:
            if one.task_id in named:
                self._note(one, named[one.task_id])
        old = [one for key, one in sorted(self._failures.items()) if key in known]
        new = [one for key, one in sorted(self._failures.items()) if key not in known]
        tracking.save_worker_failures(connection, old, new)

    def _note(self, one: Attempt, task: NamedTask) -> None:
        worker = one.worker or ""
        key = task.job_id, task.name, worker
        row = self._failures.get(key, WorkerFailure(job_id=task.job_id, name=task.name, worker=worker))
        if row.blocked_at is not None:
            return
        if one.outcome == "succeeded":
            row.failures, row.last_task = 0, None
        elif worker in self._live and self._counts(one, task) and row.last_task != task.id:
            row.failures, row.last_task = row.failures + 1, task.id
            self._failures[key] = row
            if row.failures >= MOST_FAILURES and (self._has_others(worker, task) or not self._has_succeeded(row)):
                self._block(row, one)

    def _counts(self, one: Attempt, task: NamedTask) -> bool:
        return one.outcome == "failed" or (one.exception != _NO_EXCEPTION and self._has_others(one.worker or "", task))

    def _has_others(self, worker: str, task: NamedTask) -> bool:
        others = (name for name in _takers(self._live, task) if name != worker)
        return any(not self._is_blocked(task, name) for name in others)

    def _has_succeeded(self, row: WorkerFailure) -> bool:
        """Whether a worker can do such tasks of the job: then it is some of these that are bad."""
        return tracking.has_succeeded(self.turn.connection, row)

    def _is_blocked(self, task: NamedTask, worker: str) -> bool:
        row = self._failures.get((task.job_id, task.name, worker))
        return row is not None and row.blocked_at is not None

    def _block(self, row: WorkerFailure, last: Attempt) -> None:
        row.blocked_at = self.turn.now
        tracking.next_version(self.turn.connection)
        line = (
            f"{row.worker} gets no more {row.name} of this job: {row.failures} of them in a row have failed there,"
            f" the last with {last.exception}; `jobrunner workers unblock {row.worker}` lifts that"
        )
        self.turn.tell(row.job_id, bounded(line, SENTENCE), _CAUSE, task_id=last.task_id)


def _takers(live: Mapping[str, Sequence[str] | None], task: NamedTask) -> list[str]:
    """Return the workers that take tasks from the queue of a task, as far as is known."""
    return [name for name, queues in live.items() if queues is None or not task.queue or task.queue in queues]


def left_to_nobody(turn: Turn, tasks: Iterable[Task]) -> dict[str, str]:
    """Return those of these tasks that no living worker may run, each with a sentence for people.

    Those that wait for a worker because none lives are left to wait.
    """
    named = tracking.named_tasks(turn.connection, {task.id for task in tasks})
    if not named:
        return {}
    failures = tracking.worker_failures(turn.connection, {one.job_id for one in named.values()})
    blocked = {key for key, one in failures.items() if one.blocked_at is not None}
    live = tracking.live_workers(turn.connection)
    takers = {one.id: _takers(live, one) for one in named.values()}
    return {
        id_: _nobody(named[id_], names)
        for id_, names in takers.items()
        if names and all((named[id_].job_id, named[id_].name, name) in blocked for name in names)
    }


def _nobody(task: NamedTask, workers: Sequence[str]) -> str:
    listed = ", ".join([*workers[:_NAMED], *(["…"] if len(workers) > _NAMED else [])])
    each = "it" if len(workers) == 1 else "each of them"
    sentence = (
        f"no worker is left for {task.name}: {listed}, where {MOST_FAILURES} of this job in a row have failed;"
        f" `jobrunner workers unblock` lifts that for {each}, and a requeue of the job for all"
    )
    return bounded(sentence, SENTENCE)


def lift_blocks(turn: Turn, job_id: str, *, worker: str | None = None, name: str | None = None) -> list[WorkerFailure]:
    """Let workers get again what they are blocked for in a job, and return which blocks that were."""
    lifted = tracking.lift_worker_blocks(turn.connection, job_id, {"worker": worker, "name": name})
    if lifted:
        tracking.next_version(turn.connection)
    return lifted
