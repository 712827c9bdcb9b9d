"""What a turn puts into the outbox: messages of tasks that are ready, and those that gates have handed back."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from jobrunner import ids
from jobrunner.plan import Source
from jobrunner.records import Attempt, HeldMessage, Letter
from jobrunner.states import SkipReason, TaskState
from jobrunner.store import tracking
from jobrunner.store.sources import empty_ones, inputs_of
from jobrunner.wire import Inputs
from tracker.avoiding import MOST_HANDED_BACK, to_avoid
from tracker.statements import EMPTY_NOTE
from tracker.turn import Turn

#: Messages that one turn takes: bounds how long others wait for the database.
_LETTERS = 500
#: Tasks that are held with their jobs at once, and how often in a turn: what is behind them in the line must not wait.
_PARKED = 5_000
_PARKINGS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A message to publish after the commit: the stored letter, and where the task's input comes from."""

    letter: Letter
    inputs: Inputs | None
    avoid: Sequence[str] = ()
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


def take_ready(turn: Turn) -> list[Outgoing]:
    """Put what is ready into the outbox; to be published once this turn is committed.

    What is ready in a job that is held is held with it; what is to be skipped ends here, and what takes nothing but
    empty values.
    """
    ready = tracking.take_ready(turn.connection, turn.now, _LETTERS)
    for _ in range(_PARKINGS):
        if not (held := {one.job_id for one in ready if one.held}):
            break
        turn.goes_on |= tracking.park_tasks(turn.connection, held, _PARKED) == _PARKED
        ready = tracking.take_ready(turn.connection, turn.now, _LETTERS)
    ready = [one for one in ready if not one.held]
    empty = _without_input(turn, ready)
    _skip(turn, [one.task_id for one in ready if one.ordered], empty)
    letters = [one for one in ready if not one.ordered and one.task_id not in empty]
    sources = [_source(letter) for letter in letters]
    inputs = inputs_of(turn.connection, {source for source in sources if source != Source()})
    avoid = _avoided(turn, letters)
    outgoing = [
        Outgoing(letter=one, inputs=inputs.get(source), avoid=avoid.get(one.task_id, ()), queued_at=turn.now)
        for one, source in zip(letters, sources, strict=True)
    ]
    for letter in letters:
        turn.changes.move(letter.job_id, TaskState.READY, TaskState.QUEUED, 1)
    tracking.queue_tasks(
        turn.connection, [(one.letter.task_id, one.letter.delivery, one.celery_id) for one in outgoing], turn.now
    )
    # The Celery id of a later delivery cannot be told from the task's own: its row is there before its first event.
    later = [one for one in outgoing if one.letter.delivery > 1]
    tracking.insert_attempts(turn.connection, [_unheard(one) for one in later])
    return outgoing


def _source(letter: Letter) -> Source:
    """Return where what a task takes comes from, if it is not the items that have failed."""
    return Source(task=letter.takes_task, group=letter.takes_group) if letter.only_items is None else Source()


def _avoided(turn: Turn, letters: Collection[Letter]) -> dict[str, list[str]]:
    """Return by task which workers are to hand back what is sent again."""
    again = {one.task_id: one for one in letters if one.delivery > 1 and one.handed_back < MOST_HANDED_BACK}
    tried = tracking.failed_tries(turn.connection, again)
    return {id_: to_avoid(ones, again[id_].first_retries) for id_, ones in tried.items()}


def _without_input(turn: Turn, ready: Collection[Letter]) -> set[str]:
    """Return the tasks that are to be skipped because what they take is empty; who takes nothing is none of them."""
    asking = {one.task_id: _source(one) for one in ready if one.skip_empty and not one.ordered}
    sources = set(asking.values()) - {Source()}
    empty = empty_ones(turn.connection, sources) if sources else set()
    return {task_id for task_id, source in asking.items() if source in empty}


def _skip(turn: Turn, ordered: Collection[str], empty: Collection[str]) -> None:
    """End tasks as was ordered while they still waited, and those of which what they take is empty."""
    for task in tracking.tasks_by_id(turn.connection, [*ordered, *empty]).values():
        if task.id in empty:
            task.reason, task.note = SkipReason.EMPTY, EMPTY_NOTE
            task.started_at = None  # as it may have when its input was lost: it has no value
        turn.move(task, TaskState.SKIPPED)
    if ordered or empty:
        turn.move_on()


def take_held(turn: Turn) -> list[HeldMessage]:
    """Take messages of others that may run now, to be forwarded once this turn is committed (C3)."""
    return tracking.take_held(turn.connection, turn.now, _LETTERS)


def _unheard(one: Outgoing) -> Attempt:
    letter = one.letter
    return Attempt(
        task_id=letter.task_id, delivery=letter.delivery, retries=letter.first_retries, celery_id=one.celery_id
    )
