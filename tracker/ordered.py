"""What orders on jobs and on tasks have in common: who gave them, and how what they change is written down."""

import logging
from dataclasses import dataclass

from jobrunner.errors import RefusedError
from jobrunner.order_kinds import refusal
from jobrunner.order_records import Answer, Order
from jobrunner.records import Job
from jobrunner.states import JobState, TaskState
from jobrunner.store import tracking
from jobrunner.store.database import is_away
from jobrunner.text import SENTENCE, bounded
from tracker.settle import Cause, follow, move_job
from tracker.turn import Turn

logger = logging.getLogger(__name__)

#: What a worker may have, or will have: its gate must know.
OUT = (TaskState.QUEUED, TaskState.ACTIVE, TaskState.SOFT_FAILED)


def done(text: str) -> Answer:
    """Return the answer to an order that was carried out."""
    return Answer(outcome="done", text=text)


def could_not(error: Exception, what: str) -> Answer:
    """Return the answer to an order that failed, after writing down how.

    Raises:
        Exception: it did not fail by itself, but because the database is away.
    """
    if is_away(error):
        raise error
    logger.error("%s could not be carried out.", what, exc_info=error, extra={"action": "order-failed"})
    text = bounded(f"It could not be carried out ({type(error).__name__}: {error}).", SENTENCE)
    return Answer(outcome="refused", text=text)


@dataclass(slots=True)
class Ordered:
    """An order, the job that it is about, and the turn that takes it."""

    turn: Turn
    order: Order
    job: Job

    def check(self, state: JobState | TaskState) -> None:
        """Refuse the order if it is not taken in this state of what it is about.

        Raises:
            RefusedError: says what can be ordered instead.
        """
        why_not = refusal(self.order.kind, state, observed=self.job.observed)
        if why_not is not None:
            raise RefusedError(why_not)

    @property
    def cause(self) -> Cause:
        """The order, for history."""
        return Cause(trigger=self.order.kind, who=self.order.asked_by, why=self.order.why)

    def tell(self, line: str, task_id: str | None = None) -> None:
        """Write into the job's history what the order has done, apart from moving the job."""
        self.turn.tell(self.job.id, line, self.cause, task_id=task_id)

    def save(self) -> None:
        """Write the job."""
        tracking.save_orders(self.turn.connection, [self.job])
        tracking.update_jobs(self.turn.connection, [self.job])

    def move(self, state: JobState) -> None:
        """Move the job."""
        self.turn.history.append(move_job(self.job, state, self.cause, self.turn.now))

    def follow(self) -> None:
        """Let the job go where its tasks and the intent lead it."""
        self.turn.history += follow(self.turn.connection, self.job, self.cause, self.turn.now)

    @property
    def by(self) -> str:
        """Who gave the order, and why, for people."""
        why = f": {self.order.why}" if self.order.why else ""
        return bounded(f"by {self.order.asked_by}{why}", SENTENCE)
