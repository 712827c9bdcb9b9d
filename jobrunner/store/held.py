"""Why a job is held by an order, or what an order about it waits for. Nothing here writes."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, literal_column, select

from jobrunner.order_kinds import Intent, OrderKind
from jobrunner.order_records import Requeue
from jobrunner.records import Standing
from jobrunner.states import ENDED_JOB, JobState, TaskState
from jobrunner.store.in_hand import IN_HAND
from jobrunner.store.reading import JobView
from jobrunner.store.schema import attempt, history, job, task
from jobrunner.store.tracking.snapshot import unacknowledged

#: States in which an order holds a job, or is not done yet.
_HELD = frozenset({JobState.PAUSED, JobState.PAUSING, JobState.CANCEL_REQUESTED, JobState.REQUEUEING})
#: So many tasks that still run are named.
_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A task that still runs, and where."""

    task_id: str
    name: str
    worker: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldView:
    """What an order about a job waits for: `running_number` tasks that still run, workers that do not know of it yet.

    `paused_by` gave the last pause, for the reason `why`; none if the job was submitted paused. Of a job that is being
    requeued, `reset` tasks wait again, and `left` are still to be reset, if that is known.
    """

    paused_by: str | None
    why: str | None
    running: Sequence[Running]
    running_number: int
    unacknowledged: Sequence[str]
    reset: int
    left: int | None


def held_view(connection: Connection, view: JobView) -> HeldView | None:
    """Return why a job is held; None if neither an order nor its failure rule holds it, and none is under way."""
    fails = view.will_fail is not None and view.state not in ENDED_JOB
    if view.state not in _HELD and not fails:
        return None
    paused_by, why = _paused_by(connection, view.id) if view.intent == Intent.PAUSE else (None, None)
    reset, left = _reset(connection, view)
    return HeldView(
        paused_by=paused_by,
        why=why,
        running=_running(connection, view.id),
        running_number=_running_number(connection, view.id),
        unacknowledged=() if view.hold_version is None else unacknowledged(connection, view.hold_version),
        reset=reset,
        left=left,
    )


def _paused_by(connection: Connection, job_id: str) -> tuple[str | None, str | None]:
    ordered = select(history.c.who, history.c.why).where(
        history.c.job_id == job_id, history.c.trigger == OrderKind.PAUSE, history.c.who.is_not(None)
    )
    row = connection.execute(ordered.order_by(history.c.id.desc()).limit(1)).first()
    return (None, None) if row is None else (row.who, row.why)


_OPEN = (
    attempt.c.task_id == task.c.id,
    attempt.c.delivery == task.c.delivery,
    attempt.c.standing == literal_column(str(int(Standing.STARTED))),
    task.c.state.in_(IN_HAND) | task.c.ordered.is_not(None),  # canceled, and not gone yet
)


def _running(connection: Connection, job_id: str) -> list[Running]:
    query = select(task.c.id.label("task_id"), task.c.name, attempt.c.worker).where(task.c.job_id == job_id, *_OPEN)
    return [Running(**row._asdict()) for row in connection.execute(query.order_by(task.c.arrival).limit(_NAMED))]


def _running_number(connection: Connection, job_id: str) -> int:
    query = select(func.count()).select_from(task).join(attempt, _OPEN[0]).where(task.c.job_id == job_id, *_OPEN)
    return connection.execute(query).scalar_one()


def _reset(connection: Connection, view: JobView) -> tuple[int, int | None]:
    """Return how many tasks a requeue has reset, and how many are left; that is not known if it began with a task."""
    text = connection.execute(select(job.c.requeue).where(job.c.id == view.id)).scalar()
    what = Requeue.loads(text)
    stays = {TaskState.PENDING} if what.all else {TaskState.PENDING, TaskState.COMPLETED, TaskState.SKIPPED}
    left = sum(number for state, number in view.counts.items() if state not in stays)
    return what.reset, left if what.all or what.incomplete else None
