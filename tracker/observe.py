"""Jobs and tasks that nobody has submitted, made out of events: what Celery's own `apply_async` has sent.

A task that no plan knows joins the job that its `root_id` names. If that was submitted, a task of it has sent this one,
or Celery has for its `link` or `link_error`: it is *adopted*, and the job waits for it. Any other job is *observed*: it
has no plan, and grows with every task that is heard of. The tracker sends none of these tasks. Whatever the number of
events, there is one statement for each of: the jobs they name, new jobs, jobs that grow, new tasks; and of adopted
tasks, who has sent them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING

from jobrunner.order_kinds import Intent
from jobrunner.records import Origin, Task, Trunk
from jobrunner.states import ENDED_JOB, CancelReason, JobState, TaskState
from jobrunner.store import tracking
from jobrunner.text import NAME, bounded
from tracker.fold import Event

if TYPE_CHECKING:
    from sqlalchemy import Connection

TASK_SENT = "task-sent"
#: What a task's message says, and so where it comes from; the other events of a stock worker tell its id alone.
_TELL_ORIGIN = frozenset({TASK_SENT, "task-received"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """Tasks that have become known, by their Celery id, and how many events tell of a task that has no place.

    `revived` are jobs with a plan that had ended, and have adopted a task.
    """

    tasks: Mapping[str, Task] = field(default_factory=dict)
    revived: frozenset[str] = frozenset()
    unplaced: int = 0


def join(connection: "Connection", events: Sequence[Event], known: Mapping[str, Task], now: datetime) -> Joined:
    """Give tasks that events tell of, and that are not `known`, their rows; complete those of observed ones."""
    strangers = [event for event in events if event.uuid not in known]
    observed = {uuid: task for uuid, task in known.items() if not task.block_id}
    if not strangers and not observed:
        return Joined()
    roots, origins = _roots(strangers), _origins(event for event in events if event.type in _TELL_ORIGIN)
    returning = {uuid: observed[uuid] for uuid in origins if uuid in observed}
    jobs = tracking.trunks(connection, {*roots.values(), *(task.job_id for task in returning.values())})
    adopted = _adopted(roots, returning, jobs)
    origins |= _below_creators(connection, {uuid: origins[uuid] for uuid in adopted if uuid in origins})
    new_jobs = {root: _new_job(root) for root in roots.values() if root not in jobs}
    jobs |= new_jobs
    before = {job.id: (job.name, job.total) for job in jobs.values()}
    joining = _take_in(roots, origins, jobs, now)
    _complete(connection, returning, origins, jobs)
    tracking.insert_observed_jobs(connection, list(new_jobs.values()), now)
    changed = [job for job in jobs.values() if job.id not in new_jobs and (job.name, job.total) != before[job.id]]
    tracking.update_observed_jobs(connection, changed)
    tracking.insert_observed_tasks(connection, joining, now)
    tracking.place_adopted(connection, adopted)
    return Joined(
        tasks={task.id: task for task, _, _ in joining},
        revived=frozenset(job.id for job in changed if _is_revived(job, total=before[job.id][1])),
        unplaced=sum(event.uuid not in roots for event in strangers),
    )


def _new_job(root: str) -> Trunk:
    return Trunk(id=root, observed=True, name="", state=JobState.QUEUED, total=0, arrival=0)


def _is_revived(job: Trunk, *, total: int) -> bool:
    """Whether a job with a plan had ended, and has more tasks than that `total` now."""
    return not job.observed and job.state in ENDED_JOB and job.total > total


def _adopted(roots: Mapping[str, str], returning: Mapping[str, Task], jobs: Mapping[str, Trunk]) -> set[str]:
    """Return those of these tasks that are, or will be, of a job with a plan."""
    planned = {job.id for job in jobs.values() if not job.observed}
    new = {uuid for uuid, root in roots.items() if root in planned}
    return new | {uuid for uuid, task in returning.items() if task.job_id in planned}


def _below_creators(connection: "Connection", origins: Mapping[str, Origin]) -> dict[str, Origin]:
    """Return origins with the creators' own ids, which may have run under others, and the sequence below theirs."""
    creators = tracking.senders(connection, {one.created_by for one in origins.values() if one.created_by})
    found = {}
    for uuid, one in origins.items():
        if one.created_by in creators:
            created_by, sequence = creators[one.created_by]
            found[uuid] = replace(one, created_by=created_by, sequence=sequence + 1)
    return found


