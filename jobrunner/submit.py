"""From a canvas to the rows of a job, in one transaction: all of it or none."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from celery import Celery

from jobrunner import ids
from jobrunner.barrier import with_barrier
from jobrunner.envelope import Envelopes
from jobrunner.errors import InvalidCanvasError, KeyConflictError
from jobrunner.failure_policy import DEFAULT, FailurePolicy
from jobrunner.message import Message, check_task, message_of
from jobrunner.order_kinds import Intent
from jobrunner.plan import Block, Leaf, Plan, from_canvas
from jobrunner.prerequisites import After, prerequisite_rows
from jobrunner.retry_policy import max_retries, untouched_timeout
from jobrunner.states import JobState, TaskState
from jobrunner.store import submissions
from jobrunner.store.database import Database
from jobrunner.store.schema import COUNTERS
from jobrunner.text import NAME, bounded, check_texts

_Row = dict[str, Any]

#: What a job begins with that is submitted paused: nothing of it is sent before somebody resumes it.
_PAUSED: _Row = {"state": JobState.PAUSED, "intent": Intent.PAUSE, "held": True}

#: It waits for no other job.
_AT_ONCE = After()


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """Everything that one submission writes: built, checked and serialized before the database is touched.

    Rows are made while they are written: those of a large job, all at once, would take more memory than the job.
    """

    job: _Row
    plan: Plan
    #: One for each leaf of the plan.
    messages: Sequence[Message]
    #: Ids that the caller chose for tasks, each with its path: only these can be taken already.
    chosen_ids: Mapping[str, str]
    #: The jobs that it waits for.
    after: After

    def block_rows(self) -> Iterator[_Row]:
        """Yield the rows of table `block`."""
        return (block_row(self.plan, block) for block in self.plan.blocks)

    def task_rows(self) -> Iterator[_Row]:
        """Yield the rows of table `task`."""
        leaves = zip(self.plan.leaves, self.messages, strict=True)
        return (task_row(self.plan, leaf, arrival, message) for arrival, (leaf, message) in enumerate(leaves))

    def message_rows(self) -> Iterator[_Row]:
        """Yield the rows of table `message`."""
        leaves = zip(self.plan.leaves, self.messages, strict=True)
        return (message.row(leaf.id) for leaf, message in leaves)


def prepare(
    app: Celery,
    canvas: object,
    *,
    name: str | None = None,
    key: str | None = None,
    barrier: bool = False,
    paused: bool = False,
    policy: FailurePolicy = DEFAULT,
    after: After = _AT_ONCE,
) -> Submission:
    """Turn a canvas into rows; how the job is held, with `paused` or `after`, is no part of its content.

    Raises:
        InvalidCanvasError: it is no canvas, or one of its tasks cannot be sent; the error names the place.
        InvalidParametersError: name or key do not fit.
    """
    check_texts(name=name, key=key)
    plan = from_canvas(canvas, new_id=ids.uuid7)
    chosen_ids = ids_chosen(plan)
    needed = taken(plan)
    envelopes = Envelopes(app)
    messages = [message_of(envelopes, check_task(app, leaf), leaf, is_taken=leaf.id in needed) for leaf in plan.leaves]
    digest = _digest(plan, messages, policy, barrier=barrier)
    if barrier:
        plan = with_barrier(plan)
    name = name or (plan.leaves[-1].task if plan.leaves else "empty")
    return Submission(
        job=_job_row(plan, name[:NAME], key, digest) | {"barrier": barrier, **policy.row} | (_PAUSED if paused else {}),
        plan=plan,
        messages=messages,
        chosen_ids=chosen_ids,
        after=after,
    )


def taken(plan: Plan, *, value: bool = False) -> set[str]:
    """Return the tasks whose value another one takes, itself or as an item of a group; with `value`, or of the plan."""
    sources = [leaf.takes for leaf in plan.leaves if leaf.takes is not None]
    if value and plan.value is not None:
        sources.append(plan.value)
    groups = {source.group for source in sources}
    for block in reversed(plan.blocks):  # a block comes after those inside of it
        if block.yields is not None and block.yields.block in groups:
            groups.add(block.id)
    items = {leaf.id for leaf in plan.leaves if leaf.yields is not None and leaf.yields.block in groups}
    return items | {source.task for source in sources if source.task is not None}


def write(database: Database, submission: Submission) -> tuple[str, bool]:
    """Write a job and return its id, and whether it is new: the same key with the same content is the same job.

    Raises:
        KeyConflictError: the key belongs to a job with other content.
        InvalidCanvasError: an id that the caller chose for a task belongs to one of another job.
        RefusedError: it would wait for itself, or for a job that has failed or was canceled.
        UnreachableError: the database is away; nothing was written.
    """
    job, key, chosen_ids = submission.job, submission.job["key"], submission.chosen_ids
    with database.write() as connection:
        holder = submissions.find_key(connection, key) if key else None
        if holder is None:
            _refuse_taken_ids(submissions.find_tasks(connection, chosen_ids), chosen_ids)
            waits_for = prerequisite_rows(connection, job, submission.after)
            if submissions.insert_job(
                connection,
                job | _waiting(job, waits_for),
                blocks=submission.block_rows(),
                tasks=submission.task_rows(),
                messages=submission.message_rows(),
                prerequisites=waits_for,
                chosen_ids=chosen_ids,
            ):
                return job["id"], True
            holder = submissions.find_key(connection, key) if key else None
            if holder is None:
                _refuse_taken_ids(submissions.find_tasks(connection, chosen_ids), chosen_ids)
    if holder is None or holder.digest != job["digest"]:
        msg = (
            f"The key {key!r} belongs to job {holder and holder.id}, which has other tasks, arguments or failure rules."
        )
        raise KeyConflictError(msg, "Submit the same canvas again, or choose another key.")
    return holder.id, False


def _waiting(job: _Row, waits_for: Sequence[_Row]) -> _Row:
    """Return what a job begins with that waits for others; a pause comes first."""
    unmet = sum(one["met_at"] is None for one in waits_for)
    return {"state": JobState.WAITING if unmet and job["state"] is JobState.QUEUED else job["state"], "unmet": unmet}


def ids_chosen(plan: Plan) -> dict[str, str]:
    """Return the ids that the caller gave to tasks, each with its path, after checking them."""
    seen: dict[str, str] = {}
    for leaf in plan.leaves:
        if not leaf.options.get("task_id"):
            continue
        if not isinstance(leaf.id, str) or bounded(leaf.id, NAME) != leaf.id:
            msg = f"its task_id {leaf.id!r} is no text of at most {NAME} characters."
            raise InvalidCanvasError(msg, "Leave the ids to jobrunner, or use UUIDs.", path=leaf.path)
        if leaf.id in seen:
            msg = f"its task_id {leaf.id!r} is also that of {seen[leaf.id]}."
            raise InvalidCanvasError(msg, "Leave the ids to jobrunner, or make them unique.", path=leaf.path)
        seen[leaf.id] = leaf.path
    return seen


def _refuse_taken_ids(taken: Mapping[str, str], chosen_ids: Mapping[str, str]) -> None:
    for task_id, job_id in taken.items():
        msg = f"its task_id {task_id!r} is that of a task of job {job_id}."
        raise InvalidCanvasError(msg, "Leave the ids to jobrunner, or make them unique.", path=chosen_ids[task_id])


def _digest(plan: Plan, messages: Sequence[Message], policy: FailurePolicy, *, barrier: bool) -> str:
    """A fingerprint of structure, tasks, arguments and what failures mean, without ids, times and origin."""
    numbers = {block.id: f"b{number}" for number, block in enumerate(plan.blocks)}
    numbers |= {leaf.id: f"t{number}" for number, leaf in enumerate(plan.leaves)}
    digest = hashlib.sha256()
    for leaf, message in zip(plan.leaves, messages, strict=True):
        place = f"{numbers[leaf.place.block]}.{leaf.place.position}"
        if leaf.takes is not None:  # `s` and `si` differ in nothing else
            place += f" {numbers[leaf.takes.task or leaf.takes.group or '']}"
        digest.update(f"{place} {leaf.task} {message.envelope.properties} {len(message.body)} ".encode())
        digest.update(message.body)
    for block in plan.blocks:
        parent = f"{numbers[block.place.block]}.{block.place.position}" if block.place else ""
        digest.update(f"{block.kind} {parent} {block.size} ".encode())
    digest.update(b"barrier" * barrier)
    digest.update(policy.fingerprint.encode())
    return digest.hexdigest()


def _job_row(plan: Plan, name: str, key: str | None, digest: str) -> _Row:
    value = plan.value
    return {
        "id": plan.job_id,
        "name": name,
        "key": key,
        "digest": digest,
        "keeps_values": True,
        "state": JobState.QUEUED,
        "run": 1,
        "total": len(plan.leaves),
        COUNTERS[TaskState.PENDING]: len(plan.leaves),
        "value_task": value and value.task,
        "value_group": value and value.group,
        "submitted_at": datetime.now(UTC),
    }


def block_row(plan: Plan, block: Block) -> _Row:
    """Return a block's row of table `block`."""
    return {
        "id": block.id,
        "job_id": plan.job_id,
        "kind": block.kind,
        "parent_id": block.place and block.place.block,
        "position": block.place.position if block.place else 0,
        "size": block.size,
        "remaining": block.size,
        "yields_group": block.yields and block.yields.block,
        "yields_at": block.yields and block.yields.position,
    }


def task_row(plan: Plan, leaf: Leaf, arrival: int, message: Message) -> _Row:
    """Return a leaf's row of table `task`."""
    return {
        "id": leaf.id,
        "job_id": plan.job_id,
        "celery_id": leaf.id,
        "name": leaf.task,
        "queue": message.envelope.queue,
        "arrival": arrival,
        "sequence": leaf.sequence,
        "block_id": leaf.place.block,
        "position": leaf.place.position,
        "opens_block": leaf.opens.block,
        "opens_at": leaf.opens.position,
        "takes_task": leaf.takes and leaf.takes.task,
        "takes_group": leaf.takes and leaf.takes.group,
        "yields_group": leaf.yields and leaf.yields.block,
        "yields_at": leaf.yields and leaf.yields.position,
        "discovers": bool(getattr(message.task, "discovers", False)),
        "replayable": bool(getattr(message.task, "replayable", False)),
        "skip_empty": bool(getattr(message.task, "skip_empty", False)),
        "max_retries": max_retries(message.task),
        "untouched_timeout": untouched_timeout(message.task),
        "state": TaskState.PENDING,
        "delivery": 0,
        "first_retries": 0,
        "countdown": message.countdown,
        "not_before": message.eta,
    }
