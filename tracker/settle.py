"""Jobs follow their tasks: what a turn has changed in each, and the state that this leads to."""

import logging
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING

from jobrunner.order_kinds import Intent
from jobrunner.records import Failed, HistoryLine, Job, Task
from jobrunner.states import (
    DISCOVERED,
    DISCOVERING,
    ENDED_JOB,
    ENDED_TASK,
    CancelReason,
    FailureReason,
    JobOutcome,
    JobState,
    PartialRule,
    TaskState,
    check_job_move,
)
from jobrunner.store import tracking
from jobrunner.store.tracking.upstream import CANCELED_BEFORE, failed_before
from jobrunner.text import SENTENCE, bounded
from tracker.advance import ORDERED_JOB, Verdict, judge
from tracker.rules import may_be_met, rule_met, why_met
from tracker.statements import note_of_partial

if TYPE_CHECKING:
    from sqlalchemy import Connection

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why a job moves: what has triggered it, and if that is an order, who gave it for which reason."""

    trigger: str
    who: str | None = None
    why: str | None = None


_TASKS = Cause(trigger="its tasks")
_CORRECTED = Cause(trigger="an event that came late")
_RULE = Cause(trigger="its failure rule")

#: States of a task that has not started.
_WAITING = (TaskState.PENDING, TaskState.READY, TaskState.QUEUED)


@dataclass(slots=True)
class Changes:
    """What has changed in jobs since they were settled last; `revived` are those that go on although they had ended."""

    revived: set[str] = field(default_factory=set)
    _counts: defaultdict[str, Counter[TaskState]] = field(default_factory=lambda: defaultdict(Counter))
    _discovering: Counter[str] = field(default_factory=Counter)
    _discovered: Counter[str] = field(default_factory=Counter)
    #: Jobs of which a task has failed by itself.
    _failing: set[str] = field(default_factory=set)

    @property
    def has_failures(self) -> bool:
        """Whether the failure rule of a job may be met."""
        return bool(self._failing)

    def add(self, job_id: str, state: TaskState, number: int) -> None:
        """Note that so many more tasks of a job are in a state; fewer, if the number is below zero."""
        self._counts[job_id][state] += number

    def move(self, job_id: str, old: TaskState, new: TaskState, number: int) -> None:
        """Note that so many tasks of a job have moved."""
        self.add(job_id, old, -number)
        self.add(job_id, new, number)

    def move_many(self, job_id: str, old: TaskState, new: TaskState | None, number: int, *, discovers: bool) -> None:
        """Note that so many tasks have moved that all discover work, or all do not; None: they are gone."""
        self.add(job_id, old, -number)
        if new is not None:
            self.add(job_id, new, number)
        if discovers:
            self._discovering[job_id] += number * ((new in DISCOVERING) - (old in DISCOVERING))
            self._discovered[job_id] += number * ((new in DISCOVERED) - (old in DISCOVERED))

    def move_one(self, task: Task, state: TaskState, *, corrects: bool) -> None:
        """Note that a task moves to a state; if that `corrects` its end, its job goes on."""
        self.move(task.job_id, task.state, state, 1)
        if task.discovers:
            self._discovering[task.job_id] += (state in DISCOVERING) - (task.state in DISCOVERING)
            self._discovered[task.job_id] += (state in DISCOVERED) - (task.state in DISCOVERED)
        if corrects and task.state in ENDED_TASK:
            self.revived.add(task.job_id)
        if state is TaskState.FAILED:
            self._failing.add(task.job_id)

    def settle(self, connection: "Connection", now: datetime) -> list[HistoryLine]:
        """Let every job in which something has changed follow its tasks, and return what their history says of it."""
        jobs = tracking.jobs_by_id(connection, self._counts)
        moves: list[HistoryLine] = []
        for job in jobs.values():
            moves += self._apply(job, now)
            if job.id in self._failing:
                moves += _meet_rule(connection, job, now)
            moves += follow(connection, job, _TASKS, now)
        tracking.update_jobs(connection, jobs.values())
        for noted in (self.revived, self._counts, self._discovering, self._discovered, self._failing):
            noted.clear()
        return moves

    def _apply(self, job: Job, now: datetime) -> list[HistoryLine]:
        for state, number in self._counts[job.id].items():
            job.counts[state] += number
        job.total = sum(job.counts.values())
        job.discovering += self._discovering[job.id]
        job.discovered += self._discovered[job.id]
        if job.id not in self.revived or job.state not in ENDED_JOB or job.intent == Intent.CANCEL:
            return []
        job.outcome = job.note = job.ended_at = None
        job.chore = job.chore or job.will_fail is not None  # nothing more of it starts, as before
        return [move_job(job, JobState.ACTIVE, _CORRECTED, now, corrects=True)]


def move_job(
    job: Job,
    state: JobState,
    cause: Cause,
    now: datetime,
    *,
    reason: FailureReason | None = None,
    corrects: bool = False,
) -> HistoryLine:
    """Move a job, and return the line of its history that says so.

    Raises:
        IllegalMoveError: no such move.
    """
    check_job_move(job.state, state, corrects=corrects)
    logger.info("Job %s is %s.", job.id, state, extra={"action": "job-moved", "job": job.id})
    old, job.state, job.reason = job.state, state, reason
    job.chore = job.chore or state is JobState.PAUSING  # until every worker knows
    return HistoryLine(
        job_id=job.id, task_id=None, at=now, line=_reason(reason), old=old, new=state,
        trigger=cause.trigger, who=cause.who, why=cause.why,
    )  # fmt: skip


def _reason(reason: FailureReason | str | None) -> str:
    return f"reason: {reason}" if reason else ""


def follow(connection: "Connection", job: Job, cause: Cause, now: datetime) -> list[HistoryLine]:
    """Move a job to where its tasks and its operator's intent say it is, and return what its history says of that."""
    if job.observed and job.intent is None:
        job.ended_at = job.outcome = job.note = None  # if it had ended, that was not its end
    moves = []
    while (verdict := _verdict(job)).state is not job.state:
        reason = verdict.reason
        if job.will_fail and reason is FailureReason.TASK:
            reason = FailureReason(job.will_fail)
        moves.append(move_job(job, verdict.state, cause, now, reason=reason, corrects=job.observed))
    if job.started_at is None and not job.unmet and job.total > sum(job.counts[state] for state in _WAITING):
        job.started_at = now
    if job.state in ENDED_JOB and job.ended_at is None:
        _end(connection, job, now)
        job.chore = job.chore or job.held  # what was ordered is over
        moves[-1:] = [replace(last, line=_reason(job.reason)) for last in moves[-1:]]  # that of the task is known now
    return moves