def _take_in(
    roots: Mapping[str, str], origins: Mapping[str, Origin], jobs: Mapping[str, Trunk], now: datetime
) -> list[tuple[Task, int, Origin]]:
    """Return the tasks that join, each with its arrival and origin, and count them in their jobs."""
    joining = []
    for uuid, root in roots.items():
        job, origin = jobs[root], origins.get(uuid, Origin())
        joining.append((_task(uuid, job, now), job.arrival, origin))
        job.total += 1
        job.arrival += 1
        _name(job, uuid, origin)
    return joining


def _roots(strangers: Iterable[Event]) -> dict[str, str]:
    """Return the job of each task that these tell of, in the order in which they were first placed."""
    roots: dict[str, str] = {}
    for event in strangers:
        root = event.fields.get("root_id")
        if isinstance(root, str) and root:
            roots.setdefault(event.uuid, bounded(root, NAME))
        elif event.type in _TELL_ORIGIN:  # from a client that knows no roots: a task that stands alone
            roots.setdefault(event.uuid, event.uuid)
    return roots


def _origins(events: Iterable[Event]) -> dict[str, Origin]:
    """Return what events tell of where tasks come from; what was told first stands."""
    origins: dict[str, Origin] = {}
    for event in events:
        known = origins.get(event.uuid, Origin())
        parent = _text(event, "parent_id")
        origins[event.uuid] = Origin(
            name=known.name or _text(event, "name"),
            queue=known.queue or _text(event, "queue"),
            # A retry is sent by the task itself, which Celery then tells as its parent.
            created_by=known.created_by or (parent if parent != event.uuid else "") or None,
        )
    return origins


def _text(event: Event, name: str) -> str:
    value = event.fields.get(name)
    return bounded(value, NAME) if isinstance(value, str) else ""


def _complete(
    connection: "Connection", tasks: Mapping[str, Task], told: Mapping[str, Origin], jobs: Mapping[str, Trunk]
) -> None:
    """Fill in what was not known when these tasks joined."""
    known = tracking.origins(connection, tasks)
    filled = {
        uuid: replace(
            one,
            name=one.name or told[uuid].name,
            queue=one.queue or told[uuid].queue,
            created_by=one.created_by or told[uuid].created_by,
            sequence=one.sequence or told[uuid].sequence,
        )
        for uuid, one in known.items()
    }
    tracking.update_origins(connection, {uuid: one for uuid, one in filled.items() if one != known[uuid]})
    for uuid, one in filled.items():
        if one.name != known[uuid].name:
            _name(jobs[tasks[uuid].job_id], uuid, one)


def _name(job: Trunk, uuid: str, origin: Origin) -> None:
    """Name an observed job after the task it began with, or else after the first whose name is known."""
    if job.observed and origin.name and (uuid == job.id or not job.name):
        job.name = origin.name


def _task(uuid: str, job: Trunk, now: datetime) -> Task:
    """Return a task that joins; in a job that an operator has canceled it is canceled as well."""
    canceled = job.intent == Intent.CANCEL
    return Task(
        id=uuid, job_id=job.id, celery_id=uuid, block_id="", position=0,
        state=TaskState.CANCELED if canceled else TaskState.QUEUED,
        reason=CancelReason.ORDER if canceled else None, note=None, ordered=TaskState.CANCELED if canceled else None,
        delivery=1, first_retries=0, sent_at=now, started_at=None, ended_at=now if canceled else None,
    )  # fmt: skip
