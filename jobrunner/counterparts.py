"""What each of the five older systems calls each of our states, reasons and outcomes, as data: one name each.

A system has a notion of a state if it has a name for what is then so, though it may not tell it from other states; and
of a reason if its document names it as the cause of an end. Where it has none, the table says so, and which of its
names comes nearest: of a reason, the end that it leads to there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias, get_args

from jobrunner.states import CancelReason, FailureReason, JobOutcome, JobState, TaskState
from jobrunner.terminology import System, Term

Member: TypeAlias = JobState | TaskState | FailureReason | CancelReason | JobOutcome


@dataclass(frozen=True, slots=True)
class Counterpart:
    """A name of theirs; `nearest` if they have none for what is meant."""

    name: str
    nearest: bool


# Arvados, Flamenco, CAF, Ngenea Hub, HySDS. After a tilde: it has no such notion, and this name comes nearest. Arvados
# and HySDS have no states of jobs: nearest is what is then true of their tasks.
_ROWS: tuple[tuple[Member, str, str, str, str, str], ...] = (
    (JobState.UNDER_CONSTRUCTION, "~success = null", "under-construction", "~progress", "Pending", "~sent"),
    (JobState.WAITING, "~success = null", "~queued", "~dependencies", "~Pending", "~sent"),
    (JobState.QUEUED, "~success = null", "queued", "~progress", "~Pending", "~sent"),
    (JobState.ACTIVE, "~success = null", "active", "~progress", "Started", "~started"),
    (JobState.PAUSING, "~success = null", "~paused", "~progress", "Pausing", "~started"),
    (JobState.PAUSED, "~success = null", "paused", "~progress", "Paused", "~sent"),
    (JobState.CANCEL_REQUESTED, "~success = null", "cancel-requested", "cancellation", "Dequeuing", "~revoked"),
    (JobState.CANCELED, "~success = null", "canceled", "cancellation", "Cancelled", "~revoked"),
    (JobState.REQUEUEING, "~success = null", "requeueing", "~progress", "~Pending", "~sent"),
    (JobState.COMPLETED, "~success = true", "completed", "completed", "Success", "~succeeded"),
    (JobState.FAILED, "~success = false", "failed", "failed", "Failure", "~failed"),
    (TaskState.PENDING, "success = null", "~queued", "~dependencies", "Pending", "~sent"),
    (TaskState.READY, "success = null", "queued", "~forwarded", "Pending", "~sent"),
    (TaskState.QUEUED, "success = null", "queued", "forwarded", "Pending", "sent"),
    (TaskState.ACTIVE, "success = null", "active", "~progress", "Started", "started"),
    (TaskState.SOFT_FAILED, "temporary failure", "soft-failed", "~failed", "~Started", "retried"),
    (TaskState.COMPLETED, "complete", "completed", "~completed", "Success", "succeeded"),
    (TaskState.PARTIAL, "success = true", "~completed", "~completed", "Error", "succeeded"),
    (TaskState.SKIPPED, "success = true", "~completed", "~completed", "Skipped", "succeeded"),
    (TaskState.FAILED, "success = false", "failed", "failed", "Failure", "failed"),
    (TaskState.CANCELED, "success = null", "canceled", "cancellation", "Cancelled", "revoked"),
    (FailureReason.TASK, "success = false", "~failed", "failed", "Failure", "failed"),
    (FailureReason.RETRIES, "~success = false", "failed", "~failed", "~Failure", "~failed"),
    (FailureReason.TIMEOUT, "~success = false", "~failed", "~failed", "~Failure", "~failed"),
    (FailureReason.UPSTREAM, "~deleted", "~failed", "failed", "~Cancelled", "~failed"),
    (FailureReason.PARTIAL, "~success = false", "~failed", "~failed", "Error", "~failed"),
    (FailureReason.LOST, "temporary failure", "~soft-failed", "~failed", "~Failure", "~failed"),
    (FailureReason.POISON, "~success = false", "failed", "~failed", "~Failure", "~failed"),
    (FailureReason.NO_WORKERS, "~success = false", "~failed", "~failed", "~Failure", "~failed"),
    (FailureReason.THRESHOLD, "~success = false", "~failed", "~failed", "~Failure", "~failed"),
    (FailureReason.EXPIRED, "~success = false", "~failed", "~failed", "~Failure", "revoked"),
    (FailureReason.INPUT_LOST, "~success = false", "~failed", "~failed", "~Failure", "~failed"),
    (FailureReason.CONSTRUCTION, "~deleted", "~failed", "~failed", "Failure", "~failed"),
    (FailureReason.ORDER, "~success = false", "~failed", "~failed", "~Failure", "~failed"),
    (CancelReason.ORDER, "~success = null", "canceled", "cancellation", "Cancelled", "~revoked"),
    (CancelReason.UPSTREAM, "~deleted", "~canceled", "~failed", "Cancelled", "~revoked"),
    (CancelReason.RULE, "~success = null", "~canceled", "~cancellation", "Cancelled", "~revoked"),
    (CancelReason.REVOKED, "~success = null", "~canceled", "~cancellation", "~Cancelled", "revoked"),
    (CancelReason.TERMINATED, "~success = null", "canceled", "~cancellation", "~Cancelled", "revoked"),
    (CancelReason.EXPIRED, "~success = null", "~canceled", "~cancellation", "~Cancelled", "revoked"),
    (JobOutcome.OK, "~success = true", "completed", "completed", "Success", "~succeeded"),
    (JobOutcome.NOOP, "~success = true", "~completed", "~completed", "~Success", "~succeeded"),
    (JobOutcome.WITH_ERRORS, "~success = true", "~completed", "~completed", "~Error", "~succeeded"),
)

# By type as well: a job's "queued" equals a task's.
_COUNTERPARTS: Mapping[tuple[type[Member], Member], Mapping[System, Counterpart]] = MappingProxyType(
    {
        (type(member), member): {
            system: Counterpart(name.removeprefix("~"), nearest=name.startswith("~"))
            for system, name in zip(get_args(System), names, strict=True)
        }
        for member, *names in _ROWS
    }
)


def counterpart(system: System, member: Member) -> Counterpart:
    """Return the one name that a system has for a state, reason or outcome of ours, or the nearest."""
    return _COUNTERPARTS[type(member), member][system]


def ends_named(term: Term) -> tuple[FailureReason | CancelReason | JobOutcome, ...]:
    """Return the reasons and outcomes of ours for which a system has exactly this name."""
    ends = (FailureReason, JobOutcome) if term.kind == "job" else (FailureReason, CancelReason)
    exact = Counterpart(term.name, nearest=False)
    return tuple(one for end in ends for one in end if counterpart(term.system, one) == exact)