def _verdict(job: Job) -> Verdict:
    unmet = 0 if job.will_fail else job.unmet  # one that is to fail waits for nobody
    return judge(
        job.state, job.counts, discovering=job.discovering, discovered=job.discovered, kept=job.kept, intent=job.intent,
        observed=job.observed, unmet=unmet, tolerates=job.partial_rule == PartialRule.TOLERATE,
    )  # fmt: skip


def _end(connection: "Connection", job: Job, now: datetime) -> None:
    job.ended_at, job.note = now, None
    if job.state is JobState.COMPLETED:
        job.outcome = _outcome(connection, job)
    if job.reason == FailureReason.PARTIAL or job.outcome == JobOutcome.WITH_ERRORS:
        job.note = partial_note(connection, job)
    failed = tracking.first_failed(connection, job.id) if job.counts[TaskState.FAILED] else None
    if failed is not None and job.will_fail == FailureReason.THRESHOLD:
        number = tracking.count_own_failures(connection, job.id)
        job.note = bounded(f"{why_met(job, number, failed)}: {failed.why}", SENTENCE)
    elif failed is not None:
        job.reason = failed.reason or (FailureReason.CONSTRUCTION if failed.discovers else job.reason)
        job.note = bounded(f"{failed.name} [{failed.id}] failed: {failed.why}", SENTENCE)
    if job.counts[TaskState.PENDING]:
        reason, note = (
            (CancelReason.UPSTREAM, _upstream(failed)) if job.will_fail is None else (CancelReason.RULE, None)
        )
        number = tracking.cancel_pending(connection, job.id, reason, note, now)
        job.counts[TaskState.PENDING] -= number
        job.counts[TaskState.CANCELED] += number


def _outcome(connection: "Connection", job: Job) -> JobOutcome:
    if job.counts[TaskState.PARTIAL]:
        return JobOutcome.WITH_ERRORS
    return JobOutcome.NOOP if _had_nothing_to_do(connection, job) else JobOutcome.OK


def partial_note(connection: "Connection", job: Job) -> str | None:
    """Return a sentence that names the first task that ended partial, and says how many items have failed."""
    first, number = tracking.first_partial(connection, job.id), job.counts[TaskState.PARTIAL]
    if first is None:
        return None
    return note_of_partial(first, number, tracking.count_failed_items(connection, job.id) if number > 1 else 0)


def _meet_rule(connection: "Connection", job: Job, now: datetime) -> list[HistoryLine]:
    """Let a job fail whose rule is met: it is held from now on, and a chore sees to the rest; return its history."""
    if job.will_fail or job.state in ENDED_JOB | ORDERED_JOB or not may_be_met(job):
        return []
    number = tracking.count_own_failures(connection, job.id)
    reason = rule_met(job, number)
    first = tracking.first_failed(connection, job.id)
    if reason is None or first is None:
        return []
    job.will_fail, job.held, job.chore = reason, True, True
    job.note = bounded(f"nothing more of it starts: {why_met(job, number, first)}", SENTENCE)
    logger.info("Job %s will fail (%s).", job.id, reason, extra={"action": "rule-met", "job": job.id})
    return [HistoryLine(job_id=job.id, task_id=first.id, at=now, line=job.note, trigger=_RULE.trigger)]


def _had_nothing_to_do(connection: "Connection", job: Job) -> bool:
    """Whether there are no tasks, those that discover work found none, or no other has done anything."""
    if not job.total or (job.discovered and not tracking.has_grown(connection, job.id)):
        return True
    return bool(job.counts[TaskState.SKIPPED]) and not tracking.has_worked(connection, job.id)


def _upstream(failed: Failed | None) -> str:
    return failed_before(failed.name, failed.id) if failed else CANCELED_BEFORE
