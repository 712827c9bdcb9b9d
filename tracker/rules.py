"""Failure rules: whether a job is to fail because of what has failed of it, before all of it has ended. Pure."""

from jobrunner.records import Failed, Job
from jobrunner.states import FailureReason, FailureRule, TaskState


def may_be_met(job: Job) -> bool:
    """Whether the rule of a job is met if all its failed tasks count; some may have failed because of others."""
    return rule_met(job, job.counts[TaskState.FAILED]) is not None


def rule_met(job: Job, failed: int) -> FailureReason | None:
    """Return the reason for which a job is to fail, if so many of its tasks have failed by themselves; None if not.

    A threshold is met when that share is reached: at 10 percent, by 10 of 100.
    """
    match FailureRule(job.failure_rule):
        case FailureRule.CANCEL if failed:
            return FailureReason.TASK
        case FailureRule.THRESHOLD if failed * 100 >= (job.threshold or 0) * job.total:
            return FailureReason.THRESHOLD
        case _:
            return None


def why_met(job: Job, failed: int, first: Failed) -> str:
    """Say why a job fails by its rule."""
    named = f"{first.name} [{first.id}]"
    if job.failure_rule == FailureRule.CANCEL:
        return f"{named} failed"
    return f"{failed} of {job.total} tasks failed, and its threshold is {job.threshold} percent; the first is {named}"
