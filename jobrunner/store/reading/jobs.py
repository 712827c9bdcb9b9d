"""Jobs as people see them, and what was decided about them."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select

from jobrunner.records import HistoryLine
from jobrunner.states import JobOutcome, JobState, TaskState
from jobrunner.store.schema import COUNTERS, history, job
from jobrunner.text import NAME, bounded


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job as people see it; `counts` has how many of its tasks are in each state, without the zeros.

    Of those that discover work, `discovering` are at it, and `discovered` have tried to; who was canceled has not.
    `intent` is what an operator wants of it, until he says otherwise; `annotation` his note. `hold_version` is that of
    the snapshot that tells workers how it is held. `failure_rule`, `threshold` (percent) and `propagate` say what a
    failure means for it (C5), and `partial_rule` what a partial task does; `will_fail` is the reason for which it fails
    as soon as what runs has ended. Of the jobs that it waits for, `unmet` have not completed (C4).
    """

    id: str
    name: str
    key: str | None
    observed: bool
    barrier: bool
    state: JobState
    reason: str | None
    outcome: str | None
    note: str | None
    intent: str | None
    hold_version: int | None
    priority: int
    annotation: str | None
    labels: dict[str, str]
    failure_rule: str
    threshold: int | None
    propagate: bool | None
    partial_rule: str
    will_fail: str | None
    unmet: int
    run: int
    total: int
    counts: dict[TaskState, int]
    discovering: int
    discovered: int
    submitted_at: datetime
    applied_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    value_task: str | None
    value_group: str | None


def names_something(reference: str) -> bool:
    """Whether a text may be an id, a key or a part of one: not empty, and such as a column holds."""
    return bool(reference) and bounded(reference, NAME) == reference


def find_jobs(connection: Connection, reference: str) -> list[JobView]:
    """Return the jobs that a person may mean: by id, by key, or by the beginning or end of an id (at most 3).

    Nothing names none: `cancel "$JOB"` of a script that has forgotten to set it must not mean the only job there is.
    """
    if not names_something(reference):
        return []
    exact = connection.execute(select(job).where((job.c.id == reference) | (job.c.key == reference))).first()
    if exact is not None:
        return [_job_view(exact)]
    like = select(job).where(
        job.c.id.startswith(reference, autoescape=True) | job.c.id.endswith(reference, autoescape=True)
    )
    return [_job_view(row) for row in connection.execute(like.limit(3))]


def get_job(connection: Connection, job_id: str) -> JobView | None:
    """Return a job by its id."""
    row = connection.execute(select(job).where(job.c.id == job_id)).first()
    return None if row is None else _job_view(row)


def list_jobs(connection: Connection, since: datetime | None, limit: int, *, noop: bool = True) -> list[JobView]:
    """Return the newest jobs first: the unfinished, and those that ended after `since` (all of them if None).

    Without `noop`, none of those that had nothing to do.
    """
    query = select(job).order_by(job.c.submitted_at.desc()).limit(limit)
    if since is not None:
        query = query.where(job.c.ended_at.is_(None) | (job.c.ended_at >= since))
    if not noop:
        query = query.where(job.c.outcome.is_distinct_from(JobOutcome.NOOP))
    return [_job_view(row) for row in connection.execute(query)]


def list_history(connection: Connection, job_id: str, *, limit: int | None, moves: bool = False) -> list[HistoryLine]:
    """Return what was decided last about a job and its tasks, in order; with `moves`, also what only moved the job."""
    columns = [history.c[name] for name in HistoryLine.__slots__]
    query = select(*columns).where(history.c.job_id == job_id).order_by(history.c.id.desc()).limit(limit)
    if not moves:
        query = query.where(history.c.new.is_(None))
    return [HistoryLine(**row._asdict()) for row in reversed(connection.execute(query).all())]


def _job_view(row: Row[*tuple[Any, ...]]) -> JobView:
    values = row._asdict()
    counts = {state: values.pop(column) for state, column in COUNTERS.items()}
    for name in ("digest", "keeps_values", "held", "chore", "requeue", "kept"):
        del values[name]
    values["state"] = JobState(values["state"])
    values["labels"] = json.loads(values["labels"] or "{}")
    return JobView(**values, counts={state: count for state, count in counts.items() if count})
